"""The trainer on a simulated CUDA device (`tests/support/device.py`): every kind of batch."""

import json

import pytest
import torch
from safetensors.torch import save_file

from kontext.model.autoencoder import Autoencoder
from kontext.model.presets import PRESETS
from kontext.train.config import FlowTraining, Stage
from kontext.train.flow import FlowTrainer
from support.device import simulated

SIMPLE = {"families": ("kid",), "art_sets": ("flat",), "kinds": ("hair_color", "clothes_from", "background")}


@pytest.fixture
def codec(tmp_path):
    torch.manual_seed(0)
    save_file(Autoencoder(PRESETS["tiny"].autoencoder).state_dict(), tmp_path / "autoencoder.safetensors")
    (tmp_path / "latents.json").write_text(json.dumps({"scale": 1.0, "shift": 0.0}))
    return tmp_path / "autoencoder.safetensors"


def settings(targets: int, **changes) -> FlowTraining:
    return FlowTraining(
        preset="tiny",
        device="cuda",
        steps=8,
        batch=8,
        targets_per_source=targets,
        fresh=2,
        pool=8,
        first_fill=4,
        curriculum=(Stage(world=SIMPLE),),
        references_fresh=2,
        validation_pairs=2,
        validation_sentences=4,
        **changes,
    )


@pytest.mark.parametrize("targets", [1, 4])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_on_a_gpu(tmp_path, codec, workers, targets):
    config = settings(
        targets,
        workers=workers,
        rollouts=2 if targets == 1 else 0,
        generate_every=4,
        references_every=3,
        bfloat16=True,
        words_batch=4,
        words_fresh=1,
        log_every=4,
        validate_every=8,
    )
    with simulated("cuda") as device:
        run = FlowTrainer(config, tmp_path / "run", codec, False, None)
        assert run.attribute_task.loader.workers == min(1, workers)
        run.train()
        before = device.reads
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 8 and 0 < lines[-1]["edit_error"] and before
    assert run.attribute_task.pool.added >= 8 * 4 and not run.attribute_task.loader.workers


@pytest.mark.parametrize("targets", [1, 4])
def test_a_step_reads_nothing_from_the_gpu(tmp_path, codec, targets):
    # A GPU that works ahead of the host must not be waited for: what decides a batch is in host memory.
    config = settings(targets, subset_share=1.0, references_every=0, workers=0)
    with simulated("cuda") as device:
        run = FlowTrainer(config, tmp_path / "run", codec, False, None)
        run.data.pool.add(run.data.loader.take(16))
        before, subsets = device.reads, []
        for step in range(8):
            run.run.step = step
            batch = run._draw(False)
            subsets.append("active" in batch)
            loss, label_loss, _, _ = run._loss(batch, False)
            (loss + label_loss).backward()
            run.optimizer.step()
        assert device.reads == before
        assert any(subsets)
