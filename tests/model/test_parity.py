"""Our networks and loop against those of `diffusers`, on the same random weights and numbers."""

import dataclasses

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxImg2ImgPipeline,
    FluxKontextInpaintPipeline,
    FluxKontextPipeline,
    FluxTransformer2DModel,
)
from PIL import Image

from kontext.checkpoint.configs import to_diffusers_config
from kontext.checkpoint.names import to_diffusers
from kontext.checkpoint.save import SCHEDULER
from kontext.checkpoint.tensors import stored
from kontext.engine.context import Canvas
from kontext.engine.guidance import Guidance
from kontext.engine.layout import lay_out
from kontext.engine.sampling import Batch, sample, seeded_noise
from kontext.flow import euler, from_strength, schedule
from kontext.model.autoencoder import Autoencoder
from kontext.model.presets import AutoencoderConfig, TransformerConfig
from kontext.model.tokens import pack, picture_ids, unpack
from kontext.model.transformer import Transformer
from kontext.pictures import load
from support.numeric import difference, rounding

CONFIG = TransformerConfig(
    width=96,
    heads=3,
    depth_double=2,
    depth_single=3,
    axes=(8, 12, 12),
    text_width=40,
    pooled_width=24,
    guidance_embed=True,
    context_attention="full",
)
AUTOENCODER = AutoencoderConfig(base_width=16, groups=4, scale=0.3611, shift=0.1159)
TERMS = 5 * 700
"""Of the transformer's longest sums: five blocks, products over width (96), hidden width (384), attention."""
AUTOENCODER_TERMS = 25 * 9 * 64
"""Of the longest sums of one half of the autoencoder: 25 convolutions of 3x3 over up to 64 channels."""


def as_diffusers(part, module, reference_class):
    """The reference network with the same weights, through the table of names."""
    settings = {k: v for k, v in to_diffusers_config(module.config).items() if not k.startswith("_")}
    reference = reference_class(**settings).eval()
    weights = to_diffusers(part, stored(module.state_dict()))
    reference.load_state_dict({name: tensor.read() for name, tensor in weights.items()}, strict=True)
    return reference


def transformer_pair(guidance_embed: bool):
    torch.manual_seed(0)
    ours = Transformer(dataclasses.replace(CONFIG, guidance_embed=guidance_embed)).eval()
    with torch.no_grad():
        for parameter in ours.parameters():  # norms start at 1 and would hide mistakes
            parameter.add_(0.05 * torch.randn_like(parameter))
    return ours, as_diffusers("transformer", ours, FluxTransformer2DModel)


@torch.no_grad()
@pytest.mark.parametrize("guidance_embed", [False, True])
@pytest.mark.parametrize("pictures", [0, 1, 2])
def test_transformer_equals_diffusers(guidance_embed, pictures):
    ours, reference = transformer_pair(guidance_embed)
    generator = torch.Generator().manual_seed(pictures)

    def noise(*shape):
        return torch.randn(shape, generator=generator)

    target, text, pooled = noise(2, 24, 64), noise(2, 7, 40), noise(2, 24)
    times = torch.tensor([0.93, 0.2])
    guidance = torch.tensor([2.5, 4.0]) if guidance_embed else None
    target_ids = picture_ids(0, 4, 6)
    context = [(noise(2, 15, 64), picture_ids(1, 3, 5)), (noise(2, 8, 64), picture_ids(2, 4, 2))][:pictures]
    expected = reference(
        hidden_states=torch.cat([target, *(tokens for tokens, _ in context)], dim=1),
        encoder_hidden_states=text,
        pooled_projections=pooled,
        timestep=times,
        guidance=guidance,
        img_ids=torch.cat([target_ids, *(ids for _, ids in context)]),
        txt_ids=torch.zeros(7, 3),
    ).sample[:, :24]
    velocity = ours(target, text, pooled, times, guidance, target_ids, context)
    assert expected.std() > 0.1
    assert difference(velocity, expected) <= rounding(TERMS)


def autoencoder_pair():
    torch.manual_seed(1)
    ours = Autoencoder(AUTOENCODER).eval()
    return ours, as_diffusers("autoencoder", ours, AutoencoderKL)


@torch.no_grad()
def test_autoencoder_equals_diffusers():
    ours, reference = autoencoder_pair()
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(2, 3, 48, 64, generator=generator) * 2 - 1
    latents = torch.randn(2, 16, 6, 8, generator=generator)
    scale, shift = AUTOENCODER.scale, AUTOENCODER.shift
    expected = scale * (reference.encode(pixels).latent_dist.mode() - shift)
    assert difference(ours.encode(pixels), expected, size=1) <= rounding(AUTOENCODER_TERMS)
    expected = reference.decode(latents / scale + shift).sample
    assert difference(ours.decode(latents), expected, size=1) <= rounding(AUTOENCODER_TERMS)


def diffusers_pipeline(kind, transformer, autoencoder):
    pipeline = kind(
        scheduler=FlowMatchEulerDiscreteScheduler(
            **{k: v for k, v in SCHEDULER.items() if not k.startswith("_")}
        ),
        vae=autoencoder,
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        transformer=transformer,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.no_grad()
def test_four_step_edit_equals_the_diffusers_pipeline():
    ours, reference = transformer_pair(guidance_embed=True)
    autoencoder, reference_autoencoder = autoencoder_pair()
    pipeline = diffusers_pipeline(FluxKontextPipeline, reference, reference_autoencoder)
    generator = torch.Generator().manual_seed(3)
    picture = torch.rand(1, 3, 64, 96, generator=generator)
    text, pooled = torch.randn(1, 7, 40, generator=generator), torch.randn(1, 24, generator=generator)
    noise = torch.randn(1, 16, 8, 12, generator=generator)
    expected = pipeline(
        image=picture,
        height=64,
        width=96,
        num_inference_steps=4,
        guidance_scale=2.5,
        prompt_embeds=text,
        pooled_prompt_embeds=pooled,
        latents=pack(noise),
        max_area=64 * 96,
        _auto_resize=False,
        output_type="pt",
    ).images

    target_ids = picture_ids(0, 4, 6)
    context = [(pack(autoencoder.encode(picture * 2 - 1)), picture_ids(1, 4, 6))]

    def field(z, t):
        return ours(z, text, pooled, torch.tensor([t]), torch.tensor([2.5]), target_ids, context)

    tokens = euler(field, pack(noise), schedule(4, target_tokens=24))
    made = autoencoder.decode(unpack(tokens, 8, 12)).mul(0.5).add(0.5).clamp(0, 1)
    assert expected.std() > 0.05
    # Of pixels up to 1: each of the four steps takes the rounding of those before through the network again.
    assert difference(made, expected) <= 1e-4


class Edit:
    """A small edit: picture, prompt, negative prompt and noise, as `sample` and diffusers take them."""

    def __init__(self, guidance_embed=True, rows=4, columns=6):
        generator = torch.Generator().manual_seed(5)

        def noise(*shape):
            return torch.randn(shape, generator=generator)

        self.rows, self.columns = rows, columns
        self.transformer, reference = transformer_pair(guidance_embed)
        self.autoencoder, reference_autoencoder = autoencoder_pair()
        self.reference = reference, reference_autoencoder
        self.picture = torch.rand(1, 3, 16 * rows, 16 * columns, generator=generator)
        self.latents = self.autoencoder.encode(self.picture * 2 - 1)
        self.context = pack(self.latents), picture_ids(1, rows, columns)
        self.text, self.pooled = noise(1, 7, 40), noise(1, 24)
        self.negative = noise(1, 7, 40), noise(1, 24)
        self.noise = noise(1, 16, 2 * rows, 2 * columns)

    def ours(self, guidance, times=None, context=None, **settings):
        """The picture in 0 to 1."""
        batch = Batch(
            noise=pack(self.noise),
            ids=picture_ids(0, self.rows, self.columns),
            text=self.text,
            pooled=self.pooled,
            context=[self.context] if context is None else context,
            source=pack(self.latents),
            negative=self.negative if guidance.negative else None,
        )
        times = times or schedule(4, self.rows * self.columns)
        tokens = sample(self.transformer, batch, times, guidance, **settings).tokens
        return self.decoded(tokens)

    def decoded(self, tokens):
        latents = unpack(tokens, 2 * self.rows, 2 * self.columns)
        return self.autoencoder.decode(latents).mul(0.5).add(0.5).clamp(0, 1)

    def theirs(self, kind=FluxKontextPipeline, **settings):
        pipeline = diffusers_pipeline(kind, *self.reference)
        usual = dict(
            image=self.picture,
            height=16 * self.rows,
            width=16 * self.columns,
            num_inference_steps=4,
            guidance_scale=2.5,
            prompt_embeds=self.text,
            pooled_prompt_embeds=self.pooled,
            output_type="pt",
        )
        if kind is FluxKontextPipeline:
            usual["latents"] = pack(self.noise)
        if kind is not FluxImg2ImgPipeline:
            usual |= dict(max_area=256 * self.rows * self.columns, _auto_resize=False)
        return pipeline(**usual | settings).images


@torch.no_grad()
@pytest.mark.parametrize("guidance_embed", [False, True])
def test_true_guidance_equals_the_diffusers_pipeline(guidance_embed):
    edit = Edit(guidance_embed)
    text, pooled = edit.negative
    expected = edit.theirs(
        true_cfg_scale=3.0, negative_prompt_embeds=text, negative_pooled_prompt_embeds=pooled
    )
    assert difference(edit.ours(Guidance(scale=2.5, true=3.0)), expected) <= 1e-4
    assert difference(edit.ours(Guidance(scale=2.5)), expected) > 0.01


@torch.no_grad()
def test_true_guidance_of_some_steps_is_the_other_steps_without_it():
    edit = Edit()
    times = schedule(4, 24)
    ids, context = picture_ids(0, 4, 6), [edit.context]

    def evaluate(z, t, text, pooled):
        time, guidance = torch.tensor([t]), torch.tensor([2.5])
        return edit.transformer(z, text, pooled, time, guidance, ids, context)

    def field(z, t):
        v = evaluate(z, t, edit.text, edit.pooled)
        if t in times[1:3]:
            negative = evaluate(z, t, *edit.negative)
            v = negative + 3 * (v - negative)
        return v

    expected = edit.decoded(euler(field, pack(edit.noise), times))
    assert difference(edit.ours(Guidance(2.5, 3.0, first=2, last=3)), expected) <= 1e-4
    assert difference(edit.ours(Guidance(2.5, 3.0)), expected) > 0.01


@torch.no_grad()
@pytest.mark.parametrize("steps, strength", [(5, 0.3), (4, 0.6), (7, 0.99)])
def test_strength_equals_diffusers_with_and_without_context(steps, strength):
    edit = Edit()
    edit.noise = seeded_noise(11, 8, 12)
    times = from_strength(schedule(steps, 24), strength)
    same = dict(num_inference_steps=steps, strength=strength)
    expected = edit.theirs(
        FluxImg2ImgPipeline, image=edit.latents, generator=torch.Generator().manual_seed(11), **same
    )
    assert difference(edit.ours(Guidance(2.5), times, context=[]), expected) <= 1e-4
    whole = torch.ones(1, 1, 64, 96)  # with this mask, painting in is an edit from the noised picture
    expected = edit.theirs(
        FluxKontextInpaintPipeline, mask_image=whole, generator=torch.Generator().manual_seed(11), **same
    )
    assert difference(edit.ours(Guidance(2.5), times), expected) <= 1e-4
    shortened = len(times) - 1 < steps  # 0.99 of 7 steps are 7
    assert (difference(edit.ours(Guidance(2.5), schedule(steps, 24)), expected) > 0.01) == shortened


def placed(edit, pictures, layout):
    """Contexts of PIL pictures as the engine lays them out: tokens and positions."""
    sizes = [picture.size for picture in pictures]  # each on a canvas of its own size
    loaded = [load(picture) for picture in pictures]
    contexts = lay_out(Canvas(pictures[0]), loaded[1:], layout, sizes, token_pixels=16)
    found = []
    for context in contexts:
        pixels = torch.from_numpy(np.array(context.canvas.image)).permute(2, 0, 1)[None] / 127.5 - 1
        index, row, column = context.origin
        ids = picture_ids(index, *context.canvas.grid(16), first_row=row, first_column=column)
        found.append((pack(edit.autoencoder.encode(pixels)), ids))
    return found


def random_picture(width, height, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def tensor_of(picture):
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 255


@torch.no_grad()
def test_stitched_references_equal_diffusers_with_one_joined_picture():
    edit = Edit()
    pictures = [random_picture(96, 64, 1), random_picture(48, 64, 2)]
    joined = Image.new("RGB", (144, 64))
    joined.paste(pictures[0], (0, 0))
    joined.paste(pictures[1], (96, 0))
    expected = edit.theirs(image=tensor_of(joined))
    found = edit.ours(Guidance(2.5), context=placed(edit, pictures, "stitch"))
    assert difference(found, expected) <= 1e-4
    assert difference(edit.ours(Guidance(2.5), context=placed(edit, pictures, "index")), expected) > 0.01


@torch.no_grad()
@pytest.mark.parametrize("width, height, axis", [(96, 64, 2), (48, 80, 3)], ids=["below", "beside"])
def test_offset_references_equal_diffusers_with_joined_latents(width, height, axis):
    """Latents of equal pictures that lie side by side have the positions of one large picture."""
    edit = Edit()
    pictures = [random_picture(width, height, seed) for seed in (1, 2)]
    latents = [edit.autoencoder.encode(2 * tensor_of(picture) - 1) for picture in pictures]
    expected = edit.theirs(image=torch.cat(latents, axis))
    found = edit.ours(Guidance(2.5), context=placed(edit, pictures, "offset"))
    assert difference(found, expected) <= 1e-4
    assert difference(edit.ours(Guidance(2.5), context=placed(edit, pictures, "index")), expected) > 0.01
