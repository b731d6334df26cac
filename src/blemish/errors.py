"""The exceptions of blemish.

    BlemishError
    ├── UsageError       unknown names, bad options, missing paths (exit code 2 on the command line)
    ├── ImageError       a picture that cannot be read
    ├── WeightsError     a checkpoint that cannot be used
    ├── ProfileError     a profile that cannot be used
    └── OutputError      a result that cannot be written

Each message is one sentence that says what is wrong and what to do about it.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable


class BlemishError(Exception):
    """Base of everything that blemish raises on purpose."""


class UsageError(BlemishError):
    """What was asked for does not exist or does not fit together."""


class _FileError(BlemishError):
    """A problem with one file; `path` names it where it has a name."""

    def __init__(self, message: str, path: str | os.PathLike[str] | None = None) -> None:
        super().__init__(message)
        self.path = None if path is None else os.fspath(path)


class ImageError(_FileError):
    """A picture that is missing, unreadable, truncated or too large."""


class WeightsError(_FileError):
    """A checkpoint that is missing, damaged, unsafe, or of another model than was asked for."""


class ProfileError(_FileError):
    """A profile that is damaged, or was made with another model, method or preprocessing."""


class OutputError(_FileError):
    """A result that cannot be written."""


def suggest(word: str, known: Iterable[str]) -> str:
    """Return the hint " (did you mean X or Y?)" for a misspelt word, or "" if no known word is close."""
    close = difflib.get_close_matches(word, list(known), n=3, cutoff=0.5)
    return f" (did you mean {' or '.join(close)}?)" if close else ""
