"""An editor of random weights, and one whose model paints what a test wants, through the real engine."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from kontext.checkpoint import load_model
from kontext.engine import Editor
from kontext.model.blocks import KeysValues
from kontext.model.tokens import pack
from kontext.model.transformer import Prefix


@pytest.fixture(scope="session")
def random_model():
    return load_model("tiny-random")


@pytest.fixture
def editor(random_model):
    return Editor(random_model)


class BlockCodec(nn.Module):
    """A codec with an error of its own: of each 8x8 block it keeps the lowest cosines, 5 or 6 a channel."""

    def __init__(self):
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(()))
        low = [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (2, 0)]
        position = (torch.arange(8) + 0.5) * math.pi / 8
        waves = [torch.outer(torch.cos(u * position), torch.cos(v * position)) for u, v in low]
        waves = torch.stack([wave / wave.norm() for wave in waves])
        kernels = torch.zeros(16, 3, 8, 8)
        for i in range(16):
            kernels[i, i % 3] = waves[i // 3]
        self.kernels = kernels

    def encode(self, pixels):
        return nn.functional.conv2d(pixels, self.kernels, stride=8) / 4

    def decode(self, latents):
        return nn.functional.conv_transpose2d(latents * 4, self.kernels, stride=8)

    def decode_with_norm_stats(self, latents):
        return self.decode(latents), ()

    def decode_window(self, latents, norms, window):
        return self.decode(latents)[:, :, window.top : window.bottom, window.left : window.right]


class Painter(nn.Module):
    """A transformer whose velocity leads from any noise to the latents of `paint(source pixels)`.

    What it leads to is the source as it was handed over as the first context, decoded, painted and encoded
    again, with a little noise everywhere, as a trained model has it.
    """

    def __init__(self, codec, noise=0.0):
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(()))
        self.config = SimpleNamespace(context_attention="prefix", guidance_embed=False, region_after=None)
        self.codec, self.noise, self.paint, self.worked_on = codec, noise, lambda pixels: None, []

    def prefill(self, tokens, ids):
        """Tokens and positions of a context, in the place of keys and values."""
        positions = ids.float().expand(len(tokens), -1, -1)
        return Prefix((KeysValues(tokens[:, None], positions[:, None]),))

    def prepare(self, text, ids, context, prefixes, guidance=None, source=None, partial=False):
        contexts = [prefix.blocks[0] for prefix in prefixes]
        return ids, [(kept.keys[:, 0], kept.values[0, 0].long()) for kept in contexts]

    def to_velocity(self, predicted, z, t):
        return predicted

    def modulations(self, times, pooled, guidance):
        return times

    def expect(self, where):
        """Have a region head that expects tokens to change `where` (rows, columns) is true."""
        self.config.region_after, self.expected = 0, torch.as_tensor(where)

    def evaluate_with_region(self, target, prepared, t):
        ids = prepared[0].long()
        likely = torch.where(self.expected[ids[:, 1], ids[:, 2]], 4.0, -4.0).expand(len(target), -1)
        return self.evaluate(target, prepared, t), likely

    def evaluate(self, target, prepared, t):
        ids, context = prepared
        self.worked_on.append(len(ids))
        rows, columns = (int(context[0][1][:, axis].max()) + 1 for axis in (1, 2))
        latents = context[0][0].reshape(-1, rows, columns, 16, 2, 2).permute(0, 3, 1, 4, 2, 5)
        pixels = self.codec.decode(latents.reshape(-1, 16, 2 * rows, 2 * columns))
        pixels = pixels.clamp(-1, 1).clone()
        for picture in pixels:
            self.paint(picture)
        wanted = self.codec.encode(pixels)
        wanted = wanted + self.noise * torch.randn(wanted.shape, generator=torch.Generator().manual_seed(5))
        return (target - pack(wanted)[:, (ids[:, 1] * columns + ids[:, 2]).long()]) / t


@pytest.fixture
def painting_editor(random_model):
    """An Editor with a 128x128 canvas.

    Set `editor.model.transformer.paint` to what shall happen to the pixels.
    """
    codec = BlockCodec()
    model = SimpleNamespace(**{name: getattr(random_model, name) for name in PARTS})
    model.preset = SimpleNamespace(
        smoothing=False,
        name="painter",
        text_length=64,
        sizes=((128, 128),),
        clip=random_model.preset.clip,
        sampling=random_model.preset.sampling,
        autoencoder=random_model.preset.autoencoder,
        token_pixels=16,
        padded_length=lambda tokens: 64,
    )
    model.autoencoder, model.transformer = codec, Painter(codec, noise=0.02)
    model.fp8 = model.compiled = False
    return Editor(model)


PARTS = ("t5", "clip", "tokenizer", "tokenizer_clip", "name", "warnings", "fingerprint", "token_ids")


@pytest.fixture
def make_scene():
    """A function (width, height) -> a smooth picture with some grain."""

    def make(width, height):
        y, x = np.mgrid[0:height, 0:width]
        x, y = x / width, y / height
        layers = [
            120 + 80 * np.sin(5 * x) * np.cos(4 * y),
            100 + 60 * np.cos(7 * y),
            140 + 50 * np.sin(9 * (x + y)),
        ]
        pixels = np.stack(layers, -1) + np.random.default_rng(1).normal(0, 4, (height, width, 1))
        return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))

    return make


@pytest.fixture
def scene(make_scene):
    return make_scene(128, 128)


@pytest.fixture
def count_calls(monkeypatch):
    """How often a network of the editor runs."""

    def install(editor):
        counts = dict.fromkeys(("encode", "decode", "prefill", "evaluate", "t5"), 0)
        model = editor.model
        for owner, name in (
            (model.autoencoder, "encode"),
            (model.autoencoder, "to_decoder_latents"),  # of every way to decode
            (model.transformer, "prefill"),
            (model.transformer, "evaluate"),
            (model.t5, "forward"),
        ):
            real = getattr(owner, name)

            key = {"to_decoder_latents": "decode", "forward": "t5"}.get(name, name)

            def counted(*given, _real=real, _key=key, **named):
                counts[_key] += 1
                return _real(*given, **named)

            monkeypatch.setattr(owner, name, counted)
        return counts

    return install
