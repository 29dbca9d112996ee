"""A LoRA is as strong as PEFT and `diffusers` make it, wherever its alpha is written."""

import copy
import json
import math

import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from safetensors.torch import load_file, save_file

from kontext.checkpoint.lora import merged, read_lora
from kontext.checkpoint.names import to_diffusers
from kontext.checkpoint.tensors import stored
from kontext.errors import BadCheckpoint

peft = pytest.importorskip("peft")

from support.adapters import (  # noqa: E402  needs peft
    LORA_KINDS,
    OTHER_KINDS,
    PATTERNS,
    RANK,
    TARGETS,
    lora_config,
    random_adapter,
)

CLIP_TARGETS = ["q_proj", "fc1"]


@pytest.fixture(scope="module")
def reference(folders):
    return FluxTransformer2DModel.from_pretrained(folders["diffusers"] / "transformer")


def ours(tiny, *given, warnings=None):
    """The transformer with LoRA files, under the names of diffusers."""
    parts = {part: stored(getattr(tiny, part).state_dict()) for part in ("transformer", "clip", "t5")}
    changed = merged(parts, given, warnings)["transformer"]
    return {name: tensor.read() for name, tensor in to_diffusers("transformer", changed).items()}


def assert_equal_weights(made, wanted):
    assert made.keys() == wanted.keys()
    for name, tensor in wanted.items():
        # float32 products summed in another order: 1e-5 is the bound that the task of merging allows
        assert (made[name] - tensor).abs().max() <= 1e-5 * max(1, float(tensor.abs().max())), name


@pytest.mark.parametrize("kind", LORA_KINDS)
@pytest.mark.parametrize("given", ["folder", "file"])
def test_peft_folder_merges_as_in_peft(tiny, reference, tmp_path, kind, given):
    model = random_adapter(reference, lora_config(kind))
    model.save_pretrained(tmp_path)
    warnings = []
    made = ours(
        tiny, tmp_path if given == "folder" else tmp_path / "adapter_model.safetensors", warnings=warnings
    )
    assert_equal_weights(made, dict(model.merge_and_unload().state_dict()))
    assert not warnings


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_other_products_merge_as_in_peft(tiny, reference, tmp_path, kind):
    model = random_adapter(reference, OTHER_KINDS[kind])
    model.save_pretrained(tmp_path)
    assert_equal_weights(ours(tiny, tmp_path), dict(model.merge_and_unload().state_dict()))


def diffusers_file(tiny, reference, folders, path, header, **settings):
    """A file as FluxPipeline.save_lora_weights makes it: transformer and CLIP, each with its own alpha."""
    from transformers import CLIPTextModel

    clip = CLIPTextModel.from_pretrained(folders["diffusers"] / "text_encoder")
    configs = {
        "transformer": peft.LoraConfig(r=RANK, lora_alpha=2, target_modules=TARGETS, **settings),
        "text_encoder": peft.LoraConfig(r=RANK, lora_alpha=32, target_modules=CLIP_TARGETS),
    }
    models = {
        "transformer": random_adapter(reference, configs["transformer"]),
        "text_encoder": random_adapter(clip, configs["text_encoder"], seed=1),
    }
    layers = {name: peft.get_peft_model_state_dict(model) for name, model in models.items()}
    layers = {
        name: {key.removeprefix("base_model.model."): tensor for key, tensor in held.items()}
        for name, held in layers.items()
    }
    FluxPipeline.save_lora_weights(
        path.parent,
        transformer_lora_layers=layers["transformer"],
        text_encoder_lora_layers=layers["text_encoder"],
        weight_name=path.name,
        transformer_lora_adapter_metadata=configs["transformer"].to_dict(),
        text_encoder_lora_adapter_metadata=configs["text_encoder"].to_dict(),
    )
    if not header:
        save_file(load_file(path), path)
    return {name: model.merge_and_unload().state_dict() for name, model in models.items()}


@pytest.mark.parametrize(
    "settings", [{}, {"use_rslora": True}, PATTERNS], ids=["plain", "rslora", "patterns"]
)
def test_each_part_of_a_diffusers_file_has_its_own_alpha(tiny, reference, folders, tmp_path, settings):
    file = tmp_path / "lora.safetensors"
    wanted = diffusers_file(tiny, reference, folders, file, header=True, **settings)
    parts = {part: stored(getattr(tiny, part).state_dict()) for part in ("transformer", "clip", "t5")}
    warnings: list[str] = []
    made = merged(parts, [file], warnings)
    assert not warnings
    assert_equal_weights(ours(tiny, file), dict(wanted["transformer"]))
    clip = {name.removeprefix("text_model."): t.read() for name, t in made["clip"].items()}
    theirs = {name.removeprefix("text_model."): t for name, t in wanted["text_encoder"].items()}
    assert_equal_weights(clip, {name: theirs[name] for name in clip})

    # and what diffusers' own loader makes of the same file
    tensors, metadata = FluxPipeline.lora_state_dict(
        tmp_path, weight_name=file.name, return_lora_metadata=True
    )
    network = copy.deepcopy(reference)
    network.load_lora_adapter(tensors, metadata=metadata, prefix="transformer")
    network.fuse_lora()
    network.unload_lora()
    assert_equal_weights(ours(tiny, file), dict(network.state_dict()))


def test_an_adapter_saved_by_the_network_itself_has_a_header_without_parts(tiny, reference, tmp_path):
    network = copy.deepcopy(reference)
    network.add_adapter(
        peft.LoraConfig(r=RANK, lora_alpha=9, use_rslora=True, target_modules=TARGETS), "knit"
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    network.save_lora_adapter(tmp_path, adapter_name="knit")
    network.fuse_lora()
    network.unload_lora()
    assert_equal_weights(ours(tiny, tmp_path), dict(network.state_dict()))


STEM = "double_blocks.0.img_attn.proj"


@pytest.fixture
def small(tiny, tmp_path):
    """Writes a file of one module, of rank 4, and gives how strong it is against up @ down."""
    width = tiny.preset.transformer.width
    generator = torch.Generator().manual_seed(0)
    down, up = torch.randn(RANK, width, generator=generator), torch.randn(width, RANK, generator=generator)
    parts = tiny.weights()

    def factor(metadata=None, alpha=None, name="lora.safetensors", config=None, module=STEM):
        tensors = {f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up}
        if alpha is not None:
            tensors[f"{module}.alpha"] = alpha
        save_file(tensors, tmp_path / name, metadata)
        if config is not None:
            (tmp_path / "adapter_config.json").write_text(config)
        adapter = read_lora(tmp_path / name, parts)
        [found] = adapter.changes["transformer"][f"{STEM}.weight"]
        change = found.applied(torch.zeros(width, width), 1.0)
        found = float((change * (up @ down)).sum() / (up @ down).square().sum())
        assert torch.allclose(change, found * (up @ down), atol=1e-4)
        return round(found, 5), adapter.warnings

    return factor


@pytest.mark.parametrize(
    ("metadata", "factor"),
    [
        ({}, 1.0),
        ({"format": "pt", "ss_network_alpha": "16", "ss_network_dim": "4"}, 4.0),
        ({"ss_network_alpha": "2.0"}, 0.5),
        ({"ss_network_alpha": "None", "ss_network_dim": "4"}, 1.0),
        ({"ss_network_alpha": "0"}, 1.0),
        ({"lora_alpha": "64", "r": "4"}, 16.0),
        ({"transformer.lora_alpha": "64", "transformer.r": "4"}, 16.0),
        ({"text_encoder.lora_alpha": "64"}, 1.0),
        ({"transformer.lora_alpha": "2", "text_encoder.lora_alpha": "64"}, 0.5),
        ({"network_alpha": "8"}, 2.0),
        ({"alpha": "8", "rank": "4"}, 2.0),
        ({"lora_alpha": "8", "use_rslora": "True"}, 4.0),
        ({"lora_adapter_metadata": json.dumps({"lora_alpha": 8, "r": 4})}, 2.0),
        (
            {
                "lora_adapter_metadata": json.dumps(
                    {"text_encoder.lora_alpha": 8, "transformer.lora_alpha": 2}
                )
            },
            0.5,
        ),
        ({"lora_adapter_metadata": json.dumps({"text_encoder.lora_alpha": 8})}, 1.0),
        ({"lora_adapter_metadata": json.dumps({"transformer.lora_alpha": 8}), "lora_alpha": "400"}, 2.0),
        (
            {"lora_adapter_metadata": json.dumps({"lora_alpha": 8, "alpha_pattern": {"img_attn.proj": 2}})},
            0.5,
        ),
        ({"lora_adapter_metadata": json.dumps({"lora_alpha": 8, "alpha_pattern": {"attn.pro": 2}})}, 2.0),
        (
            {"lora_adapter_metadata": json.dumps({"lora_alpha": 8, "alpha_pattern": {"^img_attn.proj": 2}})},
            2.0,
        ),
        (
            {"lora_adapter_metadata": json.dumps({"lora_alpha": 8, "alpha_pattern": {"proj": 2, ".*": 1}})},
            0.5,
        ),
    ],
)
def test_alpha_in_the_header_counts(small, metadata, factor):
    found, warnings = small(metadata)
    assert found == factor and not warnings
    assert small(metadata, alpha=torch.tensor(12.0))[0] == 3.0  # a tensor wins


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "much", "[8]", "1e999"])
@pytest.mark.parametrize("key", ["lora_alpha", "transformer.lora_alpha", "ss_network_alpha"])
def test_malformed_numbers_in_the_header_are_ignored_with_one_line(small, key, value):
    found, warnings = small({key: value})
    assert found == 1.0
    assert len(warnings) == 1 and "lora.safetensors" in warnings[0] and "\n" not in warnings[0]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", "null", '"x"', "[" * 100_000, '{"lora_alpha": null}', '{"lora_alpha": NaN}']
    + ['{"lora_alpha": true}', '{"lora_alpha": {}}', '{"alpha_pattern": 3}', '{"alpha_pattern": {"(": 2}}']
    + ['{"alpha_pattern": {"proj": "x"}}', '{"rank_pattern": [2], "lora_alpha": 4}', '{"transformer.r": 0}'],
)
@pytest.mark.parametrize("where", ["header", "adapter_config.json"])
def test_malformed_configurations_are_ignored_with_at_most_one_line(small, where, text):
    if where == "header":
        found, warnings = small({"lora_adapter_metadata": text})
    else:
        found, warnings = small(config=text)
    assert found == 1.0
    assert (
        len(warnings) == (0 if text in ('{"lora_alpha": null}', '{"transformer.r": 0}') else 1)
        or 'r":' in text
    )
    assert all("\n" not in line and len(line) < 300 for line in warnings)


def test_adapter_config_belongs_to_its_own_file(small, tmp_path):
    config = json.dumps({"r": 4, "lora_alpha": 8})
    assert small(config=config)[0] == 2.0  # the only file there
    assert small(name="adapter_model.safetensors")[0] == 2.0
    assert small(name="style.safetensors")[0] == 1.0  # one of several: it may be another's
    assert small(name="style.safetensors", module=f"base_model.model.{STEM}")[0] == 2.0


def test_ranks_that_contradict_the_matrices_are_reported(small):
    found, warnings = small({"lora_alpha": "16", "r": "16"})
    assert found == 1.0  # alpha / r as it was trained: the matrices were cut to rank 4 afterwards
    assert len(warnings) == 1 and "has 4, not 16" in warnings[0]


@pytest.mark.parametrize("alpha", [math.nan, math.inf])
def test_an_alpha_that_is_not_finite_is_refused(small, alpha):
    with pytest.raises(BadCheckpoint, match=rf"{STEM}.alpha holds 1 numbers that are NaN"):
        small(alpha=torch.tensor(alpha))


def test_an_alpha_of_several_numbers_is_refused(small):
    with pytest.raises(BadCheckpoint, match="alpha must be one number"):
        small(alpha=torch.ones(2))
