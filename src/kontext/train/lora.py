"""LoRA: a low-rank update of a trained model's blocks, learned from a few pairs of pictures and sentences.

The base model is frozen; every linear layer of attention and MLP gains up @ down. Pictures and prompts are
encoded once. Pairs come from a folder or from the world; the result is a file for `kontext edit --lora` and
other tools.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from kontext import flow, pictures
from kontext.checkpoint import load_model
from kontext.checkpoint.lora import write_lora
from kontext.checkpoint.model import Model
from kontext.engine import Editor
from kontext.engine.sizes import plan_edit
from kontext.errors import BadConfig, NotFound
from kontext.model.tokens import pack, picture_ids
from kontext.train.autoencoder import to_pixels
from kontext.train.config import LoraTraining
from kontext.train.distributed import require_single_process
from kontext.train.run import TrainingRun
from kontext.world import World

log = logging.getLogger(__name__)

SHEET_ROWS = 6


@dataclass(frozen=True)
class TrainingPair:
    """One pair: the picture to edit, further pictures, the result, and alternative prompts."""

    before: Image.Image
    after: Image.Image
    prompts: tuple[str, ...]
    references: tuple[Image.Image, ...] = ()


@dataclass(frozen=True)
class Encoded:
    """An example as input of the transformer; examples with equal keys can share a batch."""

    target: Tensor
    """(n, channels)."""
    ids: Tensor
    contexts: list[tuple[Tensor, Tensor]]
    texts: list[tuple[Tensor, Tensor]]
    """For each prompt, states (m, width) and pooled (width)."""
    key: tuple


class LoraLinear(nn.Module):
    """A frozen linear layer plus its low-rank update, which starts at zero."""

    def __init__(self, base: nn.Linear, rank: int, factor: float):
        super().__init__()
        self.base, self.factor = base, factor
        where = {"device": base.weight.device, "dtype": torch.float32}
        self.down = nn.Linear(base.in_features, rank, bias=False, **where)
        self.up = nn.Linear(rank, base.out_features, bias=False, **where)
        nn.init.zeros_(self.up.weight)

    @property
    def weight(self) -> Tensor:
        """Sum of base weight and update, for blocks that use a subset of rows."""
        change = self.factor * (self.up.weight @ self.down.weight)
        return self.base.weight + change.to(self.base.weight.dtype)

    @property
    def bias(self) -> Tensor | None:
        return self.base.bias

    def forward(self, x: Tensor) -> Tensor:
        y = self.base(x)
        return y + (self.factor * self.up(self.down(x.to(self.down.weight.dtype)))).to(y.dtype)


def adapt(transformer: nn.Module, rank: int, alpha: float) -> dict[str, LoraLinear]:
    """Add updates to attention and MLP of every block (in place); returns name -> layer."""
    found = {
        name: module
        for name, module in transformer.named_modules()
        if isinstance(module, nn.Linear) and "blocks." in name and "mod" not in name
    }
    changed = {}
    for name, module in found.items():
        parent, _, last = name.rpartition(".")
        changed[name] = LoraLinear(module, rank, alpha / rank)
        setattr(transformer.get_submodule(parent), last, changed[name])
    return changed


@torch.no_grad()
def fold(transformer: nn.Module, layers: dict[str, LoraLinear]) -> None:
    """Merge the updates into the weights and restore the plain layers."""
    for name, layer in layers.items():
        parent, _, last = name.rpartition(".")
        layer.base.weight.copy_(layer.weight)
        setattr(transformer.get_submodule(parent), last, layer.base)


def read_folder(folder: Path) -> list[TrainingPair]:
    """Pairs in a folder.

    Files: NAME_before.*, NAME_after.*, NAME.txt with one prompt per line, and NAME_reference*.* for further
    pictures. Raises NotFound for missing files, BadConfig for an empty prompt file, BadPicture for unreadable
    pictures.
    """
    examples = []
    for after in sorted(folder.glob("*_after.*")):
        name = after.name[: -len(f"_after{after.suffix}")]
        before = next(iter(sorted(folder.glob(f"{name}_before.*"))), None)
        prompt = folder / f"{name}.txt"
        if before is None or not prompt.is_file():
            raise NotFound(f"{after.name} needs {name}_before.* and {name}.txt in {folder}")
        lines = tuple(line.strip() for line in prompt.read_text("utf-8").splitlines() if line.strip())
        if not lines:
            raise BadConfig(f"{prompt.name} is empty; write one prompt per line")
        references = tuple(pictures.load(p).opaque_rgb for p in sorted(folder.glob(f"{name}_reference*.*")))
        examples.append(
            TrainingPair(pictures.load(before).opaque_rgb, pictures.load(after).opaque_rgb, lines, references)
        )
    if not examples:
        raise NotFound(f"no pairs in {folder}: name them NAME_before.png, NAME_after.png and NAME.txt")
    return examples


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def draw_world(world: dict[str, Any], count: int) -> list[TrainingPair]:
    """Pairs of the world, with a prompt in each language."""
    samples = (World(**world).without("generate").sample(f"lora {i}") for i in range(count))
    return [
        TrainingPair(
            Image.fromarray(s.source),
            Image.fromarray(s.target),
            (s.english, s.chinese),
            tuple(map(Image.fromarray, s.references)),
        )
        for s in samples
        if s.source is not None
    ]


@torch.no_grad()
def encode(model: Model, example: TrainingPair) -> Encoded:
    """Encode an example; pictures are placed on the canvas as in an edit."""
    sizes = model.preset.sizes
    device = model.transformer.img_in.weight.device
    dtype = model.autoencoder.encoder.conv_in.weight.dtype

    def tokens(picture: Image.Image) -> tuple[Tensor, tuple[int, int]]:
        plan = plan_edit(picture.size, "match", sizes)
        pixels = to_pixels(np.array(plan.place(picture))[None], device).to(dtype)
        latents = model.autoencoder.encode(pixels).float()
        return pack(latents)[0], (latents.shape[2] // 2, latents.shape[3] // 2)

    target, grid = tokens(example.after)
    contexts = []
    for index, picture in enumerate((example.before, *example.references), 1):
        shown, own = tokens(picture)
        contexts.append((shown, picture_ids(index, *own, device)))
    t5, clip, _ = model.token_ids(example.prompts)
    texts = list(zip(model.t5(t5), model.clip(clip)))
    key = (grid, *(len(shown) for shown, _ in contexts))
    return Encoded(target, picture_ids(0, *grid, device), contexts, texts, key)


def train(config: LoraTraining, folder: Path, data: Path | None = None, resume: bool = False) -> Path:
    """Train; writes `lora.safetensors` and a contact sheet to the folder.

    data: a folder of pairs; None: the world. Returns the path of the LoRA. Raises BadConfig.
    """
    require_single_process("a LoRA")
    if (data is None) == (config.world is None):
        raise BadConfig(
            "give pairs either as a folder (--data) or as [world] in the settings, not both or none"
        )
    examples = read_folder(data) if data else draw_world(config.world or {}, config.world_samples)
    torch.manual_seed(config.seed)
    device = torch.device(config.device)
    model = load_model(config.model, device=device)
    groups: dict[tuple, list[Encoded]] = defaultdict(list)
    for example in examples:
        encoded = encode(model, example)
        groups[encoded.key].append(encoded)
    same_shape = list(groups.values())
    log.info("%s, %s", _count(len(examples), "pair"), _count(len(same_shape), "picture size"))
    layers = adapt(model.transformer, config.rank, config.alpha)
    parameters = [p for layer in layers.values() for p in (layer.down.weight, layer.up.weight)]
    optimizer = torch.optim.AdamW(parameters, lr=config.rate, weight_decay=0.01)
    run = TrainingRun(
        folder,
        steps=config.steps,
        seconds=config.seconds,
        warmup=config.warmup,
        decay_share=config.decay_share,
    )
    generator = torch.Generator().manual_seed(config.seed)
    if resume:
        state = run.load()
        for parameter, value in zip(parameters, state["lora"]):
            parameter.data.copy_(value)
        optimizer.load_state_dict(state["optimizer"])
        generator.set_state(state["generator"])

    def save() -> Path:
        path = folder / "lora.safetensors"
        matrices = {name: (m.down.weight.detach(), m.up.weight.detach()) for name, m in layers.items()}
        write_lora(path, matrices, config.alpha)
        learned = [p.detach() for p in parameters]
        state = {"lora": learned, "optimizer": optimizer.state_dict(), "generator": generator.get_state()}
        run.save(state)
        return path

    shares = torch.tensor([len(group) for group in same_shape], dtype=torch.float32)
    losses, last_save = [], run.elapsed
    while not run.finished:
        group = same_shape[int(torch.multinomial(shares, 1, generator=generator))]
        loss = _loss(model, group, config, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for rates in optimizer.param_groups:
            rates["lr"] = config.rate * run.lr_factor()
        optimizer.step()
        run.step += 1
        losses.append(loss.detach())
        if run.step % config.log_every == 0 or run.finished:
            run.record(loss=torch.stack(losses).mean().item())
            losses = []
        if run.elapsed - last_save > config.save_seconds:
            save()
            last_save = run.elapsed
    path = save()
    fold(model.transformer, layers)
    _sheet(model, examples, folder / "sheet.png")
    return path


def _loss(model: Model, group: list[Encoded], config: LoraTraining, generator: torch.Generator) -> Tensor:
    chosen = [group[i] for i in torch.randint(len(group), (config.batch,), generator=generator)]
    prompts = [
        encoded.texts[int(torch.randint(len(encoded.texts), (), generator=generator))] for encoded in chosen
    ]
    data = torch.stack([encoded.target for encoded in chosen])
    noise = torch.randn(data.shape, generator=generator).to(data.device)
    shift = config.shift or model.preset.sampling.shift or 3.0
    t = flow.training_times(config.batch, generator, shift=shift, uniform_share=0.2).to(data.device)
    contexts = [
        (torch.stack([encoded.contexts[i][0] for encoded in chosen]), ids)
        for i, (_, ids) in enumerate(chosen[0].contexts)
    ]
    guidance = None
    if model.preset.transformer.guidance_embed:
        guidance = torch.full_like(t, config.guidance)
    dtype = model.transformer.img_in.weight.dtype
    with torch.autocast(data.device.type, torch.bfloat16, enabled=config.bfloat16 or dtype != torch.float32):
        velocity = model.transformer(
            flow.interpolate(data, noise, t),
            torch.stack([states for states, _ in prompts]),
            torch.stack([pooled for _, pooled in prompts]),
            t,
            guidance,
            chosen[0].ids,
            contexts,
        )
    return (velocity.float() - flow.velocity(data, noise)).square().mean()


def _sheet(model: Model, examples: list[TrainingPair], path: Path) -> None:
    """Source, result and target of the first examples."""
    editor, rows = Editor(model), []
    for example in examples[:SHEET_ROWS]:
        result = editor.edit(
            example.before, example.prompts[0], references=example.references, seed=1, lock=False
        ).picture
        rows.append([p.convert("RGB").resize((192, 192)) for p in (example.before, result, example.after)])
    sheet = Image.new("RGB", (3 * 192, 192 * len(rows)))
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            sheet.paste(picture, (192 * x, 192 * y))
    sheet.save(path)
