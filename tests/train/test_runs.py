"""Training learns, resumes with the same losses, and leaves a model that loads."""

import json
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from kontext.checkpoint import load_model
from kontext.checkpoint.find import SHIPPED
from kontext.errors import BadCheckpoint, BadConfig
from kontext.model.autoencoder import Autoencoder
from kontext.model.presets import PRESETS, AutoencoderConfig
from kontext.train import autoencoder as autoencoder_training
from kontext.train.autoencoder import Crops, Replay, latent_figures, to_pixels
from kontext.train.config import AutoencoderTraining, DistillTraining, FlowTraining, Stage
from kontext.train.flow import FlowTrainer
from kontext.train.ladd import LaddTrainer
from kontext.train.loader import ExampleLoader
from kontext.train.pairs import label, target_caption, text_ids, token_mask
from kontext.train.run import Ema, Paused, TrainingRun, compact, pausing_on_signals
from kontext.train.student import DistillTrainer
from kontext.train.tokenizer import train_tokenizer
from kontext.world import World
from support.numeric import difference, rounding

SMALL_LINEAR = AutoencoderConfig(
    base_width=8,
    multipliers=(1, 2, 2),
    blocks_per_level=1,
    latent_channels=24,
    groups=1,
    patch=2,
    linear_path=True,
    scale=1.0,
    shift=0.0,
)
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


def losses(folder) -> list[float]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def interrupted(loader, calls: int):
    """The loader's `take`, which is cut off like a killed process after some calls."""
    take, left = loader.take, [calls]

    def cut_off(count):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return take(count)

    return cut_off


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
    (tmp_path / "state.pt").write_bytes(b"no state")
    with pytest.raises(BadCheckpoint, match="not the state of a run"):
        compact(tmp_path / "state.pt", tmp_path / "small.pt")
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


def small_autoencoder(steps: int, **more) -> AutoencoderTraining:
    return AutoencoderTraining(
        preset="tiny",
        steps=steps,
        batch=4,
        crop=32,
        pool=4,
        first_fill=4,
        robust_from=None,
        workers=0,
        warmup=1,
        decay_share=0.0,
        log_every=1,
        validation_pictures=1,
        validate_every=1000,
        save_seconds=0.0 if steps < 20 else 100.0,
        **more,
    )


def test_the_autoencoder_learns_a_batch_by_heart(tmp_path, monkeypatch):
    draw, drawn = Crops.draw, []

    def same(self, count):
        drawn[:] = drawn or [draw(self, count)]
        return drawn[0]

    monkeypatch.setattr(Crops, "draw", same)
    autoencoder_training.train(small_autoencoder(steps=95), tmp_path)
    course = losses(tmp_path)
    assert np.mean(course[85:95]) < 0.5 * np.mean(course[:5])


def test_an_interrupted_autoencoder_run_resumes_where_it_was(tmp_path, monkeypatch):
    """Steps continue from the saved step and weights; the crops are drawn again."""
    config = small_autoencoder(steps=6)

    class CutOff(ExampleLoader):
        def __init__(self, *args, **settings):
            super().__init__(*args, **settings)
            self.take = interrupted(self, calls=4)

    with monkeypatch.context() as patch:
        patch.setattr(autoencoder_training, "ExampleLoader", CutOff)
        with pytest.raises(KeyboardInterrupt):
            autoencoder_training.train(config, tmp_path)
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    assert saved["step"] == 3
    starts = []
    original = autoencoder_training.Ema.update

    def update(self, step):
        starts.append((step, [p.detach().clone() for p in self.live]))
        original(self, step)

    monkeypatch.setattr(autoencoder_training.Ema, "update", update)
    autoencoder_training.train(config, tmp_path, resume=True)
    assert [step for step, _ in starts] == [4, 5, 6]
    moved = max(
        (a - b).abs().max().item() for a, b in zip(starts[0][1], saved["model"].values(), strict=True)
    )
    assert 0 < moved < 0.05  # one step away from what was saved
    assert (tmp_path / "latents.json").exists()


def test_the_autoencoder_of_a_model_is_trained_with_as_that_of_a_run(tmp_path):
    weights = SHIPPED / "nano" / "autoencoder.safetensors"
    preset = load_model("nano").preset.autoencoder
    assert latent_figures(weights) == (preset.scale, preset.shift)
    (tmp_path / "latents.json").write_text('{"scale": 2, "shift": 1}')
    assert latent_figures(tmp_path / "autoencoder.safetensors") == (2.0, 1.0)
    (tmp_path / "latents.json").unlink()
    with pytest.raises(BadConfig, match=r"latents\.json"):
        latent_figures(tmp_path / "autoencoder.safetensors")


def test_round_trips_come_back_ten_times_with_their_originals():
    fresh = torch.zeros(2, 3, 4, 4)
    replay = Replay(torch.ones(2, 3, 4, 4))
    replay.trips[:] = 0
    for trip in range(9):
        places = replay.draw(2)
        replay.store(places, 0.5 * replay.current[places], fresh)
        assert (replay.trips == trip + 1).all() and (replay.originals == 1).all()
    assert replay.current.max() == pytest.approx(0.5**9)
    replay.store(replay.draw(2), replay.current, fresh)
    assert (replay.originals == 0).all() and (replay.current == 0).all() and (replay.trips == 0).all()


def test_the_linear_path_alone_is_the_principal_components(tmp_path):
    """Before any step the model with a linear path gives what the components give, on flat colors exactly."""
    model = Autoencoder(SMALL_LINEAR)
    pictures = np.stack([World().scene_picture(seed) for seed in range(6)])
    pixels = to_pixels(pictures[:, :128, :128], torch.device("cpu"))
    model.set_linear_path(pixels)
    with torch.no_grad():
        made = model.decode(model.encode(pixels))
        cells = torch.nn.functional.unfold(pixels, 8, stride=8).transpose(1, 2).reshape(-1, 192).double()
        centered = cells - cells.mean(0)
        components = torch.linalg.eigh(centered.T @ centered).eigenvectors[:, -SMALL_LINEAR.latent_channels :]
        best = (centered - centered @ components @ components.T).square().mean().item()
        error = (made - pixels).square().mean().item()
        assert best <= error * (1 + 1e-6)
        # all but the mean cell's own pattern, of which only the color remains
        assert error < 1.02 * best + 1e-4


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
