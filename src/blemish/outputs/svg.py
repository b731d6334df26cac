"""Charts as SVG text, for HTML pages and for files. The same arguments give the same text.

Elements carry CSS classes, so that a page can style them for light and dark screens: `line`, `bar` with a colour
`c0` to `c11`, `grid`, `midline`, `base`, `area`, `whisker`, `dot`, and for text `heading`, `axis`, `tick`, `small` with
`mid` or `end` for its anchor. `standalone` adds a style sheet to a chart that is a file of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.floating[Any]]

#: Number of colours of lines and bars; a later line reuses a colour with another dash.
COLOURS = 12
_DASHES = ("", "7 3", "2 2.5", "9 3 2 3")
_PALETTE = (
    *("#0b62a8", "#c4520c", "#00805c", "#a8437f", "#7a6200", "#5b4bb8"),
    *("#b0243a", "#3f6b7f", "#6b4423", "#444b53", "#00757f", "#8f3fb0"),
)
_STYLE = (
    "svg{background:#fff}text{fill:#1b1f24;font:11px sans-serif}.heading{font-size:13px;font-weight:600}"
    ".tick,.small{fill:#57606a}.small{font-size:8px}.mid{text-anchor:middle}.end{text-anchor:end}"
    ".grid{stroke:#d5dae0;fill:none}.base,.midline{stroke:#57606a;fill:none}.midline{stroke-dasharray:3 3}"
    ".line{fill:none;stroke-width:2;stroke-linejoin:round}"
    + "".join(f".line.c{n}{{stroke:{colour}}}.bar.c{n}{{fill:{colour}}}" for n, colour in enumerate(_PALETTE))
)


@dataclass(frozen=True)
class Line:
    """One line of a chart."""

    name: str
    """Name in the legend and in the tooltip."""
    x: ArrayLike
    """Horizontal coordinates, (N,)."""
    y: ArrayLike
    """Vertical coordinates, (N,)."""
    style: int = 0
    """Number of its colour and dash."""


@dataclass(frozen=True)
class Scale:
    """A linear map from values to pixels."""

    low: float
    high: float
    start: float
    """Pixel of `low`."""
    end: float
    """Pixel of `high`."""

    def __call__(self, value: float) -> float:
        """Return the pixel of a value; the middle if the range is empty."""
        fraction = 0.5 if self.high == self.low else (value - self.low) / (self.high - self.low)
        return self.start + (self.end - self.start) * fraction


def chart(width: float, height: float, body: str, title: str, description: str = "") -> str:
    """Return an SVG element with a title and, for screen readers, a description."""
    described = f"<desc>{escape(description)}</desc>" if description else ""
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(title)}" '
        f'style="max-width:{width:g}px">{described}{body}</svg>'
    )


def standalone(element: str) -> str:
    """Return the text of an SVG file with one chart in it."""
    head, _, body = element.partition(">")
    return f'{head} xmlns="http://www.w3.org/2000/svg"><style>{_STYLE}</style>{body}\n'


def ticks(low: float, high: float) -> list[float]:
    """Return about five round numbers between two ends."""
    if high <= low:
        return [low]
    raw = (high - low) / 5
    size: float = 10 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw)
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def line_chart(
    lines: Sequence[Line],
    title: str,
    x_label: str,
    y_label: str = "",
    description: str = "",
    *,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    x_ticks: Sequence[float] | None = None,
    y_ticks: Sequence[float] | None = None,
    percent: bool = False,
    diagonal: bool = False,
    legend: bool = False,
    size: tuple[float, float] = (330, 330),
) -> str:
    """Draw lines over two axes.

    Args:
        lines: The lines; the first lies on top.
        title: Heading of the chart.
        x_label: Label under the horizontal axis.
        y_label: Label beside the vertical axis.
        description: What the chart shows, for screen readers.
        x_range: Ends of the horizontal axis.
        y_range: Ends of the vertical axis.
        x_ticks: Values with a grid line; None chooses round numbers.
        y_ticks: The same for the vertical axis.
        percent: Label ticks in percent.
        diagonal: Draw a dashed line from the lower left to the upper right corner.
        legend: List the names on the right.
        size: Width and height of the area between the axes in pixels.
    """
    left, top, (width, height) = 56, 26, size
    right = left + width + (190 if legend else 14)
    x, y = Scale(*x_range, left, left + width), Scale(*y_range, top + height, top)
    factor = 100 if percent else 1
    parts = [text(left, 15, title, "heading")]
    for tick in ticks(*x_range) if x_ticks is None else x_ticks:
        parts.append(path(f"M{x(tick):g} {top}v{height:g}", "grid"))
        parts.append(text(x(tick), top + height + 15, f"{factor * tick:g}", "tick mid"))
    for tick in ticks(*y_range) if y_ticks is None else y_ticks:
        parts.append(path(f"M{left} {y(tick):g}h{width:g}", "grid"))
        parts.append(text(left - 6, y(tick) + 4, f"{factor * tick:g}", "tick end"))
    parts.append(text(left + width / 2, top + height + 34, x_label, "axis mid"))
    if y_label:
        transform = f"translate(12 {top + height / 2:g}) rotate(-90)"
        parts.append(f'<text class="axis mid" transform="{transform}">{escape(y_label)}</text>')
    if diagonal:
        parts.append(path(f"M{left} {top + height:g}L{left + width:g} {top}", "midline"))
    for line in reversed(lines):
        points = np.stack([np.asarray(line.x, np.float64), np.asarray(line.y, np.float64)], axis=1)
        pixels = [(round(x(a), 1), round(y(b), 1)) for a, b in points.tolist()]
        parts.append(path(_outline(pixels), f"line c{line.style % COLOURS}", _dash(line.style), line.name))
    if legend:
        for row, line in enumerate(lines):
            down = top + 10 + 18 * row
            parts.append(path(f"M{left + width + 12:g} {down}h16", f"line c{line.style % COLOURS}", _dash(line.style)))
            parts.append(text(left + width + 34, down + 4, line.name, "axis"))
    return chart(right, top + height + 44, "".join(parts), title, description)


def bar_chart(
    groups: Sequence[str],
    series: Sequence[tuple[int, str, Sequence[float]]],
    title: str,
    description: str = "",
    *,
    midline: bool = False,
) -> str:
    """Draw groups of horizontal bars from 0 to 100 percent.

    Args:
        groups: Names of the groups; a group without any number is left out.
        series: Number of its colour, name, and a fraction for each group or nan.
        title: Heading of the chart.
        description: What the chart shows, for screen readers.
        midline: Mark 50 percent with a dashed line.
    """
    rows = [row for row in range(len(groups)) if not all(math.isnan(values[row]) for _, _, values in series)]
    longest = min(max(len(name) for name in groups), 36)
    left, top, width, bar = 16 + 6.6 * longest, 40, 560, 9
    group_height = bar * len(series) + 12
    height = group_height * len(rows)
    parts = [text(0, 15, title, "heading")]
    for tick in (0, 25, 50, 75, 100):
        x = left + width * tick / 100
        parts.append(path(f"M{x:g} {top - 4}v{height + 4}", "midline" if midline and tick == 50 else "grid"))
        parts.append(text(x, top - 9, f"{tick}", "tick mid"))
    for number, row in enumerate(rows):
        group, start = groups[row], top + number * group_height + 6
        name = group if len(group) <= longest else f"{group[: longest - 1]}…"
        parts.append(text(left - 8, start + (group_height - 12) / 2 + 4, name, "axis end"))
        for line, (style, label, values) in enumerate(series):
            value, y = values[row], start + line * bar
            if math.isnan(value):
                continue
            parts.append(
                f'<rect class="bar c{style % COLOURS}" x="{left:g}" y="{y:g}" width="{max(width * value, 0.5):.1f}" '
                f'height="{bar - 2}"><title>{escape(f"{group}, {label}: {100 * value:.1f}")}</title></rect>'
            )
            parts.append(text(left + width * value + 4, y + 7, f"{100 * value:.0f}", "small"))
    return chart(left + width + 30, top + height + 6, "".join(parts), title, description)


def histograms(
    heights: Sequence[tuple[str, Floats]], x_range: tuple[float, float], title: str, x_label: str, description: str = ""
) -> str:
    """Draw histograms over one axis.

    Args:
        heights: CSS class of each histogram, and the heights of its bins.
        x_range: Ends of the horizontal axis.
        title: Heading of the chart.
        x_label: Label under the horizontal axis.
        description: What the chart shows, for screen readers.
    """
    left, top, width, height = 8, 26, 284, 110
    tallest = max(1e-9, *(float(values.max(initial=0)) for _, values in heights))
    parts = [text(left, 15, title, "heading")]
    for kind, values in heights:
        step = width / len(values)
        steps = "".join(f"V{top + height * (1 - value / tallest):.1f}h{step:.2f}" for value in values)
        parts.append(path(f"M{left} {top + height}{steps}V{top + height}z", f"area {kind}"))
    parts.append(path(f"M{left} {top + height}h{width}", "base"))
    parts.append(text(left, top + height + 15, f"{x_range[0]:.3g}", "tick"))
    parts.append(text(left + width / 2, top + height + 15, x_label, "axis mid"))
    parts.append(text(left + width, top + height + 15, f"{x_range[1]:.3g}", "tick end"))
    return chart(left + width + 8, top + height + 22, "".join(parts), title, description)


def swatch(style: int, *, bar: bool = False) -> str:
    """Return a short piece of a line or bar, for legends in HTML."""
    colour = f"c{style % COLOURS}"
    line = path("M1 5h24", f"line {colour}", _dash(style))
    mark = f'<rect class="bar {colour}" y="1" width="24" height="8"/>' if bar else line
    return f'<svg class="swatch" viewBox="0 0 26 10" width="26" height="10" aria-hidden="true">{mark}</svg>'


def interval(value: float, low: float, high: float) -> str:
    """Draw a fraction with its 95 percent interval from 0 to 1, for a cell of a table; "" if the value is nan."""
    if math.isnan(value):
        return ""
    words = f"{100 * value:.1f} percent"
    parts = [path("M4 12h152", "grid"), path("M80 2v20", "midline")]
    if not math.isnan(low):
        words += f", 95 percent interval {100 * low:.1f} to {100 * high:.1f}"
        parts.append(path(f"M{4 + 152 * low:.1f} 12H{4 + 152 * high:.1f}", "whisker"))
    parts.append(f'<circle class="dot" cx="{4 + 152 * value:.1f}" cy="12" r="4.5"/>')
    return (
        f'<svg class="interval" viewBox="0 0 160 24" width="160" height="24" role="img" aria-label="{words}">'
        f"{''.join(parts)}</svg>"
    )


def interval_axis() -> str:
    """Draw the axis of `interval`, for the head of its column."""
    labels = "".join(text(x, 11, tick, f"tick {kind}") for x, tick, kind in ((4, "0", ""), (80, "50", "mid")))
    labels += text(156, 11, "100", "tick end")
    return f'<svg class="interval" viewBox="0 0 160 14" width="160" height="14" aria-hidden="true">{labels}</svg>'


def colour_bar(low: float, high: float, colours: Sequence[tuple[int, int, int]]) -> str:
    """Draw the colour bar of heatmaps, with the values at its ends; `colours` are RGB from 0 to 255."""
    step = 160 / len(colours)
    cells = "".join(
        f'<rect x="{50 + number * step:.2f}" width="{step + 0.5:.2f}" height="12" fill="rgb({red},{green},{blue})"/>'
        for number, (red, green, blue) in enumerate(colours)
    )
    return (
        '<svg class="scale" viewBox="0 0 260 14" width="260" height="14" role="img" '
        f'aria-label="colours from {low:.3g} to {high:.3g}">{cells}'
        f"{text(46, 11, f'{low:.3g}', 'tick end')}{text(214, 11, f'{high:.3g}', 'tick')}</svg>"
    )


def text(x: float, y: float, words: str, kind: str) -> str:
    """Return a text element with CSS classes."""
    return f'<text class="{kind.strip()}" x="{x:g}" y="{y:g}">{escape(words)}</text>'


def path(data: str, kind: str, attributes: str = "", title: str = "") -> str:
    """Return a path element with CSS classes and, if given, a tooltip."""
    tooltip = f"><title>{escape(title)}</title></path>" if title else "/>"
    return f'<path class="{kind}"{attributes} d="{data}"{tooltip}'


def _dash(style: int) -> str:
    dash = _DASHES[style % len(_DASHES)]
    return f' stroke-dasharray="{dash}"' if dash else ""


def _outline(points: Sequence[tuple[float, float]]) -> str:
    """Return the path data of a line; repeated points and points on a straight stretch are left out."""
    corners: list[tuple[float, float]] = []
    for point in points:
        if corners and point == corners[-1]:
            continue
        if len(corners) > 1:
            (x0, y0), (x1, y1) = corners[-2:]
            before, after = (x1 - x0, y1 - y0), (point[0] - x1, point[1] - y1)
            is_straight = abs(before[0] * after[1] - before[1] * after[0]) <= 1e-9
            if is_straight and before[0] * after[0] + before[1] * after[1] > 0:
                corners.pop()
        corners.append(point)
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in corners) if corners else ""
