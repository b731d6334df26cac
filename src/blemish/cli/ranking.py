"""Results for a person: the ranking on the terminal, counts of verdicts, CSV on standard output."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from blemish.cli.console import columns, count, note, one_line

if TYPE_CHECKING:
    from blemish.outputs.results import Result

#: Rows of the ranking on a terminal; a pipe gets all.
MAX_ROWS = 25


def ranking(results: Iterable[Result], *, p_values: bool) -> str:
    """Return the results as a table, the highest score first; a terminal gets the first rows."""
    ranked = sorted(results, key=lambda result: (-result.score, result.path))
    listed = ranked[:MAX_ROWS] if sys.stdout.isatty() else ranked
    rows = [("RANK", "SCORE", *["P-VALUE"] * p_values, "VERDICT", "PICTURE")]
    for rank, result in enumerate(listed, 1):
        odd = ["-" if result.p_value is None else f"{result.p_value:.3f}"] * p_values
        rows.append((str(rank), f"{result.score:.4f}", *odd, result.verdict or "-", one_line(result.path)))
    rest = len(ranked) - len(listed)
    return columns(rows, right=(0, 1, 2) if p_values else (0, 1)) + (f"\n... and {rest:,} more" * (rest > 0)) + "\n"


def verdicts(counts: Mapping[str | None, int], *, review: bool) -> str:
    """Return how many pictures have each verdict, as words."""
    middle = f"{counts.get('review', 0):,} to review, " if review or counts.get("review") else ""
    return f"{counts.get('reject', 0):,} rejected, {middle}{counts.get('pass', 0):,} passed"


def print_csv(lines: Iterable[Mapping[str, Any]]) -> None:
    """Print the table of `results.csv`, the highest score first and the failures last."""
    from blemish.outputs.tables import csv_text

    ranked = sorted(lines, key=lambda line: -1.0 if line.get("score") is None else line["score"], reverse=True)
    for text in csv_text(ranked):
        sys.stdout.write(text)


def note_failures(failures: Mapping[str, str], scored: int) -> None:
    """Say how many pictures could not be scored, and name them."""
    if failures:
        note(f"{total_failures(len(failures), scored)}:")
        name_failures(failures, indent="  ")


def name_failures(failures: Mapping[str, str], *, indent: str = "") -> None:
    """Name each picture that could not be scored, and why."""
    for path, reason in failures.items():
        note(f"{indent}{one_line(path)}: {one_line(reason)}")


def total_failures(failed: int, scored: int) -> str:
    """Return how many pictures failed, and how many of all were scored."""
    return f"{count(failed, 'picture')} failed, {scored:,} of {scored + failed:,} scored"


def counted(results: Iterable[Result]) -> Counter[str | None]:
    """Return how many results have each verdict."""
    return Counter(result.verdict for result in results)
