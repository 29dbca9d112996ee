"""Letters in the picture: where they are, and the loss of the head that predicts them."""

import json
import string
from dataclasses import replace
from itertools import groupby

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from kontext.errors import BadCheckpoint
from kontext.model.autoencoder import Autoencoder
from kontext.model.presets import PRESETS
from kontext.train.config import FlowTraining, Stage
from kontext.train.flow import FlowTrainer
from kontext.train.letters import CLASSES, COLUMNS, LetterHead, LetterLoss, letter_grid, recorded_inputs
from kontext.train.networks import Networks
from kontext.world import World, render
from kontext.world.drawing.signs import letter_boxes

WORLD = World()


def scenes(count: int):
    for seed in range(count):
        yield WORLD.sample(seed, kind="text_write", pictures=False).after


def test_letters_are_where_they_are_drawn():
    for scene in scenes(6):
        empty = {**scene, "sign": {**scene["sign"], "word": ""}}
        drawn = np.abs(render(scene).astype(int) - render(empty)).max(-1) > 60
        boxes = letter_boxes(scene["sign"])
        assert "".join(letter for letter, _ in boxes) == scene["sign"]["word"]
        rows, columns = np.nonzero(drawn)
        left, top, right, bottom = (
            edge([box[i] for _, box in boxes]) for i, edge in enumerate([min] * 2 + [max] * 2)
        )
        glow = 8 if scene["sign"]["kind"] == "neon" else 3
        assert abs(columns.min() - left) < glow and abs(columns.max() - right) < glow
        assert abs(rows.min() - top) < glow and abs(rows.max() - bottom) < glow
        for (_, first), (_, second) in zip(boxes, boxes[1:]):
            assert first[2] == second[0]
    assert letter_boxes(empty["sign"]) == []


def test_a_grid_spells_the_word_from_left_to_right():
    for scene in scenes(6):
        grid = letter_grid(scene, 8).reshape(8, 8 * COLUMNS)
        rows = grid[grid.any(1)]
        assert 1 <= len(rows) <= 3 and (rows == rows[0]).all()
        letters = [string.ascii_uppercase[value - 1] for value, _ in groupby(rows[0]) if value]
        assert letters == [letter for letter, _ in groupby(scene["sign"]["word"])]
    foreign = WORLD.sample(0, kind="foreign_banner", pictures=False).after
    for other in (foreign, {**scene, "sign": None}, {**scene, "sheet": ["front"]}):
        assert not letter_grid(other, 8).any()


def test_the_loss_counts_letters_where_the_edit_acts():
    letters = torch.zeros(1, 2, COLUMNS, dtype=torch.int8)
    letters[0, 0, :2], letters[0, 1] = torch.tensor([1, 2]), 5
    logits = torch.zeros(1, 2, COLUMNS, CLASSES)
    logits[0, 0, 0, 1] = 50.0
    loss = LetterLoss()
    value = loss(logits, letters, torch.tensor([[1.0, 0.0]]))
    assert value.item() == pytest.approx(1.2 * np.log(CLASSES) / 2.2, rel=1e-5)  # one of two, two empty ones
    assert loss.take() == {"letters": 0.5} and loss.take() == {}
    loss(logits, letters, torch.zeros(1, 2))
    assert loss.take() == {}


def test_the_head_sees_directions_alone():
    head, tokens = LetterHead(16), torch.randn(2, 3, 16)
    assert head(tokens).shape == (2, 3, COLUMNS, CLASSES)
    torch.testing.assert_close(head(tokens), head(9 * tokens), rtol=1e-3, atol=1e-3)


def test_inputs_are_recorded_inside_the_block_alone():
    module, x = nn.Linear(2, 2), torch.ones(1, 2)
    with recorded_inputs(module) as inputs:
        module(x)
    module(x)
    assert len(inputs) == 1 and inputs[0] is x
    with recorded_inputs(None) as inputs:
        pass
    assert inputs == []


def test_states_without_letters_can_be_resumed():
    networks = Networks(PRESETS["nano-256"])
    weights = {name: w for name, w in networks.state_dict().items() if not name.startswith("letters.")}
    networks.load(weights, complete=True)
    weights.pop("label.weight")
    networks.load(weights, complete=False)
    with pytest.raises(BadCheckpoint, match="label.weight"):
        networks.load(weights, complete=True)


def test_a_flow_run_learns_letters_of_its_targets(tmp_path, monkeypatch):
    tiny = PRESETS["tiny"]
    monkeypatch.setitem(PRESETS, "tiny", replace(tiny, transformer=replace(tiny.transformer, region_after=0)))
    save_file(Autoencoder(tiny.autoencoder).state_dict(), tmp_path / "autoencoder.safetensors")
    (tmp_path / "latents.json").write_text(json.dumps({"scale": 1.0, "shift": 0.0}))
    config = FlowTraining(
        **dict(preset="tiny", steps=6, batch=8, targets_per_source=4, fresh=1, pool=16, first_fill=3),
        **dict(workers=0, warmup=1, decay_share=0.0, log_every=3, validate_every=9, validation_pairs=2),
        **dict(curriculum=(Stage(world={"kinds": ("text", "text_write")}),), letter_weight=0.5),
        **dict(adamw_rate=1e-2, kernels=False, subset_share=0.5),
    )
    run = FlowTrainer(config, tmp_path / "run", tmp_path / "autoencoder.safetensors", False, None)
    run.data.pool.add(run.data.loader.take(3))
    before = run.networks.letters.weight.detach().clone()
    batch = run.data.pool.draw(8, run.generator)
    assert batch["letters"].shape == (8, 16, COLUMNS)
    changed = batch["mask"] > 0
    assert (batch["letters"].any(-1) & changed).any(1).all()  # every target writes a word where it acts
    run.train()
    assert (run.networks.letters.weight != before).any()
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert all(0 <= line["letters"] <= 1 for line in lines if "loss" in line)
