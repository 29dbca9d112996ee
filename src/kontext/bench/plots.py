"""Line plots as SVG text: points with error bars, a legend, no dependencies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

Point = tuple[float, float, float, float]  # x, y, low, high

COLORS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2", "#be185d", "#4b5563")
WIDTH, HEIGHT = 560, 320
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 14, 44


def lines(
    series: Mapping[str, Sequence[Point]],
    x_label: str,
    y_label: str,
    *,
    y_range: tuple[float, float] | None = None,
    log_x: bool = False,
) -> str:
    """One curve per name. Points with a non-finite y are omitted; an empty plot has a notice."""
    finite = {name: [p for p in points if math.isfinite(p[1])] for name, points in series.items()}
    points = [p for some in finite.values() for p in some]
    if not points:
        return '<p class="quiet">no values to plot</p>'
    place_x, place_y = math.log10 if log_x else float, float
    x0, x1 = _widen(*_range([place_x(p[0]) for p in points]), 0.04)
    y0, y1 = y_range or _widen(*_range([v for p in points for v in p[1:] if math.isfinite(v)]), 0.06)

    def at(x: float, y: float) -> tuple[float, float]:
        across = (place_x(x) - x0) / (x1 - x0)
        up = (place_y(y) - y0) / (y1 - y0)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    out = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(y_label)} by {escape(x_label)}">'
    ]
    for tick in _ticks(y0, y1):
        y = at(points[0][0], tick)[1]
        out.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        out.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    ticks = sorted({p[0] for p in points}) if log_x or len({p[0] for p in points}) <= 12 else _ticks(x0, x1)
    last = -math.inf
    for tick in ticks:
        x = at(tick, y0)[0]
        if x - last >= 34:
            last = x
            out.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{tick:.3g}</text>')
    out.append(
        f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>'
    )
    middle = f"translate(14 {HEIGHT / 2 - 10}) rotate(-90)"
    out.append(f'<text transform="{middle}" text-anchor="middle">{escape(y_label)}</text>')
    for index, some in enumerate(finite.values()):
        color = COLORS[index % len(COLORS)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(p[0], p[1]) for p in some))
        out.append(f'<polyline fill="none" stroke="{color}" stroke-width="2" points="{path}"/>')
        for p in some:
            x, y = at(p[0], p[1])
            if math.isfinite(p[2]) and math.isfinite(p[3]):
                low, high = at(p[0], max(p[2], y0))[1], at(p[0], min(p[3], y1))[1]
                out.append(
                    f'<line stroke="{color}" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>'
                )
            out.append(f'<circle fill="{color}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>')
    out.append("</svg>")
    legend = "".join(
        f'<span><i style="background:{COLORS[i % len(COLORS)]}"></i>{escape(name)}</span>'
        for i, name in enumerate(finite)
    )
    return f'{"".join(out)}<div class="legend">{legend}</div>'


def _range(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def _widen(low: float, high: float, share: float) -> tuple[float, float]:
    room = (high - low) * share or abs(high) * 0.1 or 1.0
    return low - room, high + room


def _ticks(low: float, high: float) -> list[float]:
    """Four to eight round numbers within the range."""
    raw = (high - low) / 6
    size = 10 ** math.floor(math.log10(raw))
    step = next(m * size for m in (1, 2, 5, 10) if m * size >= raw)
    first = math.ceil(low / step)
    return [round(i * step, 10) for i in range(first, math.floor(high / step) + 1)]
