"""A ring buffer of encoded examples on the training device, from which batches are drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from kontext.model.autoencoder import Autoencoder
from kontext.train.autoencoder import to_pixels

SAVED_BYTES = 64 * 2**20
"""Pools below this size are saved with a run's state; larger ones are filled again."""


ENCODE_CHUNK = 256
"""Pictures per encoder call; at 256 x 256 pixels they take about 2 GiB of device memory."""


class Ring:
    """The newest `capacity` examples, field by field.

    padded_length: token count -> length to which requests are padded. Batches have texts of one padded
    length, since the networks attend to padding.
    """

    def __init__(
        self,
        capacity: int,
        autoencoder: Autoencoder,
        device: torch.device,
        padded_length: Callable[[int], int],
        bfloat16: bool = False,
    ) -> None:
        """bfloat16: encode pictures in it."""
        self.capacity, self.autoencoder, self.device = capacity, autoencoder, device
        self.padded_length, self.bfloat16 = padded_length, bfloat16
        self.fields: dict[str, Tensor] = {}
        self.added = 0

    @property
    def filled(self) -> int:
        return min(self.added, self.capacity)

    def state(self) -> dict[str, object] | None:
        """State to save; None for a large pool, which a resumed run fills with new examples."""
        size = sum(value.nelement() * value.element_size() for value in self.fields.values())
        return {"fields": self.fields, "added": self.added} if size < SAVED_BYTES else None

    def restore(self, state: dict | None) -> None:
        if state is not None:
            self.fields = {name: value.to(self.device) for name, value in state["fields"].items()}
            self.added = state["added"]

    def _encode(self, pictures: np.ndarray) -> Tensor:
        return encode_pictures(self.autoencoder, pictures, self.device, self.bfloat16)

    def _store(self, examples: Mapping[str, Tensor]) -> None:
        """Store examples, all fields of one count, in place of the oldest."""
        count = len(next(iter(examples.values())))
        places = ((torch.arange(count) + self.added) % self.capacity).to(self.device)
        for name, value in examples.items():
            if name not in self.fields:
                shape = (self.capacity, *value.shape[1:])
                self.fields[name] = torch.zeros(shape, dtype=value.dtype, device=self.device)
            self.fields[name][places] = value.to(self.device)
        self.added += count

    def _lengths(self, texts: np.ndarray) -> Tensor:
        """Padded lengths (...) of texts, ids (..., length)."""
        lengths = [self.padded_length(int(n)) for n in (texts != 0).sum(-1).flat]
        return torch.tensor(lengths).reshape(texts.shape[:-1])

    def _of_one_length(self, texts: str, weight: Tensor, generator: torch.Generator) -> Tensor:
        """The weights (n, m) of the texts whose padded length is that of one text drawn by weight."""
        lengths = self.fields[f"{texts}_length"][: self.filled].cpu().reshape(weight.shape)
        drawn = torch.multinomial(weight.sum(1), 1, generator=generator)
        column = torch.multinomial(weight[drawn[0]], 1, generator=generator)
        return torch.where(lengths == lengths[drawn, column], weight, 0.0)


def encode_pictures(
    autoencoder: Autoencoder, pictures: np.ndarray, device: torch.device, bfloat16: bool
) -> Tensor:
    """Latents of uint8 pictures (n, h, w, 3), in float16 on the device."""
    parts = []
    for start in range(0, len(pictures), ENCODE_CHUNK):
        pixels = to_pixels(pictures[start : start + ENCODE_CHUNK], device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            parts.append(autoencoder.encode(pixels).half())
    return torch.cat(parts)
