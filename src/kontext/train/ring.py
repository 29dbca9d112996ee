"""A ring buffer of encoded examples on the training device, from which batches are drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from kontext.model.autoencoder import Autoencoder
from kontext.train.autoencoder import to_pixels
from kontext.train.device import CPU, to_device

SAVED_BYTES = 64 * 2**20
"""Pools below this size are saved with a run's state; larger ones are filled again."""


ENCODE_CHUNK = 256
"""Pictures per encoder call; at 256 x 256 pixels they take about 2 GiB of device memory."""


MAX_CANDIDATES = 2048
"""Examples that a batch is drawn from: a draw from twelve thousand orbits takes longer than a step on a GPU
leaves.
"""

SMALL_SHARE = 0.1
"""Share of the examples that must have small edits for a batch of these alone."""

Examples = Mapping[str, np.ndarray]


class Ring:
    """The newest `capacity` examples, field by field.

    Fields named in `HOST_FIELDS`, which decide what is drawn, are in host memory: reading them does not wait
    for the device.

    padded_length: token count -> length to which requests are padded. Batches have texts of one padded
    length, since the networks attend to padding.
    """

    HOST_FIELDS: frozenset[str] = frozenset({"text_length", "caption_length", "mask", "changed"})

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

    def add(self, examples: Examples) -> None:
        """Encode examples and store them, replacing the oldest."""
        self.store(self.encode(examples))

    @torch.no_grad()
    def encode(self, examples: Examples) -> dict[str, Tensor]:
        """The fields of examples, with pictures as latents on the device."""
        raise NotImplementedError

    @torch.no_grad()
    def store(self, examples: Mapping[str, Tensor]) -> None:
        """Store encoded examples, all fields of one count, in place of the oldest."""
        count = len(next(iter(examples.values())))
        places = (torch.arange(count) + self.added) % self.capacity
        for name, value in examples.items():
            home = CPU if name in self.HOST_FIELDS else self.device
            if name not in self.fields:
                shape = (self.capacity, *value.shape[1:])
                self.fields[name] = torch.zeros(shape, dtype=value.dtype, device=home)
            self.fields[name][to_device(places, home)] = to_device(value, home)
        self.added += count

    @property
    def filled(self) -> int:
        return min(self.added, self.capacity)

    def state(self) -> dict[str, object] | None:
        """State to save; None for a large pool, which a resumed run fills with new examples."""
        size = sum(value.nelement() * value.element_size() for value in self.fields.values())
        return {"fields": self.fields, "added": self.added} if size < SAVED_BYTES else None

    def restore(self, state: dict | None) -> None:
        if state is not None:
            for name, value in state["fields"].items():
                self.fields[name] = value.to(CPU if name in self.HOST_FIELDS else self.device)
            self.fields["changed"] = changed_tokens(self.fields["mask"])  # earlier runs do not have it
            self.added = state["added"]

    def _encode(self, pictures: np.ndarray) -> Tensor:
        return encode_pictures(self.autoencoder, pictures, self.device, self.bfloat16)

    def _lengths(self, texts: np.ndarray) -> Tensor:
        """Padded lengths (...) of texts, ids (..., length)."""
        lengths = [self.padded_length(int(n)) for n in (texts != 0).sum(-1).flat]
        return torch.tensor(lengths).reshape(texts.shape[:-1])

    def _candidates(self, generator: torch.Generator) -> Tensor:
        """The examples (n,) that a batch is drawn from: a new choice of at most `MAX_CANDIDATES`."""
        if self.filled <= MAX_CANDIDATES:
            return torch.arange(self.filled)
        return torch.randperm(self.filled, generator=generator)[:MAX_CANDIDATES]

    def _of_one_length(
        self,
        texts: str,
        candidates: Tensor,
        weight: Tensor,
        generator: torch.Generator,
        largest: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Weights (n, m) of the candidates' texts that have the padded length of one drawn by weight.

        weight (capacity, m), of all examples. Edits that change more than `largest` tokens weigh nothing if
        enough examples have others. Returns that length, (1,), too.
        """
        weight = weight[candidates]
        if largest is not None:
            small = weight * (self.fields["changed"][candidates].reshape(weight.shape) <= largest)
            if small.any(1).sum() > SMALL_SHARE * len(candidates):  # else a batch would repeat a few
                weight = small
        lengths = self.fields[f"{texts}_length"][candidates].reshape(weight.shape)
        drawn = torch.multinomial(weight.sum(1), 1, generator=generator)
        column = torch.multinomial(weight[drawn[0]], 1, generator=generator)
        length = lengths[drawn, column]
        return torch.where(lengths == length, weight, 0.0), length


def changed_tokens(mask: Tensor) -> Tensor:
    """Number of tokens that edits change, (...), from masks (..., tokens)."""
    return mask.sum(-1, dtype=torch.int32)


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
