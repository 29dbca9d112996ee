"""Examples reach the trainer whole and once each, from workers or its own process."""

import numpy as np
import pytest

from kontext.train.loader import ExampleLoader


class Numbers:
    """A producer that returns its seed in two fields of different types and shapes."""

    def __call__(self, seed: int) -> dict[str, np.ndarray]:
        return {"number": np.int64(seed), "picture": np.full((3, 5), seed % 251, np.uint8)}


class Dies:
    def __call__(self, seed: int) -> dict[str, np.ndarray]:
        if seed > 3:
            raise ValueError("no more")
        return {"number": np.int64(seed)}


def test_without_workers_examples_come_in_the_order_of_their_seeds():
    loader = ExampleLoader(Numbers(), workers=0, first_seed=10)
    assert loader.take(3)["number"].tolist() == [10, 11, 12]
    assert loader.take(2)["number"].tolist() == [13, 14]
    assert loader.seed == 15


def test_workers_deliver_every_seed_once_and_whole():
    loader = ExampleLoader(Numbers(), workers=2, first_seed=100, block=4, slots=3)
    try:
        taken = [loader.take(7) for _ in range(6)]
    finally:
        loader.close()
    numbers = np.concatenate([t["number"] for t in taken])
    pictures = np.concatenate([t["picture"] for t in taken])
    assert len(set(numbers.tolist())) == 42
    assert (numbers >= 100).all() and numbers.max() < 100 + 2 * (42 + 2 * 4 * 3)
    assert (pictures == (numbers % 251)[:, None, None]).all()


def test_a_dead_worker_is_reported():
    loader = ExampleLoader(Dies(), workers=1, first_seed=0, block=2, slots=2)
    try:
        with pytest.raises(RuntimeError, match="died"):
            for _ in range(10):
                loader.take(2)
    finally:
        loader.close()


def test_little_shared_memory_makes_fewer_slots(monkeypatch):
    usage = type("Usage", (), {"free": 3 * block_bytes()})
    monkeypatch.setattr("kontext.train.loader.shutil.disk_usage", lambda path: usage)
    loader = ExampleLoader(Numbers(), workers=1, first_seed=0, block=4, slots=9)
    try:
        assert len(loader._memories) == 2
        assert len(loader.take(9)["number"]) == 9
    finally:
        loader.close()


def block_bytes() -> int:
    """Of a block of four, as the loader counts them."""
    sample = Numbers()(0)
    return sum(-(-4 * value.nbytes // 64) * 64 for value in map(np.asarray, sample.values()))
