"""Batches from orbits: targets of one source in a row, each with its own text, label and mask."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from kontext.errors import BadConfig
from kontext.model.autoencoder import Autoencoder
from kontext.model.presets import PRESETS
from kontext.train.config import DistillTraining, FlowTraining, Stage
from kontext.train.flow import FlowTrainer
from kontext.train.ladd import LaddTrainer
from kontext.train.orbits import EDITS, PICTURES, OrbitPool, Orbits
from kontext.train.pairs import edit_label
from kontext.train.tokenizer import train_tokenizer
from kontext.world import World

SIMPLE = {"families": ("kid",), "art_sets": ("flat",), "kinds": ("hair_color", "cloth_color", "background")}
TINY = PRESETS["tiny"]
PADDED = PRESETS["nano-256"].padded_length
"""Padded text lengths of several sizes, which tiny does not have."""


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    folder = tmp_path_factory.mktemp("codec")
    torch.manual_seed(0)
    save_file(Autoencoder(TINY.autoencoder).state_dict(), folder / "autoencoder.safetensors")
    (folder / "latents.json").write_text(json.dumps({"scale": 1.0, "shift": 0.0}))
    return folder / "autoencoder.safetensors"


@pytest.fixture(scope="module")
def producer():
    tokenizer = train_tokenizer(["make the hair blue", "change the shirt to red"] * 9, 300)
    return Orbits(
        worlds=((0, World(**SIMPLE)),),
        size=64,
        token_pixels=16,
        tokenizer=tokenizer.to_str(),
        text_length=64,
        chinese_share=0.3,
    )


@pytest.fixture(scope="module")
def pool(producer):
    """A pool whose latents are the pictures themselves, eight times smaller."""

    class Shrink(torch.nn.Module):
        def encode(self, pixels):
            return torch.nn.functional.avg_pool2d(pixels, 8)

    pool = OrbitPool(8, 4, Shrink(), torch.device("cpu"), PADDED)
    examples = [producer(seed) for seed in range(6)]
    pool.add({name: np.stack([example[name] for example in examples]) for name in examples[0]})
    return pool


def test_an_example_is_padded_to_fixed_shapes_and_weighs_its_kinds(producer):
    example = producer(0)
    assert example["pictures"].shape == (PICTURES, 64, 64, 3) and example["text"].shape == (EDITS, 64)
    real = example["weight"] > 0
    assert 3 < real.sum() <= EDITS and not example["text"][~real].any() and example["text"][real].any(1).all()
    shown = example["pictures"].any(axis=(1, 2, 3)).sum()
    assert max(example["source"].max(), example["target"].max()) < shown
    weights = dict(World(**SIMPLE).weights)
    assert example["weight"].sum() == pytest.approx(sum(weights.values()), rel=1e-5)


def test_a_batch_has_targets_of_one_source_in_a_row(pool):
    batch = pool.draw(16, torch.Generator().manual_seed(0))
    assert batch["source"].shape == (4, 3, 8, 8) and batch["target"].shape == (16, 3, 8, 8)
    sources = batch["source"].repeat_interleave(4, 0)
    changed = (sources - batch["target"]).abs().amax(dim=1) > 0.02  # (16, 8, 8) latents
    mask = batch["mask"].reshape(16, 4, 4).repeat_interleave(2, 1).repeat_interleave(2, 2) > 0
    assert changed.flatten(1).any(1).all()  # every target differs from its own source
    assert not (changed & ~mask).any()  # and only where its own mask says so


def test_edits_of_one_source_are_distinct_as_far_as_there_are(pool):
    for seed in range(8):
        batch = pool.draw(4, torch.Generator().manual_seed(seed))
        rows = {tuple(row.tolist()) for row in batch["text"]}
        source = batch["source"][0]
        orbit = next(
            i
            for i in range(pool.filled)
            if any(torch.equal(latents.float(), source) for latents in pool.fields["latents"][i])
        )
        place = next(
            j
            for j, latents in enumerate(pool.fields["latents"][orbit])
            if torch.equal(latents.float(), source)
        )
        edits = (pool.fields["source"][orbit] == place) & (pool.fields["weight"][orbit] > 0)
        edits &= pool.fields["text_length"][orbit] == PADDED(int((batch["text"][0] != 0).sum()))
        assert len(rows) == min(4, len({tuple(t.tolist()) for t in pool.fields["text"][orbit][edits]}))


def test_texts_of_a_batch_have_one_padded_length(pool):
    """Padding is attended, so a text must be padded in training as a request of its own is."""
    seen = set()
    for seed in range(12):
        batch = pool.draw(16, torch.Generator().manual_seed(seed))
        lengths = {PADDED(int(n)) for n in (batch["text"] != 0).sum(1)}
        assert len(lengths) == 1
        seen |= lengths
    shares = pool.fields["text_length"][: pool.filled][pool.fields["weight"][: pool.filled] > 0]
    assert len(seen) > 1 and seen <= set(shares.tolist())


def test_captions_come_with_their_pictures(pool):
    batch = pool.draw_captions(8, torch.Generator().manual_seed(0))
    assert batch["target"].shape == (8, 3, 8, 8) and batch["text"].any(1).all()


def test_a_ring_forgets_the_oldest(producer):
    pool = OrbitPool(2, 2, Autoencoder(TINY.autoencoder), torch.device("cpu"), PADDED)
    for seed in range(3):
        pool.add({name: value[None] for name, value in producer(seed).items()})
    assert pool.filled == 2 and pool.added == 3
    assert torch.equal(pool.fields["text"][0], torch.from_numpy(producer(2)["text"]))


def settings(**changes) -> FlowTraining:
    plain = dict(
        preset="tiny", steps=4, batch=8, fresh=1, pool=16, first_fill=2, workers=0, warmup=1, decay_share=0.0
    )
    more = dict(curriculum=(Stage(world=SIMPLE),), log_every=1, validate_every=1000, validation_pairs=2)
    return FlowTraining(**{**plain, **more, "targets_per_source": 4, **changes})


def test_a_run_from_orbits_resumes_with_the_same_losses(tmp_path, codec):
    def losses(folder):
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        return [line["loss"] for line in lines if "loss" in line]

    config = settings(save_seconds=0.0, generate_every=3)
    FlowTrainer(config, tmp_path / "whole", codec, False, None).train()
    first = FlowTrainer(config, tmp_path / "parts", codec, False, None)
    take, left = first.data.loader.take, [3]

    def cut_off(count):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return take(count)

    first.data.loader.take = cut_off
    with pytest.raises(KeyboardInterrupt):
        first.train()
    FlowTrainer(config, tmp_path / "parts", codec, True, None).train()
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), rel=1e-5)


def test_one_shared_prefix_gives_the_gradients_of_repeated_ones(tmp_path, codec):
    run = FlowTrainer(settings(), tmp_path, codec, False, None)
    with torch.no_grad():
        for p in run.networks.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
    run.data.pool.add(run.data.loader.take(2))
    batch = run.data.pool.draw(8, run.generator)
    z, t = torch.randn(8, 16, 64), torch.rand(8)
    contexts = run.contexts(batch)
    repeated = [(tokens.repeat_interleave(4, 0), ids) for tokens, ids in contexts]
    results = []
    for given in (contexts, repeated):
        run.networks.zero_grad()
        velocity = run.networks(z, batch["text"], t, run.target_ids, given).velocity
        velocity.square().mean().backward()
        results.append((velocity.detach(), run.networks.transformer.img_in.weight.grad.clone()))
    (v, g), (v2, g2) = results
    # float32 sums in another order: a few 1e-7 of the largest value
    assert (v - v2).abs().max() < 1e-5 * v.abs().max() and (g - g2).abs().max() < 1e-5 * g.abs().max()


def test_ladd_takes_single_pairs(tmp_path, codec):
    config = DistillTraining(**settings().model_dump(), method="ladd")
    with pytest.raises(BadConfig, match="targets_per_source"):
        LaddTrainer(config, tmp_path, codec, False, None)


def test_a_batch_of_small_edits_has_none_that_changes_more(pool):
    changed = pool.fields["changed"]
    assert changed.equal(pool.fields["mask"].sum(-1, dtype=torch.int32))
    weighted = changed[pool.fields["weight"] > 0]
    limit = int(weighted.float().quantile(0.3))
    assert weighted.min() <= limit < weighted.max()
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        assert pool.draw(8, generator, limit)["mask"].sum(1).max() <= limit
        # without such edits: any
        assert pool.draw(8, generator, int(weighted.min()) - 1)["mask"].sum(1).max() > 0


def test_with_a_subset_of_tokens_nothing_else_counts(tmp_path, codec):
    run = FlowTrainer(settings(subset_share=1.0), tmp_path, codec, False, None)
    run.data.pool.add(run.data.loader.take(2))
    subsets = []
    for seed in range(20):
        run.generator.manual_seed(seed)
        run.run.step = seed
        batch = run._draw(False)
        active = batch.get("active", torch.arange(16).expand(8, -1))
        subsets.append(active.shape[1])
        outside = torch.ones(8, 16, dtype=torch.bool).scatter(1, active, False)
        outside = outside.reshape(8, 1, 4, 4).repeat_interleave(2, 2).repeat_interleave(2, 3)  # of latents
        losses = []
        for change in (0.0, 5.0):
            run.generator.manual_seed(seed)
            run.noise.manual_seed(seed)
            changed = {**batch, "target": batch["target"] + change * outside}
            losses.append(run._loss(changed, False)[0].item())
        assert losses[0] == losses[1]
    assert 16 in subsets and len(set(subsets)) >= 3


def test_a_word_to_write_is_no_class_of_its_own():
    assert edit_label("text", {"word": "TEA"}, "TEA") == edit_label("text", {"word": "XQZ"}, "XQZ")
    assert edit_label("text", {"word": "TEA"}, "TEA") != edit_label("text_write", {"word": "TEA"}, "TEA")
    assert edit_label("hat", {"hat": "crown"}, "crown") != edit_label("hat", {"hat": "cap"}, "cap")
