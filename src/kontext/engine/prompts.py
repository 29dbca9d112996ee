"""Encoded prompts: T5 states for every token and one CLIP vector, computed once per prompt."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kontext.engine.cache import ByteCache
from kontext.engine.context import device_of, parameter_type
from kontext.engine.prompt_length import check_length

if TYPE_CHECKING:
    from kontext.checkpoint import Model


class PromptStore:
    """A cache of encoded prompts of at most `limit_bytes`."""

    def __init__(self, model: Model, limit_bytes: int = 64 * 2**20):
        self.model = model
        self._cache = ByteCache(limit_bytes)

    def check(self, prompt: str, name: str = "prompt") -> None:
        """Raise BadRequest if the prompt has more tokens than the model reads."""
        model = self.model
        check_length(model.tokenizer, prompt, model.preset.text_length, model.name, name)

    def tokens(self, prompt: str) -> int:
        """T5 tokens of the prompt, padding included."""
        own = sum(self.model.tokenizer.encode(prompt).attention_mask)
        return self.model.preset.padded_length(own)

    def states(self, prompt: str, tokens: int | None = None, loras: Hashable = ()) -> tuple[Tensor, Tensor]:
        """T5 states (1, length, width) and the pooled CLIP vector (1, width).

        Both in the transformer's type.
        tokens: the length to pad to, for prompts that share a batch; None: the prompt's own.
        loras: the key of the LoRAs that the encoders compute with.
        """
        tokens = tokens or self.tokens(prompt)
        return self._cache.get(
            (self.model.fingerprint, prompt, tokens, loras),
            lambda: self._encode(prompt, tokens),
            lambda states: sum(part.nelement() * part.element_size() for part in states),
        )

    def _encode(self, prompt: str, tokens: int) -> tuple[Tensor, Tensor]:
        model = self.model
        device, kind = device_of(model), parameter_type(model.transformer)
        short = model.tokenizer_clip.encode(prompt).ids
        ids = model.tokenizer.encode(prompt).ids[:tokens]  # padded to the most that the model reads
        states = model.t5(torch.tensor([ids], device=device))
        # CLIP gives the gist: what is longer than its window is cut off, as in FLUX. The T5 states carry
        # every word.
        pooled = model.clip(torch.tensor([short], device=device))
        return states.to(kind), pooled.to(kind)
