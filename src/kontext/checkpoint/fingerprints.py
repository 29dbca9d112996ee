"""A hash that identifies the weights of a model: of all of them, or of samples of a large model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from kontext.checkpoint.names import PARTS
from kontext.checkpoint.tensors import LazyTensor, Weights, raw_bytes, rows

SMALL = 1_000_000_000
"""Models with fewer parameters are hashed completely, and compute in float32 by default."""
SAMPLE_BYTES = 2**16
"""Numbers that are read of a tensor without rows."""


def is_small(parts: Mapping[str, Weights]) -> bool:
    return sum(tensor.count for weights in parts.values() for tensor in weights.values()) < SMALL


def fingerprint(parts: Mapping[str, Weights]) -> str:
    """sha256 (hex) over names, types, shapes and numbers of all parts, the same in every layout.

    For large models: of three rows of each matrix, as stored, and the ends of other tensors. Files that
    differ only elsewhere get the same fingerprint; training and conversion change every row.
    """
    small = is_small(parts)
    tensors = [(f"{part}.{name}", tensor) for part in PARTS for name, tensor in parts.get(part, {}).items()]
    tensors.sort(key=lambda item: item[0])
    with ThreadPoolExecutor() as pool:  # hashing releases the interpreter lock
        digests = pool.map(lambda item: _digest(item[1], small), tensors)
        lines = [f"{name} {t.dtype} {t.shape} {digest}\n" for (name, t), digest in zip(tensors, digests)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _digest(tensor: LazyTensor, small: bool) -> str:
    if small:
        return hashlib.sha256(raw_bytes(tensor.read())).hexdigest()
    found = hashlib.sha256(f"{tensor.kind} {tensor.bytes} {tensor.change}".encode())
    for data in _samples(tensor.before or tensor):
        found.update(data)
    return found.hexdigest()


def _samples(tensor: LazyTensor) -> Iterator[memoryview]:
    if tensor.before is not None:
        yield from _samples(tensor.before)
        return
    if not tensor.parts:
        data = raw_bytes(tensor.read())
        yield data if len(data) <= 2 * SAMPLE_BYTES else data[:SAMPLE_BYTES]
        yield data[-SAMPLE_BYTES:]
        return
    for row in (0, tensor.shape[0] // 2, tensor.shape[0] - 1):
        for part in rows(tensor, row, row + 1).parts:
            yield from map(raw_bytes, part.raw())
