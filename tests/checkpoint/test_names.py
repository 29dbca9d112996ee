"""The two-way table of names, on the full sizes without numbers and on small ones with them."""

import pytest
import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel

from kontext.checkpoint.configs import to_diffusers_config
from kontext.checkpoint.layouts import empty_module
from kontext.checkpoint.names import TABLES, bfl_stem, diffusers_stems, find_parts, to_bfl, to_diffusers
from kontext.checkpoint.tensors import stored
from kontext.model.presets import PRESETS

REFERENCES = {"transformer": FluxTransformer2DModel, "autoencoder": AutoencoderKL}
COUNTS = {"transformer": (780, 11_901_408_320), "autoencoder": (244, 83_819_683)}
"""Tensors and parameters of FLUX.1 Kontext [dev] and its autoencoder."""


@pytest.fixture(scope="module", params=["transformer", "autoencoder"])
def dev(request):
    """A part of `dev` on the meta device: its name, our tensors, those of diffusers."""
    config = getattr(PRESETS["dev"], request.param)
    settings = {k: v for k, v in to_diffusers_config(config).items() if not k.startswith("_")}
    ours = empty_module(request.param, config).state_dict()
    with torch.device("meta"):
        theirs = REFERENCES[request.param](**settings).state_dict()
    return request.param, stored(ours), stored(theirs)


def shapes(weights):
    return {name: tensor.shape for name, tensor in weights.items()}


def test_dev_has_the_published_tensors_and_parameters(dev):
    part, ours, _ = dev
    assert (len(ours), sum(tensor.count for tensor in ours.values())) == COUNTS[part]


def test_every_name_and_shape_of_dev_maps_to_diffusers_and_back(dev):
    part, ours, theirs = dev
    assert shapes(to_diffusers(part, ours)) == shapes(theirs)
    assert shapes(to_bfl(part, theirs)) == shapes(ours)


def test_every_row_is_used_by_dev(dev):
    part, ours, _ = dev
    used = {diffusers_stems(part, name.rpartition(".")[0])[0] for name in ours}
    shortcuts = {row for row in TABLES[part] if "mid.block" in row.bfl and "shortcut" in row.bfl}
    assert set(TABLES[part]) - used == shortcuts  # the middle never changes width


def test_published_keys_map_as_documented():
    # BFL keys as published; their diffusers names from the conversion script of diffusers
    assert diffusers_stems("transformer", "double_blocks.18.txt_attn.norm.key_norm")[1] == (
        "transformer_blocks.18.attn.norm_added_k",
    )
    assert diffusers_stems("transformer", "single_blocks.37.linear1")[1] == tuple(
        f"single_transformer_blocks.37.{name}" for name in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
    )
    assert diffusers_stems("autoencoder", "decoder.up.3.block.2.conv1")[1] == (
        "decoder.up_blocks.0.resnets.2.conv1",
    )
    assert bfl_stem("transformer", "single_transformer_blocks.5.proj_out")[2] == "single_blocks.5.linear2"
    assert bfl_stem("transformer", "proj_out")[2] == "final_layer.linear"


@pytest.mark.parametrize("part", ["transformer", "autoencoder"])
def test_round_trip_is_bit_equal(tiny, part):
    ours = tiny.weights()[part]
    there = to_diffusers(part, ours)
    again = to_bfl(part, there)
    assert again.keys() == ours.keys()
    for name in ours:
        assert torch.equal(again[name].read(), ours[name].read()), name
    assert all(tensor.read().shape == tensor.shape for tensor in there.values())


def test_the_last_modulation_swaps_its_halves(tiny):
    ours = tiny.weights()["transformer"]
    theirs = to_diffusers("transformer", ours)
    for word in ("weight", "bias"):
        shift, scale = ours[f"final_layer.adaLN_modulation.1.{word}"].read().chunk(2)
        assert torch.equal(theirs[f"norm_out.linear.{word}"].read(), torch.cat([scale, shift]))


def test_all_in_one_files_fall_apart_into_their_parts(tiny):
    prefixes = {
        "transformer": "model.diffusion_model.",
        "autoencoder": "vae.",
        "t5": "text_encoders.t5xxl.transformer.",
        "clip": "text_encoders.clip_l.transformer.",
    }
    weights = {
        prefixes[part] + name: tensor
        for part, tensors in tiny.weights().items()
        for name, tensor in tensors.items()
    }
    weights["text_encoders.clip_l.logit_scale"] = weights["vae.decoder.conv_in.bias"]
    parts, rest = find_parts(weights)
    assert rest == ["text_encoders.clip_l.logit_scale"]
    for part, tensors in tiny.weights().items():
        assert shapes(parts[part][1]) == shapes(tensors)


def test_aliases_of_text_encoders_are_resolved(tiny):
    t5, clip = tiny.weights()["t5"], tiny.weights()["clip"]
    only_alias = {n.replace("shared.", "encoder.embed_tokens."): t for n, t in t5.items()}
    assert shapes(find_parts(only_alias)[0]["t5"][1]) == shapes(t5)
    whole = {**t5, "decoder.final_layer_norm.weight": t5["encoder.final_layer_norm.weight"]}
    assert shapes(find_parts(whole)[0]["t5"][1]) == shapes(t5)
    bare = {n.removeprefix("text_model."): t for n, t in clip.items()}
    bare["embeddings.position_ids"] = clip["text_model.final_layer_norm.bias"]
    assert shapes(find_parts(bare)[0]["clip"][1]) == shapes(clip)
