"""Chains of turns: a picture, and edits that are each applied to the previous result."""

import random
from dataclasses import dataclass

import numpy as np

from ..drawing.changes import change_mask, visible
from ..edits import JOINABLE, KINDS, Value, inverse
from ..scenes.render import render
from ..scenes.scene import Pool, Scene, sample_scene
from .splits import admits, admits_start, shows_held_out_pair
from .task_specs import WEIGHTS, phrase

_SAME_KIND_AFTER = 3  # turns before a kind of edit may come again


@dataclass(frozen=True)
class ChainTurn:
    """One turn: instruction, picture after it, what changed, and whether it undoes the turn before."""

    english: str
    chinese: str
    picture: np.ndarray
    mask: np.ndarray
    kind: str
    value: Value
    scene: Scene
    takes_back: bool


@dataclass(frozen=True)
class Chain:
    """A picture and what is done to it, turn after turn."""

    start: np.ndarray
    scene: Scene
    turns: tuple[ChainTurn, ...]


def draw_chain(r: random.Random, length: int, split: str, back: bool, pool: Pool) -> Chain | None:
    """A chain of distinct edits; None where this draw gives none. See `World.chain`."""
    start = sample_scene(r, pool, character=r.random() < 0.9, new=True)
    if not admits_start(split, start):
        return None
    scene, picture = start, render(start)
    chain, turns = Chain(picture, start, ()), list[ChainTurn]()
    allowed = {name for name, _ in pool.kinds}
    names = [name for name in JOINABLE if name in allowed and name != "style"]
    used = set()
    for _ in range(60 * length if names else 0):
        kind = KINDS[r.choices(names, [WEIGHTS[name] for name in names])[0]]
        value = kind.propose(r, scene, pool)
        if value is None or (kind.name, repr(value)) in used:
            continue
        if kind.name in [turn.kind for turn in turns[-_SAME_KIND_AFTER:]]:
            continue
        undone, after = inverse(kind, scene, value), kind.after(scene, value)
        if (back and undone is None) or (split != "pairs" and shows_held_out_pair(after)):
            continue
        result = render(after)
        if not visible(picture, result):
            continue
        used.add((kind.name, repr(value)))
        mask = change_mask(picture, result)
        words = phrase(r, kind, scene, value, split)
        turns.append(ChainTurn(*words, result, mask, kind.name, value, after, False))
        if back and undone is not None:
            other, old_value = undone
            words = phrase(r, other, after, old_value, split)
            turns.append(ChainTurn(*words, picture, mask, other.name, old_value, scene, True))
        else:
            scene, picture = after, result
        if len(turns) >= length:
            break
    if len(turns) < length:
        return None
    if split in ("pairs", "words") and not any(admits(split, start, turn.scene) for turn in turns):
        return None
    return Chain(chain.start, start, tuple(turns[:length]))
