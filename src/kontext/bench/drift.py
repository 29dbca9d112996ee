"""Suite ``drift``: ten rounds, each on the saved 8-bit result of the round before.

Three kinds of sessions: ten different edits, ten times "leave it as it is", five times an edit and its
inverse. The exact picture of every round is known, so what is measured is distance from the truth, never
from the last result. U_k is the part of the picture that no turn up to k should change.

- SR@k: every turn to k a success, with 90 % of U within dE 5. CR@k: collapsed by k, i.e. two turns in a row
  with less than 20 dB, more than 6 low-frequency drift or a factor of 2 in high-frequency energy.
- low@k: rms over U of the Lab difference below W/16 (color drift, blind to texture). high@k: log2 of the
  energy of fine detail over that of the truth (-1: half is left, blur; +1: twice, sharpening). No-reference
  scores are not used: they rank degraded pictures as better.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from kontext.bench import plots, report
from kontext.bench.items import BenchTurn, digest, draw_session
from kontext.bench.metrics import Case, Floats, Mask, Picture, blur, lab, psnr, share
from kontext.bench.rows import answers, needed, round_trip
from kontext.bench.run import Figure, Progress, Record, RowsJson, Run, RunJson, silent
from kontext.bench.statistics import Estimate, slope
from kontext.engine.requests import EditRequest

if TYPE_CHECKING:
    from kontext.engine import Editor

ROUNDS = 10
KINDS = ("edits", "nothing", "back")
SHOWN = (1, 3, 5, 8, 10)
KEPT_NEEDED = 0.9
SEEN_NEEDED = 0.02  # minimum untouched share of the picture for figures on U
COLLAPSE_DB, COLLAPSE_LOW, COLLAPSE_HIGH = 20.0, 6.0, 1.0

BY_ROUND = {
    "sr": Figure("SR"),
    "cr": Figure("CR", better=-1),
    "success": Figure("success"),
    "kept": Figure("kept dE 5"),
    "psnr": Figure("PSNR of U", share=False),
    "low": Figure("low", share=False, digits=2, better=-1),
    "high": Figure("high", share=False, digits=2, better=0),
    "shift": Figure("shift px", share=False, digits=2, better=-1),
}
SLOPES = {f"{name} slope": Figure(f"{name}/round", share=False, digits=3) for name in ("psnr", "low", "high")}
HALF_LIFE = {"half-life": Figure("rounds to -3 dB", share=False)}
FIGURES = (
    {
        f"{name}@{k}": Figure(f"{f.label}@{k}", f.share, f.digits, f.better)
        for name, f in BY_ROUND.items()
        for k in range(1, ROUNDS + 1)
    }
    | SLOPES
    | HALF_LIFE
)
HEADLINE = {
    k: FIGURES[k] for k in ("sr@1", "sr@3", "sr@5", "sr@10", "cr@10", "kept@10", "psnr@1", "psnr@10")
} | {k: FIGURES[k] for k in ("low@10", "high@10", "shift@10", *SLOPES, *HALF_LIFE)}


@dataclass(frozen=True)
class DriftSession:
    """A start picture and its turns; ``kind`` is one of KINDS."""

    key: str
    kind: str
    start: Picture
    turns: tuple[BenchTurn, ...]

    @property
    def sum(self) -> str:
        """Checksum of the session's pictures and prompts."""
        return digest([self.start, *(t.target for t in self.turns)], *(t.prompt for t in self.turns))


def measure(
    editor: Editor | None,
    run: Run,
    *,
    n: int,
    size: int,
    rows: Sequence[str],
    kinds: Sequence[str] = KINDS,
    batch: int = 8,
    progress: Progress = silent,
) -> None:
    """``n`` sessions of each kind in every row, as records with the figures of each round."""
    keys = [(kind, i) for kind in kinds for i in range(n)]
    sessions = (
        DriftSession(f"{k}/{i:04d}", k, *draw_session(k, i, ROUNDS, size))
        for k, i in progress(keys, len(keys), "drift")
    )
    while group := list(islice(sessions, batch)):
        for row in rows:
            missing = [session for session in group if not run.done(session.key, row)]
            for session, results in zip(missing, play(editor, row, missing) if missing else []):
                file = ""
                for k, result in enumerate(results, 1):
                    if row.startswith("model"):
                        file = run.save_picture(f"{row}/{session.key}-{k:02d}", result)
                key, scores = session.key, figures(session, results)
                run.add(Record(key, row, session.kind, "test", key, scores, "", file, session.sum))


def play(editor: Editor | None, row: str, sessions: Sequence[DriftSession]) -> list[list[Picture]]:
    """The pictures of every round, each session's in a list."""
    now = [session.start for session in sessions]
    out: list[list[Picture]] = [[] for _ in sessions]
    for k in range(ROUNDS):
        now = _round(editor, row, sessions, now, k)
        for results, picture in zip(out, now):
            results.append(picture)
    return out


def _round(
    editor: Editor | None, row: str, sessions: Sequence[DriftSession], now: list[Picture], k: int
) -> list[Picture]:
    if row == "copy":
        return now
    if row == "oracle":
        return [session.turns[k].target for session in sessions]
    if row == "codec":
        turns = [session.turns[k] for session in sessions]
        results = [np.where(t.case.changed[..., None], t.target, picture) for t, picture in zip(turns, now)]
        return [round_trip(needed(editor, row), picture) for picture in results]
    name, steps = row.split("@")
    requests = [
        EditRequest(
            prompt=session.turns[k].prompt,
            picture=picture,
            seed=session.turns[k].seed,
            steps=int(steps),
            lock=name == "model+lock",
            regions=None if name == "model+lock" else False,
        )
        for session, picture in zip(sessions, now)
    ]
    edited = answers(needed(editor, row), requests)
    return [p if r is None else np.asarray(r.picture.convert("RGB")) for r, p in zip(edited, now)]


def figures(session: DriftSession, results: Sequence[Picture]) -> dict[str, float]:
    """The figures of every round of a session."""
    out: dict[str, float] = {}
    untouched = np.ones(session.start.shape[:2], bool)
    right, collapsed, bad_before = True, False, False
    for k, (turn, result) in enumerate(zip(session.turns, results), 1):
        untouched &= turn.case.keep_mask
        measured = drift(result, turn.target, untouched)
        success = turn.case.score(result)["success"]
        right &= bool(success) and not measured["kept"] < KEPT_NEEDED
        bad = (
            measured["psnr"] < COLLAPSE_DB
            or measured["low"] > COLLAPSE_LOW
            or abs(measured["high"]) > COLLAPSE_HIGH
        )
        collapsed, bad_before = collapsed or (bad and bad_before), bad
        now = measured | {"success": success, "sr": float(right), "cr": float(collapsed)}
        out |= {f"{name}@{k}": value for name, value in now.items()}
    rounds = range(1, ROUNDS + 1)
    for name in ("psnr", "low", "high"):
        out[f"{name} slope"] = slope([out[f"{name}@{k}"] for k in rounds])
    lost = [k for k in rounds if out[f"psnr@{k}"] <= out["psnr@1"] - 3]
    out["half-life"] = float(lost[0] if lost else ROUNDS + 1)
    return out


def drift(result: Picture, truth: Picture, where: Mask) -> dict[str, float]:
    """Difference of a result from the truth on ``where``; all nan when ``where`` is too small."""
    names = ("kept", "psnr", "low", "high", "shift")
    if where.mean() < SEEN_NEEDED:
        return dict.fromkeys(names, math.nan)
    case = Case(truth, truth)
    soft = lab(blur(result, 1.0)) - case.target_lab
    return {
        "kept": share(np.sqrt(np.square(soft).sum(-1)) <= 5, where),
        "psnr": psnr(result, truth, where),
        "low": low_frequency(lab(result) - lab(truth), where),
        "high": high_frequency(result, truth, where),
        "shift": best_shift(result, truth),
    }


def low_frequency(difference: Floats, where: Mask) -> float:
    """Rms over ``where`` of a Lab difference after a masked Gaussian of a sixteenth of the width."""
    sigma = where.shape[1] / 16
    weight = blur(where.astype(np.float32), sigma)
    smooth = blur(difference * where[..., None], sigma) / np.maximum(weight, 1e-6)[..., None]
    return float(np.sqrt(np.square(smooth).sum(-1)[where].mean()))


def high_frequency(result: Picture, truth: Picture, where: Mask) -> float:
    """Log2 of the energy of detail finer than 2 pixels, result over truth, on ``where``."""
    bands = [p.astype(np.float32) - blur(p, 2.0) for p in (result, truth)]
    energy = [float(np.square(band)[where].mean()) + 0.1 for band in bands]
    return math.log2(energy[0] / energy[1])


def best_shift(result: Picture, truth: Picture, reach: int = 4) -> float:
    """Length in pixels of the whole-pixel shift (up to ``reach``) at which the result fits the truth best."""
    a, b = (np.asarray(Image.fromarray(p).convert("L"), np.float32) for p in (result, truth))
    interior = (slice(reach, -reach), slice(reach, -reach))
    steps = [(y, x) for y in range(-reach, reach + 1) for x in range(-reach, reach + 1)]
    steps.sort(key=lambda s: s[0] ** 2 + s[1] ** 2)  # the shortest of equal fits
    errors = [np.square(np.roll(a, step, (0, 1))[interior] - b[interior]).mean() for step in steps]
    return float(np.hypot(*steps[int(np.argmin(errors))]))


def sections(run: Run, result: RunJson, size: int) -> list[str]:
    """A table for each kind of session, figures by round, and sessions drawn out."""
    out, rows = [], result["rows"]
    kinds = list(dict.fromkeys(r.category for r in run.records))
    for kind in kinds:
        cells = {row: groups[f"test/{kind}"] for row, groups in rows.items() if f"test/{kind}" in groups}
        out.append(report.table(f"Sessions: {kind}", cells, HEADLINE))
    charts = {}
    for name in ("sr", "psnr", "low", "high"):
        for kind in kinds:
            charts[f"{BY_ROUND[name].label} by round: {kind}"] = _by_round(rows, f"test/{kind}", name)
    out.append(report.plots(charts))
    for row in [r for r in rows if r.startswith("model")]:
        for kind in kinds:
            picked = [r for r in run.records if r.row == row and r.category == kind]
            picked.sort(key=lambda r: -sum(r.figures[f"success@{k}"] for k in range(1, ROUNDS + 1)))
            chosen = {i: picked[i] for i in (0, len(picked) // 2, len(picked) - 1)} if picked else {}
            out.append(
                report.sheet(
                    f"Best, median, worst: {row}, {kind}", [_card(run, r, size) for r in chosen.values()]
                )
            )
    return out


def _by_round(rows: RowsJson, group: str, name: str) -> str:
    scale = 100 if BY_ROUND[name].share else 1
    curves: dict[str, list[plots.Point]] = {}
    for row, groups in rows.items():
        for k in range(1, ROUNDS + 1):
            cell = groups.get(group, {}).get(f"{name}@{k}")
            if cell:
                point = (float(k), *Estimate.from_json(cell).scaled(scale))
                curves.setdefault(row, []).append(point)
    return plots.lines(curves, "round", BY_ROUND[name].label, y_range=(-4, 104) if scale == 100 else None)


def _card(run: Run, record: Record, size: int) -> report.Card:
    kind, index = record.item.split("/")
    start, turns = draw_session(kind, int(index), ROUNDS, size)
    shown: dict[str, Picture | Image.Image] = {"start": start}
    for k in SHOWN[1:]:
        path = run.folder / record.picture.replace(f"-{ROUNDS:02d}.png", f"-{k:02d}.png")
        shown[f"round {k}"] = Image.open(path).convert("RGB")
    shown["truth"] = turns[-1].target
    prompts = "; ".join(turn.prompt for turn in turns)
    line = " · ".join(
        f"{FIGURES[f].label} {FIGURES[f].show(record.figures[f])}" for f in ("sr@5", "sr@10", "psnr@10")
    )
    return report.Card(shown, prompts, f"{record.item} · {line}")
