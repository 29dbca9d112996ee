"""One run in several processes: the same weights in all, other examples in each, one log."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from kontext.checkpoint import load_model
from kontext.errors import BadConfig
from kontext.model.autoencoder import Autoencoder
from kontext.model.presets import PRESETS
from kontext.train.distributed import RANK_SEED_STRIDE, Distributed
from kontext.train.lora import train as train_lora

PROGRAM = """
import hashlib, json, os, sys
from pathlib import Path
from kontext.train.config import FlowTraining, Stage
from kontext.train.flow import FlowTrainer

folder, resume = Path(sys.argv[1]), sys.argv[2] == "resume"
world = {"families": ("kid",), "art_sets": ("flat",), "kinds": ("hair_color", "cloth_color", "background")}
config = FlowTraining(
    preset="tiny", steps=6 if resume else 4, batch=4, fresh=2, pool=16, first_fill=4, workers=0, warmup=1,
    curriculum=(Stage(world=world),), log_every=1, validate_every=2, validation_pairs=2,
)
trainer = FlowTrainer(config, folder / "run", folder / "autoencoder.safetensors", resume, None)
batches, loss = [], trainer._loss
def watched(batch, generate):
    batches.append(hashlib.sha256(batch["target"].numpy().tobytes()).hexdigest())
    return loss(batch, generate)
trainer._loss = watched
trainer.train()
weights = hashlib.sha256()
for value in trainer.networks.state_dict().values():
    weights.update(value.numpy().tobytes())
report = {"weights": weights.hexdigest(), "batches": batches}
report |= {"seed": trainer.data.loader.seed, "step": trainer.run.step}
(folder / f"rank{os.environ['RANK']}.json").write_text(json.dumps(report))
"""


def launched(folder: Path, *arguments: str) -> list[dict]:
    """The reports of the two processes of one run."""
    program = folder / "program.py"
    program.write_text(PROGRAM)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*torchrun, str(program), str(folder), *arguments], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


def test_two_processes_train_one_model(tmp_path):
    torch.manual_seed(0)
    save_file(Autoencoder(PRESETS["tiny"].autoencoder).state_dict(), tmp_path / "autoencoder.safetensors")
    (tmp_path / "latents.json").write_text(json.dumps({"scale": 1.0, "shift": 0.0}))
    for arguments, steps in (("new", 4), ("resume", 6)):
        first, second = launched(tmp_path, arguments)
        assert first["weights"] == second["weights"]
        assert first["step"] == second["step"] == steps
        assert not set(first["batches"]) & set(second["batches"])
        assert second["seed"] - first["seed"] == RANK_SEED_STRIDE
        log = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
        assert [line["step"] for line in log if "norm" in line] == list(range(1, steps + 1)), "one log"
    state = torch.load(tmp_path / "run/state.pt", weights_only=True)
    assert state["seed"] < RANK_SEED_STRIDE and state["step"] == 6
    load_model(str(tmp_path / "run/model"))


def test_what_cannot_be_shared_is_refused(tmp_path, monkeypatch):
    single = Distributed(torch.device("cpu"))
    assert single.is_main and single.split("batch", 7) == 7
    monkeypatch.setenv("WORLD_SIZE", "2")
    single.world_size = 2
    with pytest.raises(BadConfig, match="batch = 7 cannot be divided among 2"):
        single.split("batch", 7)
    assert [single.split("fresh", total) for total in (0, 1, 2, 6)] == [0, 1, 1, 3]
    with pytest.raises(BadConfig, match="one process"):
        train_lora(None, tmp_path)


def test_gradients_are_averaged_and_clocks_agree(tmp_path):
    program = tmp_path / "average.py"
    program.write_text(
        "import json, pathlib, time, torch\n"
        "from kontext.train.distributed import Distributed\n"
        "distributed = Distributed(torch.device('cpu'))\n"
        "time.sleep(0.2 * distributed.rank)\n"
        "a, b, c = (torch.nn.Parameter(torch.zeros(n)) for n in (2, 3, 1))\n"
        "a.grad = torch.full((2,), float(distributed.rank))\n"
        "b.grad = torch.full((3,), 4.0 * distributed.rank)\n"
        "before = distributed.clock()\n"
        "distributed.average([a, b, c])\n"
        "report = [before, distributed.clock(), a.grad.tolist(), b.grad.tolist(), c.grad]\n"
        f"pathlib.Path({str(tmp_path)!r}, f'{{distributed.rank}}.json').write_text(json.dumps(report))\n"
        "distributed.close()\n"
    )
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*torchrun, str(program)], check=True, capture_output=True)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert first[0] == 0.0 and first[1] > 0.0
    assert first[2:] == [[0.5, 0.5], [2.0, 2.0, 2.0], None]
