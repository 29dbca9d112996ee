"""Rows of the tables: baselines that need no model, and the model at each number of steps.

``copy`` returns the input; ``codec-input`` and ``codec-target`` pass a picture once through the model's
codec (the latter is the ceiling of any model that works in its latents); ``random`` does a different edit;
``oracle`` is the exact target; ``model@4`` is the raw output of the model in 4 steps, ``model+lock@4``
the shipped configuration, which preserves untouched pixels; ``diffusers`` is its pipeline on the model's
weights in its default 28 steps, which supports a single input picture.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from kontext.bench.items import Item
from kontext.bench.metrics import Picture
from kontext.engine.requests import EditRequest, Result
from kontext.errors import BadRequest, KontextError

if TYPE_CHECKING:
    from kontext.bench.peer import Peer
    from kontext.engine import Editor

log = logging.getLogger(__name__)

BASELINES = ("copy", "codec-input", "codec-target", "random", "oracle")
NEED_MODEL = ("codec-input", "codec-target", "model", "model+lock", "diffusers")
BATCH = 8


def row_names(rows: Sequence[str], steps: Sequence[int]) -> list[str]:
    """The requested rows, the model's expanded by the steps. Raises BadRequest for an unknown row."""
    known = (*BASELINES, "model", "model+lock", "diffusers")
    out = []
    for row in rows:
        if row not in known:
            raise BadRequest(f"row '{row}' is not known; rows are {', '.join(known)}")
        out += [f"{row}@{n}" for n in steps] if row.startswith("model") else [row]
    return out


def answer(row: str, items: Sequence[Item], editor: Editor | None) -> list[tuple[Picture, dict[str, float]]]:
    """Each item's result in this row (uint8, the target's size) and runtime figures.

    The model's figures are ``seconds`` (its share of a batch; the context was prefilled, as when a user
    types) and ``refused``: an item that the editor rejects (such as a prompt that is too long) counts as
    returned unchanged.
    """
    if row == "diffusers":
        return [_peer(needed(editor, row), item) for item in items]
    if not row.startswith("model"):
        return [(_baseline(row, item, editor), {}) for item in items]
    name, steps = row.split("@")
    requests = [request_of(item, int(steps), lock=name == "model+lock") for item in items]
    editor = needed(editor, row)
    for request in requests:
        if request.picture is not None and hasattr(editor, "prefill"):
            editor.prefill(request.picture)
    out = []
    for item, result in zip(items, answers(editor, requests)):
        if result is None:
            out.append((item.input_picture, {"refused": 1.0}))
        else:
            out.append((_fitting(result, item), {"refused": 0.0, "seconds": result.seconds["total"]}))
    return out


def needed(editor: Editor | None, row: str) -> Editor:
    """The editor. Raises BadRequest if there is none."""
    if editor is None:
        raise BadRequest(f"row {row} needs a model")
    return editor


def answers(editor: Editor, requests: Sequence[EditRequest]) -> list[Result | None]:
    """Results in order, None for requests that the editor rejects."""
    try:
        return [*ask(editor, requests)]
    except KontextError:
        return [_or_none(editor, request) for request in requests]


def _or_none(editor: Editor, request: EditRequest) -> Result | None:
    try:
        return ask(editor, [request])[0]
    except KontextError as error:
        log.info("refused: %s", error)
        return None


@lru_cache(1)
def _pipeline(editor: Editor) -> Peer:
    from kontext.bench.peer import Peer

    return Peer(editor)


def _peer(editor: Editor, item: Item) -> tuple[Picture, dict[str, float]]:
    sample = item.sample
    if sample.source is None or sample.references or sample.source.shape != sample.target.shape:
        return item.input_picture, {"refused": 1.0}
    started = time.perf_counter()
    picture = _pipeline(editor).edit(sample.source, item.prompt, item.seed)
    return picture, {"refused": 0.0, "seconds": time.perf_counter() - started}


def _baseline(row: str, item: Item, editor: Editor | None) -> Picture:
    sample = item.sample
    if row == "oracle":
        return sample.target
    if row == "codec-target":
        return round_trip(needed(editor, row), sample.target)
    if row == "random":
        wrong = [p for label, p in item.distractors if label.startswith(("value", "edit"))]
        return wrong[item.seed % len(wrong)] if wrong else item.input_picture
    if row == "codec-input":
        return round_trip(needed(editor, row), item.input_picture)
    return item.input_picture


def round_trip(editor: Editor, picture: Picture) -> Picture:
    """decode(encode(picture)) on the editor's own canvas, at the picture's size."""
    from kontext.engine.context import Canvas
    from kontext.engine.sizes import plan_edit

    image = Image.fromarray(picture)
    plan = plan_edit(image.size, "match", editor.model.preset.sizes)
    reconstruction = editor.contexts.reconstruct(Canvas(plan.place(image)))
    return np.asarray(plan.restore(Image.fromarray(reconstruction)))


def request_of(item: Item, steps: int | None, lock: bool) -> EditRequest:
    """The item as a request: an edit of its source, or a new picture from its references and words."""
    sample = item.sample
    size = f"{sample.target.shape[1]}x{sample.target.shape[0]}"
    if sample.source is None:
        return EditRequest(
            prompt=item.prompt,
            references=sample.references,
            seed=item.seed,
            steps=steps,
            size=size,
            lock=False,
        )
    return EditRequest(
        prompt=item.prompt,
        picture=sample.source,
        references=sample.references,
        seed=item.seed,
        steps=steps,
        size="match" if sample.source.shape == sample.target.shape else size,
        lock=lock,
        regions=None if lock else False,
    )


def ask(editor: Editor, requests: Sequence[EditRequest]) -> list[Result]:
    """Results in order; in batches if the editor has ``edit_batch``, else one by one through ``edit``."""
    if hasattr(editor, "edit_batch"):
        return [
            result
            for start in range(0, len(requests), BATCH)
            for result in _with_shared_time(editor.edit_batch(requests[start : start + BATCH]))
        ]
    return [_ask_one(editor, request) for request in requests]


def _ask_one(editor: Editor, request: EditRequest) -> Result:
    same: dict[str, Any] = {"references": request.references, "seed": request.seed, "steps": request.steps}
    if request.picture is None:
        return editor.generate(request.prompt, size=request.size, **same)
    return editor.edit(request.picture, request.prompt, size=request.size, lock=request.lock, **same)


def _with_shared_time(results: list[Result]) -> list[Result]:
    """A batch's time belongs to all of it: every result reports its share."""
    from dataclasses import replace

    return [replace(r, seconds={k: v / len(results) for k, v in r.seconds.items()}) for r in results]


def _fitting(result: Result, item: Item) -> Picture:
    picture = np.asarray(result.picture.convert("RGB"))
    if picture.shape != item.sample.target.shape:
        raise BadRequest(f"the editor returned {picture.shape} for an item of {item.sample.target.shape}")
    return picture
