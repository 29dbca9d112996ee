"""Weights in fewer bits, and the numbers that they stand for by other code than ours.

The `gguf` package, PyTorch's own conversions, and formulas written out.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from kontext.model.presets import PRESETS, ClipConfig, Preset, Sampling, T5Config, TransformerConfig
from kontext.model.tokens import picture_ids

WIDE = Preset(
    name="wide",
    description="small, with rows that fill whole blocks of every format",
    transformer=TransformerConfig(
        width=256,
        heads=2,
        depth_double=2,
        depth_single=3,
        axes=(16, 56, 56),
        text_width=256,
        pooled_width=256,
        guidance_embed=True,
        context_attention="full",
    ),
    autoencoder=PRESETS["tiny"].autoencoder,
    t5=T5Config(vocab=300, width=256, heads=4, head_width=64, layers=2, feed_forward=512),
    clip=ClipConfig(vocab=300, width=256, heads=4, layers=1, feed_forward=512, length=64, end_id=1),
    text_length=32,
    sizes=((64, 64), (48, 80), (80, 48)),
    sampling=Sampling(steps=2, guidance=2.5, shift=3.0),
)

SCALES: dict[str, tuple[tuple[int, float], ...]] = {
    "Q4_0": ((0, 0.004),),
    "Q4_1": ((0, 0.004), (2, -0.03)),
    "Q5_0": ((0, 0.002),),
    "Q5_1": ((0, 0.002), (2, -0.03)),
    "Q8_0": ((0, 0.0003),),
    "Q2_K": ((80, 0.002), (82, 0.003)),
    "Q3_K": ((108, 0.0005),),
    "Q4_K": ((0, 0.0001), (2, 0.0008)),
    "Q5_K": ((0, 0.00005), (2, 0.0008)),
    "Q6_K": ((208, 0.00001),),
    "IQ4_NL": ((0, 0.0003),),
    "IQ4_XS": ((0, 0.00002),),
}
"""Where a block has its float16 factors, and values of these that give weights of a few hundredths."""


def random_blocks(kind: str, rows: int, columns: int, random: np.random.Generator) -> np.ndarray:
    """Rows of blocks of a GGUF type, (rows, bytes) uint8."""
    import gguf

    numbers, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    blocks = random.integers(0, 256, (rows * columns // numbers, size), dtype=np.uint8)
    for place, value in SCALES[kind]:
        factors = (value * random.uniform(0.5, 1.5, len(blocks))).astype(np.float16)
        blocks[:, place : place + 2] = factors.view(np.uint8).reshape(-1, 2)
    return blocks.reshape(rows, -1)


def blocks_as_numbers(kind: str, blocks: np.ndarray) -> Tensor:
    import gguf

    return torch.from_numpy(gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[kind]))


def write_gguf(
    path, tensors: dict[str, tuple[str, np.ndarray]], values: dict[str, str] | None = None
) -> None:
    """A GGUF file of tensors: (type, raw rows or numbers)."""
    import gguf

    writer = gguf.GGUFWriter(path, "flux")
    for key, value in (values or {}).items():
        writer.add_string(key, value)
    for name, (kind, data) in tensors.items():
        writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


Made = tuple[dict[str, Tensor], Tensor]
"""Tensors of a layer by the rest of their names, and the numbers they represent."""


def _note(**settings) -> Tensor:
    return torch.tensor(list(json.dumps(settings).encode()), dtype=torch.uint8)


def fp8_plain(weight: Tensor) -> Made:
    data = weight.to(torch.float8_e4m3fn)
    return {"weight": data}, data.float()


def fp8_e5m2(weight: Tensor) -> Made:
    data = weight.to(torch.float8_e5m2)
    return {"weight": data}, data.float()


def fp8_scaled(weight: Tensor) -> Made:
    scale = weight.abs().max() / 448
    data = (weight / scale).to(torch.float8_e4m3fn)
    return {"weight": data, "scale_weight": scale, "scale_input": torch.ones(())}, data.float() * scale


def fp8_by_row(weight: Tensor) -> Made:
    scale = weight.abs().amax(1, keepdim=True) / 448
    data = (weight / scale).to(torch.float8_e4m3fn)
    held = {"weight": data, "weight_scale": scale, "comfy_quant": _note(format="float8_e4m3fn")}
    return held, data.float() * scale


def int8_by_row(weight: Tensor) -> Made:
    scale = weight.abs().amax(1, keepdim=True) / 127
    data = (weight / scale).round().to(torch.int8)
    held = {
        "weight": data,
        "weight_scale": scale,
        "comfy_quant": _note(format="int8_tensorwise", per_row=True),
    }
    return held, data.float() * scale


def rotation(size: int) -> Tensor:
    """The regular Hadamard matrix of a power of four, normalized, as it is defined."""
    four = torch.tensor([[1, 1, 1, -1], [1, 1, -1, 1], [1, -1, 1, 1], [-1, 1, 1, 1]]) / 2
    whole = torch.ones(1, 1)
    while len(whole) < size:
        whole = torch.kron(whole, four)
    return whole


def int8_rotated(weight: Tensor, group: int = 64) -> Made:
    turn = rotation(group)
    rotated = (weight.view(len(weight), -1, group) @ turn).flatten(1)
    scale = rotated.abs().amax(1, keepdim=True) / 127
    data = (rotated / scale).round().to(torch.int8)
    note = _note(format="int8_tensorwise", convrot=True, convrot_groupsize=group)
    numbers = ((data.float() * scale).view(len(weight), -1, group) @ turn.T).flatten(1)
    return {"weight": data, "weight_scale": scale, "comfy_quant": note}, numbers


FP4 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def _nearest(values: Tensor, levels: Tensor) -> Tensor:
    return (values[..., None] - levels).abs().argmin(-1)


def nvfp4(weight: Tensor, tiled: bool = True) -> Made:
    rows, columns = weight.shape
    blocks = weight.view(rows, -1, 16)
    whole = weight.abs().max() / (6 * 448)
    scales = (blocks.abs().amax(-1) / 6 / whole).to(torch.float8_e4m3fn)
    factors = scales.float() * whole
    levels = torch.cat((FP4, -FP4))
    codes = _nearest(blocks / factors.clamp_min(1e-12)[..., None], levels).to(torch.uint8).view(rows, -1, 2)
    numbers = (levels[codes.long()].view(rows, -1, 16) * factors[..., None]).flatten(1)
    held = {"weight": (codes[..., 0] << 4) | codes[..., 1], "weight_scale": scales, "weight_scale_2": whole}
    if tiled:  # tiles of 128 rows and 4 blocks, written out place by place
        bits = scales.view(torch.uint8)
        down, across = -(-rows // 128), -(-bits.shape[1] // 4)
        flat = torch.zeros(down * across * 512, dtype=torch.uint8)
        for row in range(rows):
            for block in range(bits.shape[1]):
                tile = row // 128 * across + block // 4
                flat[tile * 512 + row % 32 * 16 + row % 128 // 32 * 4 + block % 4] = bits[row, block]
        held["weight_scale"] = flat.view(128 * down, 4 * across).view(torch.float8_e4m3fn)
        held["comfy_quant"] = _note(format="nvfp4")
    return held, numbers


NF4 = torch.tensor(
    [-1.0, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911, 0.0]
    + [0.0796, 0.1609, 0.2461, 0.3379, 0.4407, 0.5626, 0.7230, 1.0]
)


def nf4(weight: Tensor, nested: bool = False) -> Made:
    blocks = weight.view(-1, 64)
    largest = blocks.abs().amax(1)
    note = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": list(weight.shape)}
    held = {"weight.quant_map": NF4.clone()}
    if nested:
        offset = largest.mean()
        table = torch.linspace(-1, 1, 256)
        left = largest - offset
        outer = torch.stack([part.abs().max() for part in left.split(256)])
        every = outer.repeat_interleave(256)[: len(left)]
        inner = _nearest(left / every, table)
        largest = table[inner] * every + offset
        note |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": float(offset)}
        held |= {"weight.absmax": inner.to(torch.uint8)}
        held |= {"weight.nested_absmax": outer, "weight.nested_quant_map": table}
    else:
        held["weight.absmax"] = largest
    codes = _nearest(blocks / largest[:, None], NF4).to(torch.uint8).view(-1, 2)
    held["weight"] = ((codes[:, 0] << 4) | codes[:, 1])[:, None]
    held["weight.quant_state.bitsandbytes__nf4"] = _note(**note)
    numbers = (NF4[codes.long()].view(-1, 64) * largest[:, None]).view(weight.shape)
    return held, numbers


def bitsandbytes_int8(weight: Tensor) -> Made:
    largest = weight.abs().amax(1)
    data = (weight / largest[:, None] * 127).round().to(torch.int8)
    return {"weight": data, "SCB": largest}, data.float() * (largest / 127)[:, None]


SAFETENSORS_FORMATS: dict[str, Callable[[Tensor], Made]] = {
    "fp8 e4m3": fp8_plain,
    "fp8 e5m2": fp8_e5m2,
    "fp8, one scale": fp8_scaled,
    "fp8, a scale for each row": fp8_by_row,
    "int8, a scale for each row": int8_by_row,
    "int8, rotated": int8_rotated,
    "NVFP4, tiled": nvfp4,
    "NVFP4, by row": lambda weight: nvfp4(weight, tiled=False),
    "NF4": nf4,
    "NF4, nested": lambda weight: nf4(weight, nested=True),
    "int8 of bitsandbytes": bitsandbytes_int8,
}
EXACT = {name for name in SAFETENSORS_FORMATS if "rotated" not in name}
"""Forms whose numbers are one product away from what is stored; a rotation adds, in some order."""


@torch.inference_mode()
def velocity(model) -> Tensor:
    """What the transformer of a `WIDE` model says to a few tokens and a prompt."""
    generator = torch.Generator().manual_seed(0)
    device, dtype = model.device, model.transformer.img_in.bias.dtype

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    ids = picture_ids(0, 2, 3, device)
    context = [(noise(1, 6, 64), picture_ids(1, 2, 3, device))]
    times, guidance = (torch.tensor([value], device=device) for value in (0.8, 2.5))
    t5, clip, _ = model.token_ids(["a hat"])
    states, pooled = model.t5(t5).to(dtype), model.clip(clip).to(dtype)
    made = model.transformer(noise(1, 6, 64), states, pooled, times, guidance, ids, context)
    return made.float().cpu()
