"""One line of the table of speeds, and the table as Markdown and as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from interleaved import Ratio

_WIDTH, _LEFT, _ROW, _TOP = 980, 430, 20, 44
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#8a6d00", "#111111")


@dataclass(frozen=True)
class Row:
    """What was measured once."""

    section: str
    what: str
    value: float
    """The median over the rounds."""
    unit: str
    """"s", "MB"; empty for a share."""
    ratio: Ratio | None
    """What it is compared with, over it or under it, as `note` says; None where there is nothing to compare."""
    note: str
    asked: float | None = None
    """What the ratio has to be at least."""


def markdown(rows: Sequence[Row]) -> str:
    """A table for each section."""
    lines = []
    for section in dict.fromkeys(row.section for row in rows):
        lines += [f"\n**{section}**\n", "| what | measured | ratio | |", "| --- | --- | --- | --- |"]
        for row in rows:
            if row.section == section:
                found = "" if row.ratio is None else str(row.ratio)
                lines.append(f"| {row.what} | {_measured(row)} | {found} | {row.note} |")
    return "\n".join(lines).strip() + "\n"


def _measured(row: Row) -> str:
    return f"{row.value:.1%}" if row.unit == "" else f"{row.value:.3g} {row.unit}"


def draw(rows: Sequence[Row], title: str) -> str:
    """An SVG with a bar for each ratio on a logarithmic scale, and a line from the least to the greatest."""
    shown = [(row, row.ratio) for row in rows if row.ratio is not None]
    sections = list(dict.fromkeys(row.section for row, _ in shown))
    least = min(0.5, *(found.low for _, found in shown))
    most = max(2.0, *(found.high for _, found in shown))
    height = _TOP + _ROW * len(shown) + 40

    def x(value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - 90) * math.log(value / least) / math.log(most / least)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="12" y="24" font-size="14">{escape(title)}</text>',
    ]
    for power in range(math.ceil(math.log2(least)), math.floor(math.log2(most)) + 1):
        place = x(2.0**power)
        out.append(
            f'<path d="M{place:.1f} {_TOP - 6}V{height - 30}" stroke="{"#888888" if power == 0 else "#dddddd"}"/>'
        )
        out.append(f'<text x="{place:.1f}" y="{height - 14}" text-anchor="middle">{2.0**power:g}</text>')
    for number, (row, found) in enumerate(shown):
        middle = _TOP + _ROW * number + 8
        start, end = sorted((x(1.0), x(found.median)))
        colour = _COLOURS[sections.index(row.section) % len(_COLOURS)]
        out.append(
            f'<text x="{_LEFT - 8}" y="{middle + 4}" text-anchor="end">{escape(f"{row.section}: {row.what}")}</text>'
        )
        out.append(
            f'<rect x="{start:.1f}" y="{middle - 6}" width="{end - start:.1f}" height="12" fill="{colour}"/>'
            f'<path d="M{x(found.low):.1f} {middle}H{x(found.high):.1f}" stroke="#000000"/>'
            f'<text x="{max(end, x(found.high)) + 6:.1f}" y="{middle + 4}">{found.median:.2f}</text>'
        )
        if row.asked is not None:
            out.append(f'<path d="M{x(row.asked):.1f} {middle - 8}v16" stroke="#000000" stroke-dasharray="3 2"/>')
    return "\n".join([*out, "</svg>", ""])
