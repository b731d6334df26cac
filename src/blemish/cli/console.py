"""What the commands share on the terminal: notes on standard error, columns, and a progress bar."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, TypeAlias

from cyclopts import Group, Parameter, Token

from blemish.cli.terminal import escape
from blemish.errors import UsageError, suggest
from blemish.files import parse_json
from blemish.types import ValueRange, parse_threshold, parse_value_range


def _threshold(_: object, tokens: Sequence[Token]) -> float:
    return parse_threshold(tokens[0].keyword or "the threshold", tokens[0].value)


def _value_range(_: object, tokens: Sequence[Token]) -> ValueRange:
    return parse_value_range(tokens[0].keyword or "the range of values", tokens[0].value)


Range: TypeAlias = Annotated[Any, Parameter(converter=_value_range, n_tokens=1)]
"""An option that takes two numbers (`0,4095`)."""

Threshold: TypeAlias = Annotated[float | None, Parameter(converter=_threshold)]
"""An option that takes a number from 0 to 1 or a percentage (`0.8`, `80%`)."""


#: Groups of options in `--help`, in this order.
VERDICTS, CHANGES, METHOD_OPTIONS, PICTURES, RESULTS, COMPUTING = (
    Group.create_ordered(name)
    for name in ("Verdicts", "Changing a profile", "Method and model", "Reading pictures", "Results", "Computing")
)


def note(sentence: str) -> None:
    """Print what is not a result on standard error, so that pipes stay clean."""
    print(escape(sentence), file=sys.stderr)


def print_json(value: Any) -> None:
    """Print one JSON value on one line, unbuffered, for a reader at the other end of a pipe."""
    print(json.dumps(value, allow_nan=False), flush=True)


def columns(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Lay out rows in columns separated by two blanks; the first row is the head.

    Args:
        rows: Cells, equally many in each row.
        right: Columns that are aligned to the right (numbers).
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def choices(option: str, words: str, known: Sequence[str]) -> list[str]:
    """Split a comma-separated list and check each word.

    Raises:
        UsageError: A word is not in `known`; the closest one is named.
    """
    chosen = list(dict.fromkeys(word.strip() for word in words.split(",") if word.strip()))
    for word in chosen:
        if word not in known:
            raise UsageError(
                f"{option} does not know {word!r}{suggest(word, known)}. "
                f"It takes a comma-separated list of {', '.join(known)}."
            )
    return chosen


def config_changes(text: str | None) -> dict[str, Any]:
    """Return the fields that --config changes. Raises UsageError unless it is a JSON object."""
    try:
        changes = parse_json(text) if text else {}
    except ValueError as error:
        raise UsageError(f"--config is not JSON ({error}); write it like '{{\"size\": 336}}'") from error
    if not isinstance(changes, dict):
        raise UsageError("--config must be a JSON object; write it like '{\"size\": 336}'")
    return changes


def one_line(path: str) -> str:
    """Return a path on one line: line breaks and control characters are escaped."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in path)


def count(n: int, noun: str) -> str:
    """Return `1 picture`, `2 pictures`."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


class Bar:
    """A progress bar; calling it advances it by a picture."""

    def __init__(self, advance: Callable[[], object] = lambda: None, show: Callable[[str], object] = lambda _: None):
        self._advance, self.show = advance, show
        """`show` prints a line above the bar."""

    def __call__(self) -> None:
        self._advance()


@contextmanager
def progress(total: int, label: str) -> Iterator[Bar]:
    """Show a bar on standard error while the block runs, if that is a terminal; yield what advances it."""
    if not sys.stderr.isatty():
        yield Bar()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    # The time left follows from the pictures of the last two minutes; before the first one there is none.
    left = TimeRemainingColumn(compact=True)
    parts = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        left,
    ]
    with Progress(*parts, console=Console(stderr=True), transient=True, speed_estimate_period=120) as bar:
        task = bar.add_task(label, total=total)
        show = functools.partial(bar.console.print, markup=False, highlight=False)
        yield Bar(lambda: bar.advance(task), lambda text: show(escape(text)))


@contextmanager
def waiting(label: str) -> Iterator[None]:
    """Say on standard error what takes a while, if that is a terminal, as long as the block runs."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(label):
        yield
