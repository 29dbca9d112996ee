"""LoRA training: learns what its pairs show, resumes, and leaves a file that an editor takes."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from kontext.checkpoint import load_model, random_model, save_model
from kontext.engine import Editor
from kontext.errors import BadConfig, NotFound
from kontext.model.presets import PRESETS
from kontext.train.config import LoraTraining
from kontext.train.lora import adapt, draw_world, encode, read_folder, train
from support.numeric import difference, rounding


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Three pictures, each twice as dark after; one with a second picture, one upright."""
    folder = tmp_path_factory.mktemp("pairs")
    generator = np.random.default_rng(0)
    for i, size in enumerate(((64, 64), (64, 64), (48, 80))):
        pixels = np.kron(generator.integers(60, 250, (size[1] // 16, size[0] // 16, 3)), np.ones((16, 16, 1)))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}_before.png")
        Image.fromarray((pixels / 2).astype(np.uint8)).save(folder / f"{i}_after.png")
        (folder / f"{i}.txt").write_text("make it dark\n把它变暗\n", "utf-8")
    Image.fromarray(pixels.astype(np.uint8)).save(folder / "1_reference.png")
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "tiny"
    save_model(random_model(PRESETS["tiny"]), folder)
    return folder


def settings(base, **changes) -> LoraTraining:
    plain = dict(model=str(base), steps=40, batch=4, rank=4, alpha=4.0, rate=1e-2, warmup=1, log_every=2)
    return LoraTraining(**{**plain, **changes})


def losses(folder) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_lora_learns_its_pairs_and_an_editor_takes_it(tmp_path, pairs, base):
    file = train(settings(base), tmp_path / "run", pairs)
    course = losses(tmp_path / "run")
    assert np.mean(course[-4:]) < 0.85 * np.mean(course[:3])
    assert Image.open(tmp_path / "run" / "sheet.png").size == (576, 576)
    plain, changed = Editor.load(base), Editor.load(base, lora=[file])
    silent = Editor.load(base, lora=[f"{file}:0"])
    picture = Image.open(pairs / "0_before.png")
    made = [
        np.asarray(e.edit(picture, "make it dark", seed=1, lock=False).picture)
        for e in (plain, changed, silent)
    ]
    assert np.array_equal(made[0], made[2]) and not np.array_equal(made[0], made[1])


def test_the_file_says_what_the_layers_said(tmp_path, base):
    """The change in the trained modules and the merged weights give the same velocity."""
    live, file = load_model(base), tmp_path / "lora.safetensors"
    layers = adapt(live.transformer, 2, 6.0)
    assert len(layers) == 8 + 2 * PRESETS["tiny"].transformer.depth_single
    for layer in layers.values():
        torch.nn.init.normal_(layer.up.weight, std=0.05, generator=torch.Generator().manual_seed(1))
    from kontext.checkpoint.lora import write_lora

    write_lora(
        file, {name: (m.down.weight.detach(), m.up.weight.detach()) for name, m in layers.items()}, 6.0
    )
    (example,) = draw_world({"kinds": ("clothes_from",)}, 1)
    encoded = encode(load_model(base), example)
    assert len(encoded.contexts) == 2
    states, pooled = encoded.texts[0]
    arguments = (encoded.target[None], states[None], pooled[None], torch.tensor([0.5]), None, encoded.ids)
    contexts = [(tokens[None], ids) for tokens, ids in encoded.contexts]
    with torch.no_grad():
        expected = live.transformer(*arguments, contexts)
        made = load_model(base, lora=[file]).transformer(*arguments, contexts)
    # Four blocks of sums over some 500 numbers; merged weights are rounded once more than the sums of two.
    assert difference(made, expected, size=1) <= 2 * rounding(4 * 500)


def test_an_interrupted_lora_run_goes_on_with_the_same_losses(tmp_path, pairs, base, monkeypatch):
    train(settings(base, steps=6, decay_share=0.0), tmp_path / "whole", pairs)
    config = settings(base, steps=6, decay_share=0.0, save_seconds=0.0)
    from kontext.train import lora

    count, one_loss = [0], lora._loss

    def cut_off(*given):
        count[0] += 1
        if count[0] == 5:
            raise KeyboardInterrupt
        return one_loss(*given)

    with monkeypatch.context() as patch:
        patch.setattr(lora, "_loss", cut_off)
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "parts", pairs)
    train(config, tmp_path / "parts", pairs, resume=True)
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), rel=1e-4)


def test_a_folder_that_lacks_something_is_reported(tmp_path, pairs, base):
    assert [len(e.references) for e in read_folder(pairs)] == [0, 1, 0]
    with pytest.raises(NotFound, match="no pairs"):
        read_folder(tmp_path)
    Image.new("RGB", (64, 64)).save(tmp_path / "a_after.png")
    with pytest.raises(NotFound, match="a_before"):
        read_folder(tmp_path)
    with pytest.raises(BadConfig, match="--data"):
        train(settings(base), tmp_path / "run")
