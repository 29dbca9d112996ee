"""Suite ``identity``: is it still the same character?

Two uses: ten rounds of edits that leave the character alone, and characters placed in a new scene by
reference. ``kept`` is the share of what makes the character (hair, its color, skin, glasses, hat, beard,
clothes, ...) that is nearer to the truth than to the same picture with any other value. ``rank-1`` asks
which of 100 characters of the same family, drawn in the same place and pose, the result shows (chance 1 %).
Cosines of face networks are not used: on drawn characters they lie above 0.95 for all of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from kontext import world
from kontext.bench import plots, quality, report
from kontext.bench.drift import ROUNDS, DriftSession, play
from kontext.bench.items import Item, at_size, draw_item, draw_session
from kontext.bench.metrics import DISTANCE_CAP, Floats, Picture, blur, color_distance, lab
from kontext.bench.run import CellsJson, Figure, Progress, Record, Run, RunJson, silent
from kontext.bench.statistics import Estimate
from kontext.world.drawing.characters import FAMILIES, PANTS, SHOES, can_wear, sample_character
from kontext.world.drawing.colors import HAT_COLORS, SKINS
from kontext.world.scenes.scene import Scene, settle
from kontext.world.seeds import generator

if TYPE_CHECKING:
    from kontext.engine import Editor

GALLERY = 100
SCORED_ROUNDS = (1, 5, 10)
AROUND = (
    *("background", "time", "season", "weather", "object_add", "object_remove", "object_replace"),
    *("object_color", "object_move", "text", "text_color", "text_write", "text_remove"),
)
TRAITS = (
    *("hair", "hair_color", "skin", "glasses", "hat", "hat_color", "beard", "clothes", "cloth_color"),
    *("pants", "shoes", "horns", "eyes", "pattern"),
)
_SHARED_VALUES = {"skin": SKINS, "hat_color": tuple(HAT_COLORS), "pants": PANTS, "shoes": SHOES}
REFERENCE_KINDS = ("character_scene",)

FIGURES = {
    **{f"kept@{k}": Figure(f"kept@{k}") for k in SCORED_ROUNDS},
    **{f"rank-1@{k}": Figure(f"rank-1@{k}") for k in SCORED_ROUNDS},
    "kept": Figure("kept"),
    "rank-1": Figure("rank-1"),
    "success": Figure("success"),
    "seconds": Figure("s/edit", share=False, digits=2, better=-1),
}


def measure(
    editor: Editor | None,
    run: Run,
    *,
    n: int,
    size: int,
    rows: Sequence[str],
    reference_rows: Sequence[str],
    batch: int = 4,
    progress: Progress = silent,
) -> None:
    """``n`` sessions in ``rows`` (as in drift) and ``n`` references in ``reference_rows`` (as in quality)."""
    sessions = (_session(i, size) for i in progress(range(n), n, "identity over ten rounds"))
    while group := list(islice(sessions, batch)):
        for row in rows:
            missing = [session for session in group if not run.done(session.key, row)]
            for session, results in zip(missing, play(editor, row, missing) if missing else []):
                figures: dict[str, float] = {}
                for k in SCORED_ROUNDS:
                    retained_figures = retained(results[k - 1], session.turns[k - 1].scene, size)
                    figures |= {f"{name}@{k}": value for name, value in retained_figures.items()}
                key, file = session.key, ""
                if row.startswith("model"):
                    file = run.save_picture(f"{row}/{key}", results[-1])
                run.add(Record(key, row, session.kind, "test", key, figures, "", file, session.sum))
    items = (find(i, size) for i in progress(range(n), n, "identity by reference"))
    quality.each(editor, run, items, reference_rows, score)


def find(index: int, size: int) -> Item:
    return draw_item("test", "character_reference", index, size, REFERENCE_KINDS)


def score(item: Item, result: Picture) -> dict[str, float]:
    """Figures of a character in a new scene."""
    return item.case.score(result) | retained(result, item.full.after, item.size)


def _session(index: int, size: int) -> DriftSession:
    """The first session of its number in which a character stays from beginning to end."""
    drawn = world.World(kinds=AROUND)
    for attempt in range(50):
        start, turns = draw_session("edits", index * 50 + attempt, ROUNDS, size, drawn)
        if all(turn.scene["character"] for turn in turns):
            return DriftSession(f"rounds/{index:04d}", "rounds", start, turns)
    raise RuntimeError("no session with a character in 50 draws")


def retained(result: Picture, scene: Scene, size: int) -> dict[str, float]:
    """``kept`` and ``rank-1`` of a result against the scene it should show."""
    truth, traits, gallery = _drawn(json.dumps(scene), size)
    result_lab = lab(blur(result, 1.0))
    correct = [_nearest(result_lab, truth, others) for others in traits]
    return {
        "kept": float(np.mean(correct)) if correct else float("nan"),
        "rank-1": float(_nearest(result_lab, truth, gallery)),
    }


@lru_cache(maxsize=12)
def _drawn(scene_json: str, size: int) -> tuple[Picture, list[list[Picture]], list[Picture]]:
    """The truth; for each trait the truth with every other value; 99 other characters in its place."""
    scene = json.loads(scene_json)
    truth = at_size(world.render(scene), size)
    gallery = [at_size(world.render(other), size) for other in _gallery(scene)]
    return truth, list(_alternatives(scene, truth, size)), gallery


def _nearest(result_lab: Floats, truth: Picture, others: Sequence[Picture]) -> bool:
    """Whether the truth is strictly nearer than all others, where any of them differs from it."""
    where = np.any([np.any(other != truth, axis=-1) for other in others], axis=0)
    rows, columns = np.nonzero(where)
    box = (slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
    differs = where[box]

    def distance(picture: Picture) -> float:
        apart = color_distance(result_lab[box][differs], lab(blur(picture[box], 1.0))[differs])
        return float(np.minimum(apart, DISTANCE_CAP).mean())

    here = distance(truth)
    return all(here < distance(other) for other in others)


def _alternatives(scene: Scene, truth: Picture, size: int) -> Iterator[list[Picture]]:
    """For each trait that can be seen: the scene with every other value of it."""
    c = scene["character"]
    for trait in TRAITS:
        pictures = []
        for value in _SHARED_VALUES.get(trait) or FAMILIES[c["family"]].allows(trait):
            if value == c.get(trait) or (trait == "hat" and value and not can_wear(c, value)):
                continue
            picture = at_size(world.render(settle({**scene, "character": {**c, trait: value}})), size)
            if np.abs(picture.astype(np.int16) - truth).max() > 10:
                pictures.append(picture)
        if pictures:
            yield pictures


def _gallery(scene: Scene) -> Iterator[Scene]:
    """99 other characters of the family in the same place, pose and mood."""
    c, r = scene["character"], generator("gallery", repr(scene))
    same = {k: c[k] for k in c if k not in TRAITS}
    characters = {repr(c)}
    for _ in range(50 * GALLERY):
        if len(characters) == GALLERY:
            return
        other = settle({**scene, "character": {**sample_character(r, (c["family"],)), **same}})
        if repr(other["character"]) not in characters:
            characters.add(repr(other["character"]))
            yield other


def sections(run: Run, result: RunJson, size: int) -> list[str]:
    """Tables of both uses, figures by round, contact sheets of the references."""
    rows, out, charts = result["rows"], [], {}
    for category, title in (("rounds", "Ten rounds"), ("character_reference", "In a new scene")):
        group = f"test/{category}"
        out.append(report.table(title, {r: g[group] for r, g in rows.items() if group in g}, FIGURES))
    for name in ("kept", "rank-1"):
        curves = {
            row: [_point(groups["test/rounds"], name, k) for k in SCORED_ROUNDS]
            for row, groups in rows.items()
            if "test/rounds" in groups
        }
        charts[f"{name} by round"] = plots.lines(curves, "round", f"{name}, %", y_range=(-4, 104))
    out.append(report.plots(charts))
    models = [row for row in rows if row.startswith("model")]
    return out + quality.contact_sheets(run, models[-1:], lambda key: find(int(key.split("/")[-1]), size))


def _point(cells: CellsJson, name: str, k: int) -> plots.Point:
    return float(k), *Estimate.from_json(cells[f"{name}@{k}"]).scaled(100)
