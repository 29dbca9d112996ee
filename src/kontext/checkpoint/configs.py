"""Sizes of a model: from and to JSON, `diffusers` and `transformers` configurations, and tensor shapes."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

from kontext.checkpoint.tensors import Weights
from kontext.errors import BadCheckpoint, BadRequest
from kontext.model.presets import (
    PRESETS,
    AutoencoderConfig,
    ClipConfig,
    Preset,
    Sampling,
    T5Config,
    TransformerConfig,
)
from kontext.model.text import LEGACY_END_ID

Config = TransformerConfig | AutoencoderConfig | T5Config | ClipConfig
MAX_SIZE = 1_000_000
"""Limit of all counts and widths: more means a damaged file, which would take forever to build."""
_MAY_BE_ZERO = ("output_mlp", "end_id", "depth_double", "depth_single")
CONFIGS: dict[str, type] = {
    "transformer": TransformerConfig,
    "autoencoder": AutoencoderConfig,
    "t5": T5Config,
    "clip": ClipConfig,
}
"""The config class of each part."""


def to_json(config: Any) -> dict[str, Any]:
    """A preset or the sizes of one part as plain data."""
    return dataclasses.asdict(config)


def config_from_json(kind: type, data: Any, where: str) -> Any:
    """A dataclass from plain data; unknown, missing or impossible values raise BadCheckpoint."""
    if not isinstance(data, dict):
        raise BadCheckpoint(f"{where}: {kind.__name__} must be an object")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    unknown = [key for key in data if key not in fields]
    missing = [
        name
        for name, field in fields.items()
        if name not in data
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    for names, word in ((unknown, "unknown"), (missing, "missing")):
        if names:
            raise BadCheckpoint(f"{where}: {kind.__name__}: {word}: {', '.join(names)}")
    values = {key: _tuples(value) for key, value in data.items()}
    wrong = _wrong(kind, values)
    if wrong:
        raise BadCheckpoint(f"{where}: {kind.__name__}: {wrong} has an impossible value")
    try:
        return kind(**values)
    except ValueError as error:
        raise BadCheckpoint(f"{where}: {error}") from None


def _wrong(kind: type, values: Mapping[str, Any]) -> str:
    """Names of values of a wrong type, and of counts that are not positive."""
    hints = get_type_hints(kind)
    return ", ".join(
        name
        for name, value in values.items()
        if not _is(value, hints[name], 0 if name in _MAY_BE_ZERO else 1)
    )


def _is(value: Any, hint: Any, least: int) -> bool:
    """Whether a value is of a declared type: int, float, bool, str, Literal, tuple, union or dataclass."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is int:
        return type(value) is int and least <= value <= MAX_SIZE
    if hint is float:
        return type(value) is float and math.isfinite(value) or type(value) is int and abs(value) <= MAX_SIZE
    if origin is Literal:
        return isinstance(value, str) and value in arguments
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        kinds = arguments[:1] * len(value) if arguments[-1] is ... else arguments
        return len(kinds) == len(value) and all(_is(item, kind, least) for item, kind in zip(value, kinds))
    if arguments:
        return any(_is(value, option, least) for option in arguments)
    return type(value) is hint


def preset_from_json(data: Mapping[str, Any], where: str) -> Preset:
    """The inverse of `to_json` for a preset."""
    if not isinstance(data, Mapping):
        raise BadCheckpoint(f"{where}: the preset must be an object")
    kinds = {**CONFIGS, "sampling": Sampling}
    fields = {k: config_from_json(kinds[k], v, where) if k in kinds else v for k, v in data.items()}
    return config_from_json(Preset, fields, where)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def from_diffusers(part: str, data: Mapping[str, Any], where: str) -> Config:
    """Sizes from a part's `config.json`. Raises BadCheckpoint for unsupported ones."""
    try:
        config = _FROM_DIFFUSERS[part](data)
        wrong = _wrong(type(config), vars(config))
        if not wrong:
            return config
        reason = f"{wrong} is not possible"
    except KeyError as error:
        reason = f"{error.args[0]} is missing"
    except ValueError as error:
        reason = str(error)
    except (TypeError, ArithmeticError, AttributeError, IndexError):
        reason = "a value is of the wrong type"
    raise BadCheckpoint(f"{where}: sizes of the {part} are missing or impossible ({reason})")


def _need(data: Mapping[str, Any], key: str, default: Any, *allowed: Any) -> None:
    if data.get(key, default) not in allowed:
        raise ValueError(f"{key} = {data[key]!r} is not supported")


def _transformer(data: Mapping[str, Any]) -> TransformerConfig:
    _need(data, "patch_size", 1, 1)
    _need(data, "out_channels", None, None, data.get("in_channels", 64))
    heads = data.get("num_attention_heads", 24)
    return TransformerConfig(
        in_channels=data.get("in_channels", 64),
        width=heads * data.get("attention_head_dim", 128),
        heads=heads,
        depth_double=data.get("num_layers", 19),
        depth_single=data.get("num_single_layers", 38),
        axes=tuple(data.get("axes_dims_rope", (16, 56, 56))),
        text_width=data.get("joint_attention_dim", 4096),
        pooled_width=data.get("pooled_projection_dim", 768),
        guidance_embed=data.get("guidance_embeds", False),
        context_attention="full",
    )


def _autoencoder(data: Mapping[str, Any]) -> AutoencoderConfig:
    _need(data, "use_quant_conv", True, False)
    _need(data, "use_post_quant_conv", True, False)
    _need(data, "mid_block_add_attention", True, True)
    widths = data["block_out_channels"]
    if any(width % widths[0] for width in widths):
        raise ValueError(f"block_out_channels {widths} must be multiples of the first")
    return AutoencoderConfig(
        base_width=widths[0],
        multipliers=tuple(width // widths[0] for width in widths),
        blocks_per_level=data["layers_per_block"],
        latent_channels=data["latent_channels"],
        groups=data.get("norm_num_groups", 32),
        scale=data["scaling_factor"],
        shift=data.get("shift_factor") or 0.0,
    )


def _t5(data: Mapping[str, Any]) -> T5Config:
    _need(data, "feed_forward_proj", "relu", "gated-gelu")
    return T5Config(
        vocab=data["vocab_size"],
        width=data["d_model"],
        heads=data["num_heads"],
        head_width=data["d_kv"],
        layers=data["num_layers"],
        feed_forward=data["d_ff"],
        buckets=data.get("relative_attention_num_buckets", 32),
        max_distance=data.get("relative_attention_max_distance", 128),
    )


def _clip(data: Mapping[str, Any]) -> ClipConfig:
    _need(data, "hidden_act", "quick_gelu", "quick_gelu", "gelu")
    end = data.get("eos_token_id", 49407)
    if (end, data["vocab_size"]) == (LEGACY_END_ID, 49408):
        end = 49407  # the published file says 2, but its tokenizer ends with 49407, the largest id
    return ClipConfig(
        vocab=data["vocab_size"],
        width=data["hidden_size"],
        heads=data["num_attention_heads"],
        layers=data["num_hidden_layers"],
        feed_forward=data["intermediate_size"],
        length=data["max_position_embeddings"],
        end_id=end,
        activation=data.get("hidden_act", "quick_gelu"),
    )


_FROM_DIFFUSERS: dict[str, Callable[[Mapping[str, Any]], Config]] = {
    "transformer": _transformer,
    "autoencoder": _autoencoder,
    "t5": _t5,
    "clip": _clip,
}


def to_diffusers_config(config: Config) -> dict[str, Any]:
    """The part's `config.json`. Raises BadRequest for a model that `diffusers` cannot run."""
    if isinstance(config, TransformerConfig):
        if config.context_attention != "full" or not config.qkv_bias:
            raise BadRequest(
                'only models with context_attention = "full" and biased projections run in diffusers; '
                "this one would compute something else there. Keep it in the kontext layout"
            )
        extensions = config.output_gates or config.output_mlp or config.region_after is not None
        if config.prediction != "velocity" or extensions:
            raise BadRequest(
                "diffusers has no network with picture prediction, output gates, an output MLP or a region "
                "head; nano-128 is a model without them"
            )
        if config.theta != 10_000 or config.mlp_ratio != 4 or config.position_step != 1:
            raise BadRequest(
                "diffusers fixes theta = 10000, mlp_ratio = 4 and position_step = 1; "
                "this model has other values"
            )
        return {
            "_class_name": "FluxTransformer2DModel",
            "patch_size": 1,
            "in_channels": config.in_channels,
            "num_layers": config.depth_double,
            "num_single_layers": config.depth_single,
            "attention_head_dim": config.head_width,
            "num_attention_heads": config.heads,
            "joint_attention_dim": config.text_width,
            "pooled_projection_dim": config.pooled_width,
            "guidance_embeds": config.guidance_embed,
            "axes_dims_rope": list(config.axes),
        }
    if isinstance(config, AutoencoderConfig):
        if config.patch != 1 or config.linear_path or config.latent_shuffle != 1:
            raise BadRequest(
                "diffusers has no autoencoder of pixel patches with a linear path; nano-128 has neither"
            )
        levels = len(config.multipliers)
        return {
            "_class_name": "AutoencoderKL",
            "in_channels": 3,
            "out_channels": 3,
            "down_block_types": ["DownEncoderBlock2D"] * levels,
            "up_block_types": ["UpDecoderBlock2D"] * levels,
            "block_out_channels": [config.base_width * m for m in config.multipliers],
            "layers_per_block": config.blocks_per_level,
            "latent_channels": config.latent_channels,
            "norm_num_groups": config.groups,
            "scaling_factor": config.scale,
            "shift_factor": config.shift,
            "use_quant_conv": False,
            "use_post_quant_conv": False,
        }
    if isinstance(config, T5Config):
        return {
            "architectures": ["T5EncoderModel"],
            "model_type": "t5",
            "vocab_size": config.vocab,
            "d_model": config.width,
            "num_heads": config.heads,
            "d_kv": config.head_width,
            "num_layers": config.layers,
            "d_ff": config.feed_forward,
            "relative_attention_num_buckets": config.buckets,
            "relative_attention_max_distance": config.max_distance,
            "feed_forward_proj": "gated-gelu",
            "layer_norm_epsilon": 1e-6,
            "is_encoder_decoder": False,
            "use_cache": False,
        }
    return {
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        "vocab_size": config.vocab,
        "hidden_size": config.width,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "intermediate_size": config.feed_forward,
        "max_position_embeddings": config.length,
        "eos_token_id": config.end_id,
        "bos_token_id": None,
        "pad_token_id": None,
        "hidden_act": config.activation,
        "layer_norm_eps": 1e-5,
    }


def from_shapes(part: str, weights: Weights, where: str) -> Config:
    """Sizes from the shapes of the tensors (BFL names).

    Values that shapes do not show come from the preset that matches the others, or from FLUX.1. Raises
    BadCheckpoint if they are ambiguous.
    """
    try:
        return _FROM_SHAPES[part](weights)
    except KeyError as error:
        reason = f"it has no {error.args[0]}"
    except ValueError as error:
        reason = str(error)
    except StopIteration:
        reason = "no known model has these"
    except ArithmeticError:
        reason = "one of them is empty"
    raise BadCheckpoint(f"{where}: the sizes of its {part} cannot be derived from its tensors: {reason}")


def _shape(weights: Weights, name: str, axes: int) -> tuple[int, ...]:
    shape = weights[name].shape
    if len(shape) != axes or not all(shape):
        raise ValueError(f"{name} has the shape {shape}, and must have {axes} axes that are not empty")
    return shape


def _count(weights: Weights, pattern: str) -> int:
    found = (re.match(pattern, name) for name in weights)
    return 1 + max((int(match[1]) for match in found if match), default=-1)


def _transformer_shapes(weights: Weights) -> TransformerConfig:
    width, in_channels = _shape(weights, "img_in.weight", 2)
    heads = width // _shape(weights, "single_blocks.0.norm.query_norm.scale", 1)[0]
    if not heads:
        raise ValueError("its heads are wider than the model")
    sizes = dict(
        in_channels=in_channels,
        width=width,
        heads=heads,
        depth_double=_count(weights, r"double_blocks\.(\d+)\."),
        depth_single=_count(weights, r"single_blocks\.(\d+)\."),
        mlp_ratio=(_shape(weights, "single_blocks.0.linear1.weight", 2)[0] - 3 * width) / width,
        text_width=_shape(weights, "txt_in.weight", 2)[1],
        pooled_width=_shape(weights, "vector_in.in_layer.weight", 2)[1],
        guidance_embed="guidance_in.in_layer.weight" in weights,
        qkv_bias="double_blocks.0.img_attn.qkv.bias" in weights,
    )
    known = [preset.transformer for preset in PRESETS.values()]
    same = [config for config in known if all(getattr(config, key) == value for key, value in sizes.items())]
    if same:
        return same[0]
    if width // heads != 128:
        raise ValueError("its heads are not 128 wide, so the split of positions is unknown")
    return TransformerConfig(axes=(16, 56, 56), context_attention="full", **sizes)  # type: ignore[arg-type]


def _autoencoder_shapes(weights: Weights) -> AutoencoderConfig:
    base = _shape(weights, "encoder.conv_in.weight", 4)[0]
    levels = _count(weights, r"encoder\.down\.(\d+)\.")
    multipliers = tuple(
        _shape(weights, f"encoder.down.{i}.block.0.conv1.weight", 4)[0] // base for i in range(levels)
    )
    blocks = _count(weights, r"encoder\.down\.0\.block\.(\d+)\.")
    return next(
        preset.autoencoder
        for preset in PRESETS.values()
        if (
            preset.autoencoder.base_width,
            preset.autoencoder.multipliers,
            preset.autoencoder.blocks_per_level,
        )
        == (base, multipliers, blocks)
    )


def _t5_shapes(weights: Weights) -> T5Config:
    vocab, width = _shape(weights, "shared.weight", 2)
    first = "encoder.block.0.layer.0.SelfAttention"
    buckets, heads = _shape(weights, f"{first}.relative_attention_bias.weight", 2)
    return T5Config(
        vocab=vocab,
        width=width,
        heads=heads,
        head_width=_shape(weights, f"{first}.q.weight", 2)[0] // heads,
        layers=_count(weights, r"encoder\.block\.(\d+)\."),
        feed_forward=_shape(weights, "encoder.block.0.layer.1.DenseReluDense.wo.weight", 2)[1],
        buckets=buckets,
    )


def _clip_shapes(weights: Weights) -> ClipConfig:
    vocab, width = _shape(weights, "text_model.embeddings.token_embedding.weight", 2)
    sizes = dict(
        vocab=vocab,
        width=width,
        layers=_count(weights, r"text_model\.encoder\.layers\.(\d+)\."),
        feed_forward=_shape(weights, "text_model.encoder.layers.0.mlp.fc1.weight", 2)[0],
        length=_shape(weights, "text_model.embeddings.position_embedding.weight", 2)[0],
    )
    known = [preset.clip for preset in PRESETS.values()]
    return next(config for config in known if all(getattr(config, k) == v for k, v in sizes.items()))


_FROM_SHAPES: dict[str, Callable[[Weights], Config]] = {
    "transformer": _transformer_shapes,
    "autoencoder": _autoencoder_shapes,
    "t5": _t5_shapes,
    "clip": _clip_shapes,
}
