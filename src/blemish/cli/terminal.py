"""Texts on the terminal: names of files and words from inside them may hold control characters, which command it."""

from __future__ import annotations

import re
from typing import IO, Any

#: Control characters but line breaks and tabs, and those that turn the direction of writing.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def escape(text: str) -> str:
    """Return a text with its control characters escaped: `\\x1b` for ESC. Line breaks and tabs stay."""
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)


class EscapingStream:
    """A text stream that escapes what `print` writes, and is the stream itself in all else."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(escape(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
