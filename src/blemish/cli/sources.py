"""From the words on the command line to picture files."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blemish.cli import STDIN
from blemish.cli.console import count, one_line
from blemish.errors import UsageError
from blemish.files import absolute, common_root
from blemish.image_io import Every, PassedOver, expand, find_images
from blemish.image_io.find import NoPicturesError

#: Subfolders and kinds of other files that are named; the others are only counted.
_NAMED = 5


@dataclass
class Sources:
    """Pictures to be scored, and what was found besides them.

    Attributes:
        pictures: Each once. Files of a list may not exist.
        times: Seconds from the beginning of the video, by picture; of video frames only.
        left_out: Number of pictures that are results of earlier runs.
        passed_over: What the folders hold besides pictures.
        notes: Sentences on videos.
    """

    pictures: list[Path] = field(default_factory=list)
    times: dict[str, float] = field(default_factory=dict)
    left_out: int = 0
    passed_over: PassedOver = field(default_factory=PassedOver)
    notes: tuple[str, ...] = ()


def collect(
    words: Sequence[str], recursive: bool, out: Path | None, *, pages: bool = False, every: Every | None = None
) -> Sources:
    """Find all pictures, before any is read.

    Args:
        words: Files, folders, patterns; `STDIN` stands for a list on standard input, one file per line (or separated by
            NUL).
        recursive: Search subfolders, too.
        out: Folder of results; pictures in it are results of earlier runs and are left out, unless it is itself given.
        pages: As in `blemish.image_io.expand`.
        every: As in `blemish.image_io.expand`; also takes the videos of folders.

    Raises:
        UsageError: Nothing is given, a path does not exist, a folder or the list is empty.
    """
    if not words:
        raise UsageError("no pictures are given: give files, folders, patterns, or - for a list on standard input")
    results = None if out is None else absolute(out)
    pictures: dict[str, Path] = {}
    sources = Sources()
    for word in words:
        if word == STDIN:
            paths: Iterable[Path] = (path for chunk in listed_on_stdin() for path in chunk)
        else:
            paths = find_images([word], recursive=recursive, passed_over=sources.passed_over, videos=every is not None)
        skip_results = results is not None and (word == STDIN or absolute(word) != results)
        try:
            for path in paths:
                file = absolute(path)
                if skip_results and Path(file).is_relative_to(str(results)):
                    sources.left_out += 1
                    continue
                pictures.setdefault(file, path)
        except NoPicturesError as error:
            raise UsageError(_nothing(error)) from None
    if not pictures:
        raise UsageError("there is nothing to do: all pictures lie in the folder of results")
    expanded = expand(pictures.values(), pages=pages, every=every)
    sources.pictures, sources.times, sources.notes = list(expanded.paths), expanded.times, expanded.notes
    return sources


def listed_on_stdin() -> Iterator[list[Path]]:
    """Yield the files that standard input lists as they come: all complete lines of each read.

    Raises:
        UsageError: Standard input is closed, or the list is empty.
    """
    require_stdin()
    stream: Any = sys.stdin.buffer
    rest, divider, empty = b"", b"", True
    while data := stream.read1(65536):
        rest += data
        if not divider and (b"\0" in rest or b"\n" in rest):
            divider = b"\0" if b"\0" in rest else b"\n"
        if not divider:
            continue
        *lines, rest = rest.split(divider)
        if paths := _paths(lines):
            empty = False
            yield paths
    if paths := _paths(rest.splitlines() if divider != b"\0" else [rest]):
        empty = False
        yield paths
    if empty:
        raise UsageError("the list on standard input is empty")


def require_stdin() -> None:
    """Raise a UsageError if standard input is closed."""
    if sys.stdin is None:
        raise UsageError("standard input is closed, but - asks for a list of pictures on it; give files or folders")


def _paths(lines: Iterable[bytes]) -> list[Path]:
    return [Path(os.fsdecode(line.rstrip(b"\r"))) for line in lines if line.strip()]


def not_read(passed_over: PassedOver) -> str:
    """Return one sentence on what folders hold besides pictures; empty if that is nothing."""
    groups = passed_over.groups()
    parts = [f"{number:,} {one_line(suffix)} ({advice})" for suffix, (number, advice) in groups.items() if advice]
    others = {suffix: number for suffix, (number, advice) in groups.items() if not advice}
    if others:
        names = [one_line(suffix) for suffix in others]
        listed = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
        parts.append(f"{count(sum(others.values()), 'file')} without pictures ({listed})")
    if passed_over.folders:
        names = [one_line(Path(folder).name) for folder in passed_over.folders]
        listed = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
        parts.append(f"{count(len(names), 'subfolder')} ({listed}): --recursive")
    return f"Not read: {'; '.join(parts)}." if parts else ""


def not_read_json(passed_over: PassedOver) -> dict[str, Any]:
    """Return what `not_read` says, for JSON."""
    files = {suffix: {"count": n, "advice": advice or None} for suffix, (n, advice) in passed_over.groups().items()}
    return {"files": files, "subfolders": passed_over.folders, "hidden": passed_over.hidden}


def _nothing(error: NoPicturesError) -> str:
    """Return the sentence for a folder without pictures, with options as they are typed."""
    reason = not_read(error.passed_over)
    return f"{error.folder!r} holds no pictures{f'. {reason}' if reason else '; give another folder'}"


def root_of(words: Sequence[str], pictures: Sequence[Path]) -> Path | None:
    """Return the folder that names of results are relative to: the deepest that holds everything given.

    It depends on the words and not on the pictures, so that a picture added later does not rename the others.
    """
    folders = [_folder(word) for word in words if word != STDIN]
    if len(folders) < len(words):  # a list has no folder of its own
        folders += [path.parent for path in pictures]
    return common_root(folder / "any" for folder in folders)


def _folder(word: str) -> Path:
    """Return a folder itself, the fixed beginning of a pattern, or the folder of a file."""
    path = Path(word)
    if path.is_dir():
        return path
    folder = path.parent
    while not os.path.lexists(path) and glob.has_magic(str(folder)):
        folder = folder.parent
    return folder
