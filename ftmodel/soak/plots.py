"""Plots as SVG: lines over a linear axis, with bands behind them. Colours are those of the page's style."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup, escape

WIDTH: Final = 640
HEIGHT: Final = 220
LEFT: Final = 64
RIGHT: Final = 12
TOP: Final = 10
BOTTOM: Final = 36
TICKS: Final = 5
COLOURS: Final = 6
"""Classes s1 to s6 of the style."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One series."""

    name: str
    points: Sequence[tuple[float, float]]


def plot(
    lines: Sequence[Line], *, title: str, x: str, y: str, bands: Sequence[tuple[float, float]] = (), zero: bool = True
) -> Markup:
    """A plot with its axes and a legend; empty where there is no point. `zero`: y begins there."""
    points = [point for line in lines for point in line.points]
    if not points:
        return Markup()
    x_ticks = ticks(min(p[0] for p in points), max(p[0] for p in points))
    y_ticks = ticks(0.0 if zero else min(p[1] for p in points), max(p[1] for p in points))
    parts = [_band(band, x_ticks) for band in bands]
    parts += [_x_tick(tick, x_ticks) for tick in x_ticks] + [_y_tick(tick, y_ticks) for tick in y_ticks]
    for number, line in enumerate(lines):
        path = " ".join(f"{_at_x(px, x_ticks):.1f},{_at_y(py, y_ticks):.1f}" for px, py in line.points)
        parts.append(Markup('<polyline class="line s{}" points="{}"/>').format(number % COLOURS + 1, path))
    legend = Markup("").join(
        Markup('<li><svg class="key" viewBox="0 0 18 12"><line class="line s{}" x1="0" y1="6" x2="18" y2="6"/></svg>{}</li>').format(
            number % COLOURS + 1, line.name
        )
        for number, line in enumerate(lines)
    )  # fmt: skip
    return Markup(
        '<figure><figcaption>{title}</figcaption><div class="wide"><svg class="plot" viewBox="0 0 {width} {height}" role="img"'
        ' aria-label="{title}">{parts}<text x="{middle}" y="{below}" text-anchor="middle">{x}</text>'
        '<text x="4" y="{top}">{y}</text></svg></div><ul class="legend">{legend}</ul></figure>'
    ).format(
        title=title, width=WIDTH, height=HEIGHT + TOP, parts=Markup("").join(parts), middle=(LEFT + WIDTH - RIGHT) // 2,
        below=HEIGHT + TOP - 4, x=x, top=TOP, y=y, legend=legend,
    )  # fmt: skip


def ticks(low: float, high: float) -> list[float]:
    """Round numbers, from one at or below `low` to one at or above `high`."""
    span = high - low or abs(high) or 1.0
    raw = span / (TICKS - 1)
    unit = 10 ** math.floor(math.log10(raw))
    step = next(unit * m for m in (1, 2, 2.5, 5, 10) if unit * m >= raw)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [number * step for number in range(first, max(last, first + 1) + 1)]


def short(value: float) -> str:
    """A number as an axis has it."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (limit if letter != 'k' else 1e3):g}{letter}"
    return f"{value:.6g}"


def _at_x(value: float, marks: Sequence[float]) -> float:
    return LEFT + (value - marks[0]) / (marks[-1] - marks[0]) * (WIDTH - LEFT - RIGHT)


def _at_y(value: float, marks: Sequence[float]) -> float:
    return HEIGHT - BOTTOM + TOP - (value - marks[0]) / (marks[-1] - marks[0]) * (HEIGHT - BOTTOM - TOP)


def _band(band: tuple[float, float], marks: Sequence[float]) -> Markup:
    left, right = (_at_x(min(max(edge, marks[0]), marks[-1]), marks) for edge in band)
    return Markup('<rect class="band" x="{:.1f}" y="{}" width="{:.1f}" height="{}"/>').format(
        left, 2 * TOP, right - left, HEIGHT - BOTTOM - TOP
    )


def _x_tick(value: float, marks: Sequence[float]) -> Markup:
    at = _at_x(value, marks)
    return Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
        at, HEIGHT - BOTTOM + TOP + 14, escape(short(value))
    )


def _y_tick(value: float, marks: Sequence[float]) -> Markup:
    at = _at_y(value, marks)
    return Markup(
        '<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/><text x="{}" y="{:.1f}" text-anchor="end">{}</text>'
    ).format(LEFT, WIDTH - RIGHT, at, at, LEFT - 6, at + 4, escape(short(value)))
