"""The tree of turns as plain data: current turn, undo and redo targets, path from the first picture.

All of it derives from the stored turns: the current turn is the one visited last, redo goes to the child
visited last. Hence deleting turns cannot leave a dangling pointer.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Required, TypedDict

from PIL import Image

from kontext.errors import BadRequest, NotFound
from kontext.session.pixels import from_png

if TYPE_CHECKING:
    from kontext.session.blobs import Blobs

KINDS = ("source", "generate", "edit")


class ResultInfo(TypedDict, total=False):
    """What is known of a turn's picture; size is [width, height]."""

    size: Required[list[int]]
    steps: int | None
    guidance: float | None
    model: str | None
    fingerprint: str | None
    changed_fraction: float
    evaluations: int
    seconds: Mapping[str, float]
    warnings: list[str]


class SessionRow(TypedDict):
    """A row of the table of sessions."""

    id: str
    owner: str
    name: str
    created: float
    updated: float
    revision: int
    last_number: int


class TurnRow(TypedDict):
    """A turn of a session that is not stored yet. `parent_id` is an index into the list of its turns."""

    number: int
    parent_id: int | None
    kind: str
    name: str
    prompt: str
    seed: int | None
    settings: Mapping[str, object]
    facts: ResultInfo
    pixels: str
    created: float
    visited: int


@dataclass(frozen=True)
class Turn:
    """One picture of a session and how it was made. Turn numbers count from 0, the first picture."""

    id: str
    session_id: str
    number: int
    parent_id: str | None
    kind: str
    """source (an input picture), generate (from text) or edit."""
    name: str
    """Name given by the user; empty by default."""
    prompt: str
    seed: int | None
    settings: Mapping[str, object]
    """Arguments of the edit other than prompt, seed and pictures."""
    result_info: ResultInfo
    """What is known of the result: size [w, h], steps, guidance, model, fingerprint, changed_fraction,
    evaluations, seconds, warnings. Stored and sent under the name `facts`.
    """
    pixels: str
    """Digest of the decoded picture (`pixels.digest`)."""
    created: float
    visited: int
    blobs: Mapping[str, tuple[str, ...]]
    """sha256 of the stored files by role: picture, region, reference, mask, markup."""
    _store: Blobs = field(repr=False, compare=False)

    @property
    def picture(self) -> Image.Image:
        """The lossless picture. Raises NotFound for a restored turn without its picture."""
        if not self.has_picture:
            raise NotFound(
                f"turn {self.number} comes from a file's history; its picture was not in that file"
            )
        return self.read("picture")[0]

    @property
    def has_picture(self) -> bool:
        return bool(self.blobs.get("picture"))

    @property
    def region(self) -> Image.Image | None:
        """The edited region (mode "L", same size as the picture); None for a whole picture."""
        return next(iter(self.read("region")), None)

    @property
    def references(self) -> list[Image.Image]:
        return self.read("reference")

    @property
    def size(self) -> tuple[int, int]:
        width, height = self.result_info["size"]
        return width, height

    def read(self, role: str) -> list[Image.Image]:
        """The stored pictures of one role, in the order given."""
        return [from_png(self._store.get(sha256)) for sha256 in self.blobs.get(role, ())]


class Tree:
    """Turns by id with navigation; raises NotFound and BadRequest with messages for the user."""

    def __init__(self, turns: Iterable[Turn]) -> None:
        self.turns = {turn.id: turn for turn in sorted(turns, key=lambda turn: turn.number)}

    @property
    def root(self) -> Turn | None:
        return next((turn for turn in self.turns.values() if turn.parent_id is None), None)

    @property
    def current(self) -> Turn | None:
        return max(self.turns.values(), key=_visited, default=None)

    @property
    def leaves(self) -> list[Turn]:
        """The ends of all branches."""
        parents = {turn.parent_id for turn in self.turns.values()}
        return [turn for turn in self.turns.values() if turn.id not in parents]

    def find(self, turn: Turn | str | int) -> Turn:
        """Find a turn by a Turn object, an id or a number. Raises NotFound."""
        key = turn.id if isinstance(turn, Turn) else turn
        for found in self.turns.values():
            if key in (found.id, found.number) and not isinstance(key, bool):
                return found
        by_id = isinstance(key, str)
        known = [found.id if by_id else str(found.number) for found in self.turns.values()]
        names = ", ".join(known)[:200] or "none yet"
        raise NotFound(f"no turn {key!r} in this session; its turns are {names}")

    def parent(self, turn: Turn) -> Turn | None:
        return self.turns[turn.parent_id] if turn.parent_id else None

    def children(self, turn: Turn) -> list[Turn]:
        return [child for child in self.turns.values() if child.parent_id == turn.id]

    def path(self, turn: Turn) -> list[Turn]:
        """The turns from the first picture to this turn."""
        path = [turn]
        while parent := self.parent(path[-1]):
            path.append(parent)
        return path[::-1]

    def subtree(self, turn: Turn) -> list[Turn]:
        """The turn and all its descendants."""
        descendants = {turn.id}
        for other in self.turns.values():  # children have higher numbers than their parents
            if other.parent_id in descendants:
                descendants.add(other.id)
        return [other for other in self.turns.values() if other.id in descendants]

    def undo(self) -> Turn:
        """The turn that undo would make current."""
        parent = self.current and self.parent(self.current)
        if parent is None:
            raise BadRequest("nothing to undo: this is the first picture of the session")
        return parent

    def redo(self) -> Turn:
        """The turn that redo would make current: the child visited last."""
        ahead = self.children(self.current) if self.current else []
        if not ahead:
            raise BadRequest("nothing to redo: this turn has no later edits")
        return max(ahead, key=_visited)


class Trees:
    """Thread-safe LRU cache of trees by session, each with the session's row.

    The row changes with every turn: a tree whose row is unchanged is reused, others are read incrementally.
    Trees are immutable.
    """

    def __init__(self, most: int = 64, most_turns: int = 5000) -> None:
        self.most, self.most_turns = most, most_turns
        self._trees: OrderedDict[str, tuple[SessionRow, Tree]] = OrderedDict()
        self._turn = threading.Lock()

    def get(self, session_id: str) -> tuple[SessionRow, Tree] | None:
        """The session's row at the time its tree was read, and the tree."""
        with self._turn:
            return self._trees.get(session_id)

    def keep(self, row: SessionRow, tree: Tree) -> None:
        with self._turn:
            self._trees[row["id"]] = row, tree
            self._trees.move_to_end(row["id"])
            turns = sum(len(tree.turns) for _, tree in self._trees.values())
            while len(self._trees) > 1 and (len(self._trees) > self.most or turns > self.most_turns):
                _, (_, evicted) = self._trees.popitem(last=False)
                turns -= len(evicted.turns)


def _visited(turn: Turn) -> tuple[int, int]:
    return turn.visited, turn.number
