"""Data of a flow run: example loaders and the pools of encoded examples that batches are drawn from."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer
from torch import Tensor

from kontext.model.autoencoder import Autoencoder
from kontext.model.presets import Preset
from kontext.train.config import FlowTraining
from kontext.train.loader import ExampleLoader, Prefetcher
from kontext.train.orbits import OrbitPool, Orbits
from kontext.train.pairs import Chains, PairPool, Pairs, Triples
from kontext.train.ring import Examples
from kontext.world import World
from kontext.world.tasks.task_specs import SEVERAL_REFERENCES

FILL_CHUNK = 512  # examples

Pool = PairPool | OrbitPool


class TrainingData:
    """Loaders and pools by the settings of a run; `chains` and `triples` are None when not used."""

    def __init__(
        self,
        config: FlowTraining,
        preset: Preset,
        tokenizer: Tokenizer,
        codec: Autoencoder,
        device: torch.device,
        *,
        first_seed: int,
        references_seed: int,
    ):
        """first_seed, references_seed: of the first example, and of the first with a second picture."""
        worlds = [(stage.first_sample, World(**stage.world)) for stage in config.curriculum]
        self.pairs = Pairs(
            worlds=tuple((first, world.without(SEVERAL_REFERENCES, "generate")) for first, world in worlds),
            size=preset.sizes[0][0],
            token_pixels=preset.token_pixels,
            tokenizer=tokenizer.to_str(),
            text_length=preset.text_length,
            chinese_share=config.chinese_share,
        )
        self._background = device.type == "cuda" and config.workers > 0
        self._new: _Supply | None = None
        self._new_references: _Supply | None = None
        self.chains: ExampleLoader | None = None
        if config.rollouts:
            chains = Chains(**vars(self.pairs))
            self.chains = ExampleLoader(chains, workers=min(1, config.workers), first_seed=first_seed)
        self.triple_producer: Triples | None = None
        self.triples: ExampleLoader | None = None
        self.first_references = 0
        triple_workers = 0
        if config.references_every:
            self.triple_producer = Triples(**{**vars(self.pairs), "worlds": tuple(worlds)})
            triple_workers = -(-config.workers // config.references_every)
            self.triples = ExampleLoader(
                self.triple_producer, workers=triple_workers, first_seed=references_seed
            )
            capacity = config.references_pool or config.pool // config.references_every
            self.references = PairPool(capacity, codec, device, preset.padded_length, config.autocast)
            first = max(config.first_fill // config.references_every, config.batch // 4)
            self.first_references = min(capacity, first)
        workers = max(min(1, config.workers), config.workers - triple_workers)
        self.pool: Pool
        if config.targets_per_source > 1:
            producer = Orbits(**vars(self.pairs), kinds=config.orbit_kinds, values=config.orbit_values)
            self.loader = ExampleLoader(producer, workers=workers, first_seed=first_seed)
            self.pool = OrbitPool(
                config.pool, config.targets_per_source, codec, device, preset.padded_length, config.autocast
            )
        else:
            self.loader = ExampleLoader(self.pairs, workers=workers, first_seed=first_seed)
            self.pool = PairPool(config.pool, codec, device, preset.padded_length, config.autocast)

    def fill(self, count: int, reference_count: int) -> None:
        """Add examples until the pools hold `count` and, with second pictures, `reference_count`."""
        _fill(self.pool, self.loader, count)
        if self.triples is not None:
            _fill(self.references, self.triples, reference_count)

    def start(self, count: int, reference_count: int) -> None:
        """Set how many examples `add_new` and `add_new_references` add; called after `fill`.

        On a GPU with workers, they are read and encoded in threads and added when they are ready, so that the
        GPU never waits for them. Elsewhere each call waits, and a run can be repeated exactly.
        """
        self._new = _Supply(self.pool, self.loader, count, self._background)
        if self.triples is not None:
            self._new_references = _Supply(self.references, self.triples, reference_count, self._background)

    def add_new(self) -> None:
        """Add the new examples of a step."""
        assert self._new is not None, "call start first"
        self._new.add()

    def add_new_references(self) -> None:
        """Add the new examples with a second picture of a step that learns from them."""
        assert self._new_references is not None, "call start first"
        self._new_references.add()

    def state(self) -> dict[str, object]:
        """Seeds of the next examples, and the contents of small pools."""
        state: dict[str, object] = {"seed": self.loader.seed, "pool": self.pool.state()}
        if self.triples is not None:
            state |= {"references": self.references.state(), "references_seed": self.triples.seed}
        return state

    def restore(self, state: dict) -> None:
        """Restore the pools from a saved state; the seeds are arguments of the constructor."""
        self.pool.restore(state["pool"])
        if self.triples is not None:
            self.references.restore(state.get("references"))

    def close(self) -> None:
        """Stop the threads and worker processes."""
        for supply in (self._new, self._new_references):
            if supply is not None:
                supply.close()
        for loader in (self.loader, self.chains, self.triples):
            if loader is not None:
                loader.close()


class _Supply:
    """Adds examples of a loader to a pool: at once, or those that a thread has encoded meanwhile."""

    def __init__(self, pool: Pool, loader: ExampleLoader, count: int, background: bool):
        self.pool, self.loader, self.count = pool, loader, count
        self.prefetcher: Prefetcher[dict[str, Tensor]] | None = None
        if background:
            self.stream = torch.cuda.Stream(pool.device)
            self.prefetcher = Prefetcher(loader, self._encode, count)

    def add(self) -> None:
        if self.prefetcher is None:
            self.pool.add(self.loader.take(self.count))
        elif (encoded := self.prefetcher.take_ready()) is not None:
            self.pool.store(encoded)

    def close(self) -> None:
        if self.prefetcher is not None:
            self.prefetcher.close()

    def _encode(self, examples: Examples) -> dict[str, Tensor]:
        """Encoded on a stream of its own, finished, and usable on the device's default stream."""
        with torch.cuda.stream(self.stream):
            encoded = self.pool.encode(examples)
            done = torch.cuda.Event()
            done.record(self.stream)
        done.synchronize()
        for value in encoded.values():
            if value.is_cuda:
                value.record_stream(torch.cuda.default_stream(self.pool.device))
        return encoded


def _fill(pool: Pool, loader: ExampleLoader, count: int) -> None:
    while pool.filled < count:
        pool.add(loader.take(min(count - pool.filled, FILL_CHUNK)))
