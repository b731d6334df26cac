"""Charts as SVG, made by hand: colours are classes of the page's style, and every chart has words for a listener."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from itertools import count

from blemish.report.curves import Curve, Floats

#: Lines and bars that look different; the page's style has as many colours.
STYLES = 12
_TICKS = ((0, ""), (50, "mid"), (100, "end"))
_DASHES = ("", "7 3", "2 2.5", "9 3 2 3")
_numbers = count(1)


def svg(width: float, height: float, body: str, title: str, words: str) -> str:
    """A chart with its title and a description."""
    number = next(_numbers)
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-labelledby="t{number} d{number}" '
        f'style="max-width:{width:g}px"><title id="t{number}">{escape(title)}</title>'
        f'<desc id="d{number}">{escape(words)}</desc>{body}</svg>'
    )


def curves(lines: Sequence[tuple[int, str, Curve]], title: str, x: str, y: str, words: str, *, chance: bool) -> str:
    """Curves in the unit square.

    Args:
        lines: (place of its style, name, curve).
        title: Above the chart.
        x: Under the horizontal axis.
        y: At the vertical axis.
        words: What is to be seen, for those who listen.
        chance: Draw the diagonal.
    """
    left, top, side, bottom = 46, 26, 330, 44
    parts = [_text(left, 15, title, "h")]
    for tick in (0, 0.25, 0.5, 0.75, 1):
        across, down = left + tick * side, top + (1 - tick) * side
        parts.append(f'<path class="grid" d="M{across:g} {top}v{side}M{left} {down:g}h{side}"/>')
        parts.append(_text(across, top + side + 15, f"{100 * tick:g}", "tick mid"))
        parts.append(_text(left - 6, down + 4, f"{100 * tick:g}", "tick end"))
    parts.append(_text(left + side / 2, top + side + 34, x, "axis mid"))
    parts.append(f'<text class="axis mid" transform="translate(12 {top + side / 2:g}) rotate(-90)">{escape(y)}</text>')
    if chance:
        parts.append(f'<path class="chance" d="M{left} {top + side}L{left + side} {top}"/>')
    for place, name, curve in reversed(lines):  # the first lies on top
        path = _path(left + curve.x * side, top + (1 - curve.y) * side)
        parts.append(
            f'<path class="line c{place % STYLES}"{_dash(place)} d="{path}"><title>{escape(name)}</title></path>'
        )
    return svg(left + side + 14, top + side + bottom, "".join(parts), title, words)


def swatch(place: int, *, bar: bool = False) -> str:
    """A short piece of a method's line or bar, for legends."""
    line = f'<path class="line c{place % STYLES}"{_dash(place)} d="M1 5h24"/>'
    piece = f'<rect class="bar c{place % STYLES}" y="1" width="24" height="8"/>' if bar else line
    return f'<svg class="swatch" viewBox="0 0 26 10" width="26" height="10" aria-hidden="true">{piece}</svg>'


def interval(value: float, low: float, high: float) -> str:
    """A value with its interval on a scale from 0 to 1, chance marked; for a cell of a table."""
    if math.isnan(value):
        return ""
    words = f"{100 * value:.1f} percent"
    parts = ['<path class="grid" d="M4 12h152"/><path class="chance" d="M80 2v20"/>']
    if not math.isnan(low):
        words += f", 95 percent interval {100 * low:.1f} to {100 * high:.1f}"
        parts.append(f'<path class="whisker" d="M{4 + 152 * low:.1f} 12H{4 + 152 * high:.1f}"/>')
    parts.append(f'<circle class="dot" cx="{4 + 152 * value:.1f}" cy="12" r="4.5"/>')
    return (
        f'<svg class="interval" viewBox="0 0 160 24" width="160" height="24" role="img" aria-label="{words}">'
        f"{''.join(parts)}</svg>"
    )


def axis() -> str:
    """The scale of `interval`, for the head of its column."""
    ticks = "".join(_text(4 + 152 * tick / 100, 11, f"{tick}", f"tick {kind}") for tick, kind in _TICKS)
    return f'<svg class="interval" viewBox="0 0 160 14" width="160" height="14" aria-hidden="true">{ticks}</svg>'


def histogram(normal: Floats, anomalous: Floats, low: float, high: float, title: str, words: str) -> str:
    """Two histograms over one axis: shares of the normal and of the anomalous pictures."""
    left, top, width, height = 8, 26, 284, 110
    tallest = max(float(normal.max(initial=0)), float(anomalous.max(initial=0)), 1e-9)
    parts = [_text(left, 15, title, "h")]
    for heights, kind in ((normal, "normal"), (anomalous, "anomalous")):
        step = width / len(heights)
        points, across = [f"M{left} {top + height}"], float(left)
        for share in heights:
            points.append(f"V{top + height * (1 - share / tallest):.1f}h{step:.2f}")
            across += step
        parts.append(f'<path class="area {kind}" d="{"".join(points)}V{top + height}z"/>')
    parts.append(f'<path class="base" d="M{left} {top + height}h{width}"/>')
    parts.append(_text(left, top + height + 15, f"{low:.3g}", "tick"))
    parts.append(_text(left + width / 2, top + height + 15, "score", "axis mid"))
    parts.append(_text(left + width, top + height + 15, f"{high:.3g}", "tick end"))
    return svg(left + width + 8, top + height + 22, "".join(parts), title, words)


def bars(
    groups: Sequence[str], series: Sequence[tuple[int, str, Sequence[float]]], title: str, words: str, *, chance: bool
) -> str:
    """Horizontal bars from 0 to 100, a group for each category.

    Args:
        groups: Names of the categories; those without a number are left out.
        series: (place of its style, name, a fraction for each category or nan).
        title: Above the chart.
        words: What is to be seen, for those who listen.
        chance: Mark 50.
    """
    rows = [row for row in range(len(groups)) if not all(math.isnan(values[row]) for _, _, values in series)]
    longest = min(max(len(name) for name in groups), 36)
    left, top, width, bar = 16 + 6.6 * longest, 40, 560, 9
    tall = bar * len(series) + 12
    height = tall * len(rows)
    parts = [_text(0, 15, title, "h")]
    for tick in (0, 25, 50, 75, 100):
        across = left + width * tick / 100
        kind = "chance" if chance and tick == 50 else "grid"
        parts.append(f'<path class="{kind}" d="M{across:g} {top - 4}v{height + 4}"/>')
        parts.append(_text(across, top - 9, f"{tick}", "tick mid"))
    for order, row in enumerate(rows):
        group, place = groups[row], top + order * tall + 6
        name = group if len(group) <= longest else f"{group[: longest - 1]}…"
        parts.append(_text(left - 8, place + (tall - 12) / 2 + 4, name, "axis end"))
        for line, (style, method, values) in enumerate(series):
            value, down = values[row], place + line * bar
            if math.isnan(value):
                continue
            parts.append(
                f'<rect class="bar c{style % STYLES}" x="{left:g}" y="{down:g}" width="{max(width * value, 0.5):.1f}" '
                f'height="{bar - 2}"><title>{escape(f"{group}, {method}: {100 * value:.1f}")}</title></rect>'
            )
            parts.append(_text(left + width * value + 4, down + 7, f"{100 * value:.0f}", "small"))
    return svg(left + width + 30, top + height + 6, "".join(parts), title, words)


def scale(low: float, high: float, colours: Sequence[tuple[int, int, int]]) -> str:
    """The colour bar of heatmaps, with its ends."""
    number = next(_numbers)
    last = len(colours) - 1
    stops = "".join(
        f'<stop offset="{place / last:.3f}" stop-color="rgb({red},{green},{blue})"/>'
        for place, (red, green, blue) in enumerate(colours)
    )
    return (
        f'<svg class="scale" viewBox="0 0 260 14" width="260" height="14" role="img" '
        f'aria-label="colours from {low:.3g} to {high:.3g}"><defs><linearGradient id="g{number}">{stops}'
        f'</linearGradient></defs><rect x="50" width="160" height="12" fill="url(#g{number})"/>'
        f"{_text(46, 11, f'{low:.3g}', 'tick end')}{_text(214, 11, f'{high:.3g}', 'tick')}</svg>"
    )


def _dash(place: int) -> str:
    dash = _DASHES[place % len(_DASHES)]
    return f' stroke-dasharray="{dash}"' if dash else ""


def _text(x: float, y: float, words: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{escape(words)}</text>'


def _path(x: Floats, y: Floats) -> str:
    """A line to a tenth of a pixel; points on a straight stretch are left out."""
    points = list(dict.fromkeys(zip(x.round(1).tolist(), y.round(1).tolist(), strict=True)))
    kept = points[:1]
    for before, here, after in zip(points, points[1:], points[2:], strict=False):
        turn = (here[0] - before[0]) * (after[1] - here[1]) - (here[1] - before[1]) * (after[0] - here[0])
        if abs(turn) > 1e-9:
            kept.append(here)
    kept += points[-1:] if len(points) > 1 else []
    return "M" + "L".join(f"{across:g} {down:g}" for across, down in kept)
