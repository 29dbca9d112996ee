"""The report of a run: one self-contained HTML page with style, plots and pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from PIL import Image

from kontext.bench.run import Figure, RunJson
from kontext.bench.statistics import EstimateJson

STYLE = """
:root { color-scheme: light; --ink: #1f2328; --quiet: #656d76; --line: #d8dee4; --wash: #f6f8fa; }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); max-width: 1080px; margin: 0 auto;
  padding: 28px 20px 60px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 19px; margin: 36px 0 8px; }
.quiet { color: var(--quiet); } .scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; }
th, td { padding: 5px 7px; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
thead th { background: var(--wash); white-space: normal; vertical-align: bottom; min-width: 3.6em; }
td small { color: var(--quiet); display: block; font-size: 11px; line-height: 1.1; }
tr.ours td { font-weight: 600; } tr.ours td small { font-weight: 400; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(420px, 1fr)); gap: 20px; }
figure { margin: 0; } figcaption { font-weight: 600; }
svg { width: 100%; height: auto; font: 12px system-ui, sans-serif; fill: var(--ink); }
svg .grid { stroke: var(--line); } .legend { display: flex; flex-wrap: wrap; gap: 4px 16px; font-size: 13px; }
.legend i { display: inline-block; width: 10px; height: 10px; border-radius: 5px; margin-right: 6px; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(330px, 1fr)); gap: 16px; }
.card { border: 1px solid var(--line); border-radius: 8px; padding: 10px; background: white; }
.card.wide { grid-column: 1 / -1; }
.card div { display: flex; gap: 6px; } .card span { flex: 1; font-size: 11px; color: var(--quiet); }
.card img { width: 100%; display: block; border-radius: 4px; image-rendering: auto; }
.card p { margin: 6px 0 0; font-size: 13px; } dl { display: grid; grid-template-columns: max-content 1fr;
  gap: 2px 16px; font-size: 13px; } dt { color: var(--quiet); } dd { margin: 0; overflow-wrap: anywhere; }
"""


@dataclass(frozen=True)
class Card:
    """One item of a contact sheet: named pictures side by side, a caption, a line of figures."""

    pictures: Mapping[str, np.ndarray | Image.Image]
    caption: str
    figures: str


def page(result: RunJson, sections: Iterable[str]) -> str:
    """The whole page around finished sections (strings of HTML from the functions below)."""
    title = f"kontext bench {result['suite']} · {result['model']}"
    shown = {
        k: v for k, v in result["settings"].items() if not isinstance(v, dict | list) or len(str(v)) < 200
    }
    settings = "".join(
        f"<dt>{escape(str(k))}</dt><dd>{escape(str(v))}</dd>" for k, v in sorted(shown.items())
    )
    missing = result.get("unscored", [])
    lost = ""
    if missing:
        listed = "".join(
            f"<li>{escape(m['row'])}: {escape(m['item'])}: {escape(m['why'])}</li>" for m in missing
        )
        lost = f"<h2>Without a score: {len(missing)}</h2><ul>{listed}</ul>"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>'
        f'<h1>{escape(title)}</h1><p class="quiet">{result["n"]} items. Small figures are 95 % intervals, '
        f"drawn again by scene.</p>{''.join(sections)}{lost}"
        f"<h2>Settings</h2><dl>{settings}</dl></body></html>"
    )


def table(
    title: str,
    rows: Mapping[str, Mapping[str, EstimateJson]],
    figures: Mapping[str, Figure],
    note: str = "",
    first: str = "row",
) -> str:
    """A table of estimates, row -> figure -> {mean, low, high, n}. Columns without values are omitted."""
    used = [name for name in figures if any(name in cells for cells in rows.values())]
    units = {True: " %", False: ""}
    head = "".join(f"<th>{escape(figures[n].label)}{units[figures[n].share]}</th>" for n in used)
    body = []
    for row, cells in rows.items():
        ours = ' class="ours"' if row.startswith("model") else ""
        values = "".join(f"<td>{_cell(cells.get(n), figures[n])}</td>" for n in used)
        count = max((c["n"] for c in cells.values()), default=0)
        body.append(f"<tr{ours}><td>{escape(row)}</td><td>{count}</td>{values}</tr>")
    return (
        f'<h2>{escape(title)}</h2>{f"<p>{escape(note)}</p>" if note else ""}<div class="scroll"><table>'
        f"<thead><tr><th>{escape(first)}</th><th>n</th>{head}</tr></thead><tbody>{''.join(body)}</tbody>"
        "</table></div>"
    )


def _cell(value: EstimateJson | None, figure: Figure) -> str:
    if value is None:
        return "–"
    interval = f"{figure.show(value['low'])} to {figure.show(value['high'])}"
    return f"{figure.show(value['mean'])}<small>{interval}</small>"


def plots(charts: Mapping[str, str]) -> str:
    """Finished SVG charts with their titles, side by side."""
    body = "".join(f"<figure><figcaption>{escape(t)}</figcaption>{svg}</figure>" for t, svg in charts.items())
    return f'<h2>Plots</h2><div class="plots">{body}</div>'


def sheet(title: str, cards: Sequence[Card], note: str = "") -> str:
    """A contact sheet with its pictures inside."""
    body = "".join(
        f'<div class="card{" wide" if len(c.pictures) > 4 else ""}"><div>'
        + "".join(
            f'<span><img alt="{escape(n)}" src="{_embed(p)}">{escape(n)}</span>'
            for n, p in c.pictures.items()
        )
        + f'</div><p>{escape(c.caption)}</p><p class="quiet">{escape(c.figures)}</p></div>'
        for c in cards
    )
    return (
        f'<h2>{escape(title)}</h2>{f"<p>{escape(note)}</p>" if note else ""}<div class="sheet">{body}</div>'
    )


def _embed(picture: np.ndarray | Image.Image) -> str:
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image = image.convert("RGB")
    image.thumbnail((256, 256), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=88)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
