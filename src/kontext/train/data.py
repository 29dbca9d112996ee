"""Data of a flow run: example loaders and the pools of encoded examples that batches are drawn from."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer

from kontext.model.autoencoder import Autoencoder
from kontext.model.presets import Preset
from kontext.train.config import FlowTraining
from kontext.train.loader import ExampleLoader
from kontext.train.orbits import OrbitPool, Orbits
from kontext.train.pairs import Chains, PairPool, Pairs, Triples
from kontext.world import World
from kontext.world.tasks.task_specs import SEVERAL_REFERENCES

FILL_CHUNK = 512  # examples


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
            first = max(config.first_fill // config.references_every, 2 * config.batch)
            self.first_references = min(capacity, first)
        workers = max(min(1, config.workers), config.workers - triple_workers)
        self.pool: PairPool | OrbitPool
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
        """Stop the worker processes."""
        for loader in (self.loader, self.chains, self.triples):
            if loader is not None:
                loader.close()


def _fill(pool: PairPool | OrbitPool, loader: ExampleLoader, count: int) -> None:
    while pool.filled < count:
        pool.add(loader.take(min(count - pool.filled, FILL_CHUNK)))
