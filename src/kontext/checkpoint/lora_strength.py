"""The strength of LoRA files without `.alpha` tensors.

Known are the header of `diffusers` (`lora_adapter_metadata`, JSON, one configuration for each part), plain
header entries (`lora_alpha`, `transformer.lora_alpha`, `r`, ...), those of kohya (`ss_network_alpha`,
`ss_network_dim`), and PEFT's `adapter_config.json`. Patterns are matched as in PEFT; rank-stabilized LoRA
(arXiv:2312.03732) divides by the square root of the rank.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kontext.checkpoint.lora_patterns import Patterns

_JSON_ENTRIES = ("lora_adapter_metadata", "adapter_config", "peft_config", "lora_config")
_ALPHAS = ("lora_alpha", "network_alpha", "alpha", "ss_network_alpha")
_RANKS = ("r", "rank", "lora_rank", "network_dim", "ss_network_dim")
_PARTS = {
    "transformer": "transformer",
    "unet": "transformer",
    "diffusion_model": "transformer",
    "text_encoder": "clip",
    "text_encoder_2": "t5",
    "text_encoder_3": "t5",
}
_KOHYA_UNSET = ("None", "0", "0.0", "", "Dynamic")
"""Values of kohya's trainer if alpha or a single rank was not set; alpha then equals the rank."""


@dataclass(frozen=True)
class Config:
    """Alpha and ranks of one part, as in PEFT."""

    alpha: float | None = None
    rank: float | None = None
    rsqrt: bool = False
    """Whether alpha is divided by the square root of the rank."""
    alpha_pattern: Patterns = field(default_factory=Patterns)
    rank_pattern: Patterns = field(default_factory=Patterns)

    def alpha_of(self, module: str) -> float | None:
        return self.alpha_pattern.value_of(module, self.alpha)

    def rank_of(self, module: str) -> float | None:
        return self.rank_pattern.value_of(module, self.rank)

    def factor(self, module: str, rank: int) -> float | None:
        """alpha / rank of a module; None if not given. rank: that of its matrices."""
        alpha = self.alpha_of(module)
        if alpha is None:
            return None
        divisor = self.rank_of(module) or rank
        return alpha / (math.sqrt(divisor) if self.rsqrt else divisor)


def read_strengths(
    file: Path, metadata: Mapping[str, str], peft: bool
) -> tuple[dict[str, Config], list[str]]:
    """Configurations by part, and warnings about malformed entries. Part "" means all others.

    metadata: the header of the file. peft: whether `adapter_config.json` next to it belongs to it.
    """
    sources: list[tuple[str, Mapping[str, object]]] = []
    warnings: list[str] = []
    for entry in _JSON_ENTRIES:
        if entry in metadata:
            _add_json(sources, warnings, f"the header entry {entry} of {file.name}", metadata[entry])
    plain = {key: value for key, value in metadata.items() if key.rpartition(".")[2] in (*_ALPHAS, *_RANKS)}
    plain |= {key: value for key, value in metadata.items() if key.rpartition(".")[2] == "use_rslora"}
    sources.append((f"the header of {file.name}", plain))
    config_file = file.parent / "adapter_config.json"
    if peft and config_file.is_file():
        try:
            _add_json(sources, warnings, f"{config_file.name} of {file.name}", config_file.read_text("utf-8"))
        except (OSError, UnicodeDecodeError):
            warnings.append(f"{config_file.name} of {file.name} is not readable and is ignored")
    found: dict[str, Config] = {}
    for where, data in sources:
        groups: dict[str, dict[str, object]] = {}
        for key, value in data.items():
            prefix, _, name = key.rpartition(".")
            groups.setdefault(_PARTS.get(prefix.split(".")[-1], ""), {})[name] = value
        for part, values in groups.items():
            config, bad = _config(values)
            if bad:
                warnings.append(f"{where}: {' and '.join(bad)} must be finite numbers; ignored")
            if config is not None:
                found.setdefault(part, config)
    return found, warnings


def _add_json(
    sources: list[tuple[str, Mapping[str, object]]], warnings: list[str], where: str, text: str
) -> None:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        data = None
    if isinstance(data, dict):
        sources.append((where, data))
    else:
        warnings.append(f"{where} is not a JSON object and is ignored")


def _config(values: Mapping[str, object]) -> tuple[Config | None, list[str]]:
    """A configuration, None without alpha; and the names of malformed entries."""
    bad: list[str] = []

    def first(names: Iterable[str], least: float) -> float | None:
        for name in names:
            value = values.get(name)
            if value is None or (name.startswith("ss_") and value in _KOHYA_UNSET):
                continue
            number = _number(value)
            if number is not None and number >= least:
                return number
            bad.append(name)
        return None

    def patterns(name: str, least: float) -> Patterns:
        data = values.get(name)
        if data is None:
            return Patterns()
        if not isinstance(data, dict):
            bad.append(name)
            return Patterns()
        numbers = {key: _number(value) for key, value in data.items()}
        good = {key: n for key, n in numbers.items() if n is not None and n >= least and _is_pattern(key)}
        if len(good) < len(numbers):
            bad.append(f"entries of {name} (of regular expressions without look-around)")
        return Patterns(good)

    config = Config(
        alpha=first(_ALPHAS, -math.inf),
        rank=first(_RANKS, 1),
        rsqrt=values.get("use_rslora") in (True, "True", "true", "1"),
        alpha_pattern=patterns("alpha_pattern", -math.inf),
        rank_pattern=patterns("rank_pattern", 1),
    )
    return (config if config.alpha is not None or config.alpha_pattern else None), bad


def _number(value: object) -> float | None:
    """A finite number from a number or its text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _is_pattern(text: str) -> bool:
    try:
        Patterns({text: 1.0})
    except ValueError:
        return False
    return True
