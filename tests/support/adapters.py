"""Adapters of PEFT with random matrices, of every kind that the product reads."""

from __future__ import annotations

import copy
from typing import Any

import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, get_peft_model

RANK = 4
TARGETS = ["to_q", "to_k", "add_v_proj", "to_out.0", "ff.net.2", "proj_mlp", "proj_out", "norm_out.linear"]
PATTERNS: dict[str, dict[str, float]] = {
    "alpha_pattern": {r"^transformer_blocks\.0\.attn\.to_q": 3, "to_k": 24.0, "ff.net.2": 1},
    "rank_pattern": {r"single_transformer_blocks\.\d+\.attn\.to_q": 2, "add_v_proj": 7},
}
LORA_KINDS: dict[str, dict[str, Any]] = {
    "plain": dict(lora_alpha=9),
    "rslora": dict(lora_alpha=9, use_rslora=True),
    "patterns": dict(lora_alpha=9, **PATTERNS),
    "rslora and patterns": dict(lora_alpha=9, use_rslora=True, **PATTERNS),
    "bias of B": dict(lora_alpha=9, lora_bias=True, target_modules=["to_q", "proj_mlp", "norm_out.linear"]),
    "all biases": dict(lora_alpha=9, bias="lora_only"),
    "whole modules": dict(lora_alpha=9, modules_to_save=["x_embedder"]),
    "DoRA": dict(lora_alpha=9, use_dora=True),
    "DoRA and rslora": dict(lora_alpha=9, use_dora=True, use_rslora=True),
}
"""Settings of `LoraConfig`."""
OTHER_KINDS = {
    "LoHa": LoHaConfig(r=3, alpha=5, target_modules=TARGETS, alpha_pattern={"to_k": 2}),
    "LoKr": LoKrConfig(r=3, alpha=5, target_modules=TARGETS),
    "LoKr of two products": LoKrConfig(
        r=3, alpha=5, target_modules=TARGETS, decompose_both=True, decompose_factor=4
    ),
    "LoKr of whole matrices": LoKrConfig(r=64, alpha=5, target_modules=TARGETS, rank_pattern={"to_k": 80}),
}


def lora_config(kind: str) -> LoraConfig:
    return LoraConfig(r=RANK, **{"target_modules": TARGETS, **LORA_KINDS[kind]})


def random_adapter(network: torch.nn.Module, config: Any, seed: int = 0) -> Any:
    """A PEFT model around a copy of the network, with random matrices."""
    generator = torch.Generator().manual_seed(seed)
    model = get_peft_model(copy.deepcopy(network), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(word in name for word in ("lora_", "hada_", "lokr_")):
                if "magnitude" in name:
                    parameter.mul_(0.8 + 0.4 * torch.rand(parameter.shape, generator=generator))
                else:
                    parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
            elif "modules_to_save" in name or (parameter.requires_grad and "lora_" not in name):
                parameter.add_(0.1)
    return model
