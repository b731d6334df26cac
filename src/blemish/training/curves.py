"""Loss curves as a picture: an SVG made by hand, which every browser shows and no library is needed for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT = 760, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 190, 40, 48
#: Points of a curve; longer runs are averaged over pieces of equal length.
_POINTS = 400
_COLOURS = ("#111111", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#8a6d00")


def scalars(losses: Mapping[str, Any]) -> dict[str, float]:
    """The losses of one step, "total" first; one that has a value for each layer as their sum."""
    named = {
        name: math.fsum(value) if isinstance(value, (list, tuple)) else float(value)
        for name, value in losses.items()
        if name not in ("step", "epoch")
    }
    return {"total": named.pop("total"), **named} if "total" in named else named


def draw(records: Sequence[Mapping[str, Any]], title: str = "") -> str:
    """An SVG with a curve for each loss over the steps.

    Args:
        records: of each step, as `train` returns them and writes them to `losses.jsonl`.
        title: above the curves.
    """
    pieces = _pieces(records)
    names = list(dict.fromkeys(name for _, losses in pieces for name in losses))
    values = [losses[name] for _, losses in pieces for name in losses]
    low, high = min([0.0, *values]), max(values, default=1.0)
    high = high if high > low else low + 1.0
    first, last = (pieces[0][0], pieces[-1][0]) if pieces else (0.0, 1.0)
    across, down = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM

    def x(step: float) -> float:
        return _LEFT + across * (0.5 if last == first else (step - first) / (last - first))

    def y(value: float) -> float:
        return _TOP + down * (high - value) / (high - low)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{_LEFT}" y="24" font-size="14">{escape(title)}</text>',
    ]
    for tick in _ticks(low, high):
        out.append(f'<path d="M{_LEFT} {y(tick):.1f}H{WIDTH - _RIGHT}" stroke="#dddddd"/>')
        out.append(f'<text x="{_LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in _ticks(first, last):
        out.append(f'<text x="{x(tick):.1f}" y="{HEIGHT - _BOTTOM + 18}" text-anchor="middle">{tick:g}</text>')
    out.append(f'<text x="{_LEFT + across / 2}" y="{HEIGHT - 10}" text-anchor="middle">step</text>')
    for number, name in enumerate(names):
        colour = _COLOURS[number % len(_COLOURS)]
        points = " ".join(f"{x(step):.1f},{y(losses[name]):.1f}" for step, losses in pieces if name in losses)
        out.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{2 if name == "total" else 1}"/>'
        )
        end = next(losses[name] for _, losses in reversed(pieces) if name in losses)
        row = _TOP + 14 + 18 * number
        out.append(f'<path d="M{WIDTH - _RIGHT + 12} {row - 4}h16" stroke="{colour}" stroke-width="2"/>')
        out.append(f'<text x="{WIDTH - _RIGHT + 34}" y="{row}">{escape(name)} {end:.4g}</text>')
    return "\n".join([*out, "</svg>", ""])


def _pieces(records: Sequence[Mapping[str, Any]]) -> list[tuple[float, dict[str, float]]]:
    """Means over at most `_POINTS` runs of steps: (middle step, losses)."""
    length = max(1, math.ceil(len(records) / _POINTS))
    pieces = []
    for start in range(0, len(records), length):
        part = records[start : start + length]
        losses = [scalars(record) for record in part]
        means = {name: math.fsum(one[name] for one in losses) / len(losses) for name in losses[0]}
        pieces.append((math.fsum(record["step"] for record in part) / len(part), means))
    return pieces


def _ticks(low: float, high: float) -> list[float]:
    """Four to ten round numbers."""
    if high <= low:
        return [low]
    raw = (high - low) / 5
    size = 10 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw)
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]
