"""One row of the table of speeds, and the table as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from interleaved import Ratio


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
                ratio = "" if row.ratio is None else str(row.ratio)
                lines.append(f"| {row.what} | {_measured(row)} | {ratio} | {row.note} |")
    return "\n".join(lines).strip() + "\n"


def _measured(row: Row) -> str:
    return f"{row.value:.1%}" if row.unit == "" else f"{row.value:.3g} {row.unit}"
