"""Training learns, resumes with the same losses, and leaves a model that loads."""

import json
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from kontext.checkpoint import load_model
from kontext.errors import BadCheckpoint, BadConfig
from kontext.model.autoencoder import Autoencoder
from kontext.model.presets import PRESETS
from kontext.train.config import DistillTraining, FlowTraining, Stage
from kontext.train.flow import FlowTrainer
from kontext.train.ladd import LaddTrainer
from kontext.train.pairs import label, target_caption, text_ids, token_mask
from kontext.train.run import Ema, Paused, TrainingRun, compact, pausing_on_signals
from kontext.train.student import DistillTrainer
from kontext.train.tokenizer import train_tokenizer
from kontext.world import World
from support.numeric import difference, rounding
from support.training import interrupted, losses

SIMPLE = {"families": ("kid",), "art_sets": ("flat",), "kinds": ("hair_color", "cloth_color", "background")}


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    """An untrained autoencoder: a fixed map of pictures to latents is enough to test the flow's training."""
    folder = tmp_path_factory.mktemp("codec")
    torch.manual_seed(0)
    save_file(Autoencoder(PRESETS["tiny"].autoencoder).state_dict(), folder / "autoencoder.safetensors")
    (folder / "latents.json").write_text(json.dumps({"scale": 1.0, "shift": 0.0}))
    train_tokenizer(["make the hair blue", "change the shirt to red"] * 9, 300).save(
        str(folder / "tokenizer.json")
    )
    return folder


def settings(**changes) -> FlowTraining:
    plain = dict(
        preset="tiny",
        steps=4,
        batch=4,
        fresh=2,
        pool=16,
        first_fill=4,
        workers=0,
        warmup=1,
        decay_share=0.0,
        curriculum=(Stage(world=SIMPLE),),
        log_every=1,
        validate_every=1000,
        validation_pairs=2,
    )
    return FlowTraining(**{**plain, **changes})


def trainer(config, folder, codec, resume=False, initial=None) -> FlowTrainer:
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text((codec / "tokenizer.json").read_text())
    return FlowTrainer(config, folder, codec / "autoencoder.safetensors", resume, initial)


def test_an_interrupted_flow_run_resumes_with_the_same_losses(tmp_path, codec):
    config = settings(steps=6, save_seconds=0.0)
    trainer(config, tmp_path / "whole", codec).train()
    first = trainer(config, tmp_path / "parts", codec)
    first.data.loader.take = interrupted(first.data.loader, calls=4)  # the first fill and three steps
    with pytest.raises(KeyboardInterrupt):
        first.train()
    trainer(config, tmp_path / "parts", codec, resume=True).train()
    assert len(losses(tmp_path / "parts")) == 5  # one of the six steps was text to picture
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), rel=1e-5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_pauses_a_run_which_resumes_with_the_same_losses(tmp_path, codec, number):
    whole = trainer(settings(steps=6), tmp_path / "whole", codec)
    whole.train()
    handlers = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    cut = trainer(settings(steps=6), tmp_path / "cut", codec)
    step = cut.run.record

    def record(**figures):
        step(**figures)
        if cut.run.step == 3:
            signal.raise_signal(number)

    cut.run.record = record
    with pytest.raises(Paused), pausing_on_signals():
        cut.train()
    assert {each: signal.getsignal(each) for each in handlers} == handlers
    resumed = trainer(settings(steps=6), tmp_path / "cut", codec, resume=True)
    assert resumed.run.step >= 3
    resumed.train()  # the signal is forgotten
    assert losses(tmp_path / "cut")[-2:] == losses(tmp_path / "whole")[-2:]


def test_a_run_resumes_from_a_compact_state(tmp_path, codec):
    """With its weights to float16, its step and its next examples, and without what it makes again."""
    config = settings(steps=4)
    trainer(config, tmp_path / "run", codec).train()
    state = tmp_path / "run" / "state.pt"
    again = tmp_path / "again"
    size = compact(state, again / "state.pt")
    assert size < state.stat().st_size / 6
    resumed = trainer(settings(steps=6), again, codec, resume=True)
    whole = torch.load(state, weights_only=True)
    assert resumed.run.step == 4 and resumed.data.loader.seed == whole["seed"]
    for name, value in resumed.networks.state_dict().items():
        torch.testing.assert_close(value, whole["averaged"][name], rtol=2**-11, atol=2**-24)
    averages = torch.cat([average.flatten() for average in resumed.ema.average])
    assert torch.equal(averages, torch.cat([p.detach().flatten() for p in resumed.ema.live]))
    resumed.train()
    assert resumed.run.step == 6
    started = trainer(config, tmp_path / "new", codec, initial=again / "state.pt")
    assert started.run.step == 0


def test_what_is_no_state_is_refused(tmp_path):
    torch.save([1], tmp_path / "list.pt")
    for content in (b"no state", b"hello", b"", (tmp_path / "list.pt").read_bytes()):
        (tmp_path / "state.pt").write_bytes(content)
        with pytest.raises(BadCheckpoint, match="not the state of a run"):
            compact(tmp_path / "state.pt", tmp_path / "small.pt")
    with pytest.raises(BadCheckpoint, match="no such file"):
        compact(tmp_path / "missing.pt", tmp_path / "small.pt")
    assert not (tmp_path / "small.pt").exists()


def test_a_flow_run_leaves_a_model_that_loads(tmp_path, codec):
    model = load_model(str(trainer(settings(), tmp_path / "run", codec).train()))
    assert model.preset.transformer == PRESETS["tiny"].transformer
    ids, clip_ids, cut = model.token_ids(["make the hair blue"])
    assert ids.shape == (1, PRESETS["tiny"].text_length) and not cut[0]


def test_a_time_budget_ends_a_run_with_everything_saved(tmp_path, codec):
    config = settings(steps=10**6, seconds=1.0)
    trainer(config, tmp_path / "run", codec).train()
    assert (tmp_path / "run" / "state.pt").exists()
    assert (tmp_path / "run" / "model" / "transformer.safetensors").exists()


@pytest.mark.slow
def test_tiny_overfits_sixteen_pairs(tmp_path, codec):
    config = settings(
        steps=500,
        seconds=110.0,
        batch=16,
        fresh=1,
        pool=16,
        first_fill=16,
        text_dropout=0.0,
        generate_every=0,
        decay_share=0.4,
        log_every=100,
    )
    run = trainer(config, tmp_path / "run", codec)
    pairs = run.data.loader.take(16)
    run.data.loader.take = lambda count: {name: value[:count] for name, value in pairs.items()}
    run.train()
    latents = run.data.pool.fields
    with run.ema:
        contexts = run.contexts({"source": latents["source"].float()})
        made = run.validation.sample(latents["text"].long(), contexts)
    truth, mask = _packed(latents["target"]), latents["mask"].bool()
    error = (made - truth)[mask].square().mean()
    spread = truth.max() - truth.min()
    decibels = 10 * torch.log10(spread**2 / error).item()
    assert decibels > 30, f"{decibels:.1f} dB in the changed region"


def _packed(latents):
    from kontext.model.tokens import pack

    return pack(latents.float())


def test_rollouts_put_the_models_own_results_in_the_pool(tmp_path, codec):
    run = trainer(settings(rollouts=3, fresh=1, first_fill=2, steps=2), tmp_path / "run", codec)
    before = run.data.pool.added
    run.train()
    assert run.data.pool.added - before == 2 + 2 * (1 + 3)
    chains = run.data.chains.producer(0)
    assert chains["mask"].sum() == 0  # seed 0 is an idle turn: leave the picture as it is
    assert run.data.chains.producer(1)["mask"].sum() > 0


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_student_comes_nearer_to_its_teacher(tmp_path, codec, guidance):
    teacher = trainer(settings(steps=4), tmp_path / "teacher", codec)
    teacher.train()
    config = DistillTraining(
        **settings(steps=16, generate_every=0, label_weight=0.0, log_every=2, muon_rate=4e-3).model_dump(),
        student_steps=2,
        substeps=3,
        guidance_to=guidance,
    )
    folder = tmp_path / "student"
    student = DistillTrainer(
        config, folder, codec / "autoencoder.safetensors", False, tmp_path / "teacher" / "state.pt"
    )
    student.train()
    course = losses(folder)
    assert np.mean(course[-3:]) < 0.8 * course[0]
    model = load_model(str(folder / "model"))
    assert model.preset.transformer.guidance_embed == (guidance > 1)
    assert model.preset.sampling.steps == 2


def test_ladd_nears_the_truth_and_its_discriminator_separates(tmp_path, codec):
    """On four pairs, with a student of two steps: the error of its samples falls.

    Real and generated ones are separated while the student is fixed; the discriminator is saved with the
    run.
    """
    trainer(settings(steps=3), tmp_path / "teacher", codec).train()
    few = settings(
        steps=30, batch=4, first_fill=4, pool=4, generate_every=0, label_weight=0.0, muon_rate=4e-3
    )
    config = DistillTraining(**few.model_dump(), method="ladd", student_steps=2, discriminator_rate=3e-3)
    places = codec / "autoencoder.safetensors", False, tmp_path / "teacher" / "state.pt"
    student = LaddTrainer(config, tmp_path / "student", *places)
    pairs = student.data.loader.take(4)
    student.data.loader.take = lambda count: {name: value[:count] for name, value in pairs.items()}

    def error() -> float:
        fields = student.data.pool.fields
        contexts = student.contexts({"source": fields["source"].float()})
        made = student.validation.sample(fields["text"].long(), contexts)
        return (made - _packed(fields["target"])).square().mean().item()

    student.data.fill(4, 0)
    before = error()
    student.train()
    with student.ema:
        assert error() < 0.8 * before
    batch = student.data.pool.draw(4, student.generator)
    with torch.no_grad():
        for p in student.networks.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
    for _ in range(20):
        student._loss(batch, False)
    assert student.hinge < 0.5  # 2: chance level
    state = torch.load(tmp_path / "student" / "state.pt", weights_only=True)
    again = LaddTrainer(config, tmp_path / "student", places[0], True, None)
    held = again.discriminator.state_dict()
    assert all(torch.equal(held[name], value) for name, value in state["discriminator"].items())
    assert load_model(str(tmp_path / "student" / "model")).preset.sampling.steps == 2


def test_distillation_without_a_teacher_is_refused(tmp_path, codec):
    config = DistillTraining(**settings().model_dump())
    with pytest.raises(BadConfig, match="--start"):
        DistillTrainer(config, tmp_path, codec / "autoencoder.safetensors", False, None)


def test_the_lr_factor_warms_up_and_decays(tmp_path):
    run = TrainingRun(tmp_path, steps=100, seconds=None, warmup=10, decay_share=0.5)
    run.step = 0
    assert run.lr_factor() == pytest.approx(0.1)
    run.step = 40
    assert run.lr_factor() == 1.0
    run.step = 75
    assert run.lr_factor() == pytest.approx(0.5)


def test_moving_average_swaps_in_and_out():
    module = torch.nn.Linear(2, 2)
    before = module.weight.detach().clone()
    ema = Ema([module], limit=0.9)
    with torch.no_grad():
        module.weight.add_(1.0)
    ema.update(10**6)
    with ema:
        # A few roundings of numbers below 2.
        assert difference(module.weight, before + 0.1, size=2) <= rounding(16)
    assert torch.equal(module.weight, before + 1.0)


def test_token_mask_marks_tokens_that_change():
    mask = np.zeros((256, 256), bool)
    mask[40, 200] = True
    tokens = token_mask(mask, 8).reshape(8, 8)
    assert tokens.sum() == 1 and tokens[1, 6] == 1


def test_text_ids_keep_the_end_when_cut(codec):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(codec / "tokenizer.json"))
    end = tokenizer.token_to_id("</s>")
    long = text_ids(tokenizer, "make the hair blue " * 20, 12)
    assert len(long) == 12 and long[-1] == end
    short = text_ids(tokenizer, "blue", 12)
    assert short[-1] == 0 and end in short


def test_labels_tell_values_apart_and_captions_are_empty_where_they_would_lie():
    world = World()
    samples = [world.sample(seed, kind="hair_color") for seed in range(12)]
    colors = {s.labels["hair_color"] for s in samples}
    assert len({label(s) for s in samples}) == len(colors)
    foreign = world.sample(0, kind="foreign_style")
    assert target_caption(foreign) == ("", "")


def test_a_second_picture_is_learned_from_and_matters(tmp_path, codec):
    """Style of image 2: four triples learned by heart; with second pictures exchanged, others come out."""
    world = {"kinds": ("style_from", "hair_color"), "families": ("kid",), "styles": ("line", "blueprint")}
    changes = dict(
        curriculum=(Stage(world=world),), references_every=2, steps=40, first_fill=4, batch=4, muon_rate=4e-3
    )
    config = settings(**changes, generate_every=0, text_dropout=0.0, label_weight=0.0, log_every=2)
    run = trainer(config, tmp_path / "run", codec)
    pairs, triples = run.data.loader.take(4), run.data.triples.take(4)
    run.data.loader.take = lambda count: {name: value[:count] for name, value in pairs.items()}
    run.data.triples.take = lambda count: {name: value[:count] for name, value in triples.items()}
    run.train()
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    course = [line["loss_references"] for line in lines if "loss_references" in line]
    assert len(course) == 20 and np.mean(course[-5:]) < 0.7 * np.mean(course[:3])
    assert lines[-1]["two_error"] > 0 and lines[-1]["kinds"].keys() == {"hair_color", "style_from"}
    fields = run.data.references.fields
    assert "reference" in fields and "reference" not in run.data.pool.fields
    batch = {name: fields[name][:4].float() for name in ("source", "reference")}
    with run.ema:
        right, wrong = (
            run.validation.sample(fields["text"][:4].long(), run.contexts({**batch, "reference": second}))
            for second in (batch["reference"], batch["reference"].roll(1, 0))
        )
    assert (right - wrong).abs().mean() > 0.02 * right.abs().mean()
