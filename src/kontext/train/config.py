"""Settings of the training runs, read from TOML. Unknown keys are rejected."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from kontext.errors import BadConfig
from kontext.model.presets import PRESETS
from kontext.precision import bfloat16_is_faster
from kontext.settings_files import read_toml


def _known_preset(name: str) -> str:
    if name not in PRESETS:
        raise ValueError(f"must be one of {', '.join(PRESETS)}, got {name!r}")
    return name


PresetName = Annotated[str, AfterValidator(_known_preset)]
Count = Annotated[int, Field(ge=1)]
NaturalNumber = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class TrainingSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Training(TrainingSettings):
    preset: PresetName = "nano-128"
    device: str = "cpu"
    seed: int = 0
    steps: Count
    seconds: Seconds | None = None
    """Time budget of the whole run; it ends, decayed and saved, at the earlier of steps and seconds."""
    call_seconds: Seconds | None = None
    """Time of one call in seconds, after which the run is saved and paused."""
    warmup: NaturalNumber = 100
    decay_share: Share = 0.4
    batch: Count
    workers: NaturalNumber = 1
    muon_rate: float = 2e-3
    adamw_rate: float = 1e-3
    ema: Share = 0.999
    bfloat16: bool | Literal["auto"] = False
    """Matrix products in bfloat16; "auto": if that is faster on this device."""
    compile: bool = False
    log_every: Count = 50
    validate_every: Count = 500
    save_seconds: Annotated[float, Field(ge=0)] = 120.0

    @property
    def autocast(self) -> bool:
        """Whether products are computed in bfloat16."""
        return bfloat16_is_faster(self.device) if self.bfloat16 == "auto" else self.bfloat16


class AutoencoderTraining(_Training):
    crop: Count = 128
    """Side of the crops, pixels."""
    pool: Count = 1024
    """Pictures from which crops are drawn."""
    first_fill: Count = 64
    """Pictures drawn before the first step."""
    fresh: Count = 1
    """New pictures per step, replacing the oldest."""
    component_pictures: Count = 512
    """Pictures whose principal components the linear path starts from."""
    color_weight: float = 1.0
    square_weight: float = 4.0
    kl_weight: float = 1e-5
    linear_rate: float = 5e-5
    """Learning rate of the linear path."""
    consistency_weight: float = 0.0
    """Weight of the L1 distance between the latents of a picture and those of its reconstruction."""
    robust_from: float | None = 0.4
    """Share of the run after which latents are noisy and decoded pictures are re-encoded; None: never."""
    validation_pictures: Count = 32

    @model_validator(mode="after")
    def _crop_fits(self) -> AutoencoderTraining:
        side = PRESETS[self.preset].sizes[0][0]
        if self.crop > side:
            raise ValueError(f"crop must be 1 to {side} pixels for the preset {self.preset}, got {self.crop}")
        return self


class WordsTraining(_Training):
    world: dict[str, Any] = {}
    """Arguments of `kontext.world.World`; none: the whole world, with rare kinds of edits more often."""
    fresh: Count = 32
    """New sentences (in two languages) per step."""
    candidates: Count = 1
    """Sentences drawn for each new one, of which the one with the rarest words is taken."""
    pool: Count = 40000
    first_fill: Count = 2000
    token_dropout: Share = 0.0
    """Probability with which a merge of the tokenizer is skipped, in every second sentence."""
    validation_sentences: NaturalNumber = 400
    anchor: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the distance from the initial encoders' outputs, on sentences whose labels those predict: a
    transformer that was trained with the initial encoders still works with the new ones.
    """


class Stage(TrainingSettings):
    """A stage of the curriculum: the world of all samples from `first_sample` on."""

    first_sample: NaturalNumber = 0
    world: dict[str, Any] = {}
    """Arguments of `kontext.world.World`."""


class FlowTraining(_Training):
    kernels: bool = True
    """Run the blocks on the C kernels where they support the CPU, instead of compiling them."""
    curriculum: tuple[Stage, ...] = (Stage(),)
    fresh: Count
    """New pairs per step; each pair is used batch / fresh times."""
    targets_per_source: Count = 1
    """Above 1, examples are orbits of the world and this many targets share the prefix of one source.
    `fresh`, `pool` and `first_fill` then count orbits of about twenty pairs each.
    """
    orbit_kinds: Count = 4
    orbit_values: Count = 3
    freeze_transformer: bool = False
    """Train the text encoders alone, through the transformer as it starts."""
    freeze_encoders: bool = False
    """Train the transformer alone, with the text encoders as they start."""
    region_weight: float = 0.3
    """Weight of the region head's cross-entropy, for presets with a region head."""
    rollouts: NaturalNumber = 0
    """Second turns per step, whose source is the model's own result of the first turn."""
    pool: Count
    first_fill: Count
    chinese_share: Share = 0.3
    generate_every: NaturalNumber = 12
    """Interval of text-to-picture batches; 0: none."""
    references_every: NaturalNumber = 0
    """Interval of batches with a second context picture; 0: none."""
    references_fresh: Count | None = None
    """New examples per batch with a second picture; None: `fresh`."""
    references_pool: Count | None = None
    """Examples with a second picture; None: `pool` divided by `references_every`."""
    text_dropout: Share = 0.1
    label_weight: float = 0.1
    letter_weight: float = 0.0
    """Weight of the loss of the letters that a picture shows where an edit acts."""
    area_weight: float = 0.0
    """k of the loss weight 1 + k * mask * clamp(0.3 / area, 0.5, 5); fades to 0 at 80 % of the run."""
    subset_share: Share = 0.0
    """Share of the edit batches that compute only some tokens of each sample, where its edit acts and around,
    as the engine does after its first step. They draw edits that change up to half of the tokens.
    """
    visibility_power: Annotated[float, Field(ge=0, le=2)] = 0.0
    """The error of a latent channel weighs as its effect on the pixels to this power; 0: all alike, 2: as in
    the pixels' squared error.
    """
    shift: float = 6.0
    shift_end: float = 3.0
    """The shift of training times falls to this over the last third."""
    uniform_share: Share = 0.2
    validation_pairs: NaturalNumber = 64
    words_batch: NaturalNumber = 0
    """Sentences per step whose attributes both encoders predict from the text; 0: none."""
    words_fresh: Count | None = None
    """New sentences per step; None: a quarter of `words_batch`."""
    words_norm: float = 0.5
    """Norm to which the gradient of their loss is clipped, over both encoders."""
    words_token_dropout: Share = 0.0
    """`token_dropout` of `WordsTraining`."""
    validation_sentences: NaturalNumber = 400
    """Held-out sentences of either split that are read at each validation, with `words_batch`."""


class DistillTraining(FlowTraining):
    method: Literal["trajectory", "ladd"] = "trajectory"
    student_steps: Count = 4
    substeps: Count = 4
    """Euler steps of the teacher per step of the student."""
    guidance_from: float = 1.0
    guidance_to: float = 1.0
    """Range of guidance to distill; with a non-empty range the student embeds it."""
    adversarial_weight: float = 0.1
    """ladd: weight of the adversarial loss; that of the error to the target is `data_weight`."""
    data_weight: float = 1.0
    discriminator_rate: float = 1e-3
    renoise_shift: float = 2.7
    """ladd: shift of the times at which prediction and target are compared."""


class LoraTraining(TrainingSettings):
    model: str = "nano"
    """Name or path of the base model."""
    device: str = "cpu"
    seed: int = 0
    steps: Count
    seconds: Seconds | None = None
    warmup: NaturalNumber = 20
    decay_share: Share = 0.3
    batch: Count = 4
    rank: Count = 16
    alpha: float = 16.0
    rate: float = 1e-4
    shift: float | None = None
    """Shift of the training times; None: that of the model's sampling, or 3."""
    guidance: float = 1.0
    """Input of the guidance embedding in training, for models that have one."""
    bfloat16: bool = False
    world: dict[str, Any] | None = None
    """Arguments of `kontext.world.World`, whose pairs are used when no folder is given."""
    world_samples: Count = 256
    log_every: Count = 20
    save_seconds: Annotated[float, Field(ge=0)] = 120.0


CONFIGS = Path(__file__).parent / "configs"
"""Folder of the packaged settings files, which are found by their bare names."""

T = TypeVar("T", bound=BaseModel)


def find_config(path: Path) -> Path:
    """Path of a settings file, given a path or the bare name of a packaged file. Raises BadConfig."""
    if path.exists():
        return path
    if path.name == str(path) and (CONFIGS / path).is_file():
        return CONFIGS / path
    known = ", ".join(sorted(file.name for file in CONFIGS.glob("*.toml")))
    raise BadConfig(f"no such settings file: {path}; packaged files are {known}")


def read(kind: type[T], path: Path) -> T:
    """Read a TOML file, found by `find_config`, as settings.

    Raises BadConfig naming the file and the offending key.
    """
    path = find_config(path)
    return checked(kind, read_toml(path), str(path))


def checked(kind: type[T], data: dict[str, Any], origin: str) -> T:
    """Validated settings. Raises BadConfig naming the origin and the offending key."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{part}: " for part in [".".join(map(str, first["loc"]))] if part)
        raise BadConfig(f"{origin}: {where}{first['msg'].removeprefix('Value error, ')}") from None
