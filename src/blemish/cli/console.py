"""What the commands share on the terminal: notes on standard error, columns, and a progress bar."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from blemish.errors import UsageError, suggest


def note(sentence: str) -> None:
    """Say something that is not a result: on standard error, so that pipes stay clean."""
    print(sentence, file=sys.stderr)


def print_json(value: Any) -> None:
    """Print one JSON value on one line, at once: a reader on the other end of a pipe should not wait for a buffer."""
    print(json.dumps(value, allow_nan=False), flush=True)


def columns(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Lay rows out in columns divided by two blanks; the first row is the head.

    Args:
        rows: Cells, equally many in each row.
        right: Columns whose cells are pushed to the right (numbers).
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def choices(option: str, given: str, known: Sequence[str]) -> list[str]:
    """Split a comma list and check each word.

    Raises:
        UsageError: A word is not among `known`; the closest one is named.
    """
    words = list(dict.fromkeys(word.strip() for word in given.split(",") if word.strip()))
    for word in words:
        if word not in known:
            raise UsageError(
                f"{option} does not know {word!r}{suggest(word, known)}. It takes a comma-separated list of {', '.join(known)}."
            )
    return words


def recipe_changes(given: str | None) -> dict[str, Any]:
    """The fields that --config changes. Raises UsageError unless it is a JSON object."""
    try:
        changes = json.loads(given) if given else {}
    except ValueError as error:
        raise UsageError(f"--config is no JSON ({error}); write it like '{{\"size\": 336}}'") from error
    if not isinstance(changes, dict):
        raise UsageError("--config is a JSON object; write it like '{\"size\": 336}'")
    return changes


def shown(path: str) -> str:
    """A path on one line, whatever its owner put into it: line breaks and control characters are escaped."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in path)


def count(n: int, noun: str) -> str:
    """`1 picture`, `2 pictures`."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


@contextmanager
def progress(total: int, label: str) -> Iterator[Callable[[], None]]:
    """Show a bar on standard error while the block runs, if that is a terminal; yields what moves it on."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    shown = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Progress(*shown, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda: bar.advance(task)
