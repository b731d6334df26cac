"""From the words on the command line to picture files."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from blemish.cli import STDIN
from blemish.errors import UsageError
from blemish.files import absolute, common_root
from blemish.image_io import find_images


def collect(words: Sequence[str], recursive: bool, out: Path | None) -> tuple[list[Path], int]:
    """Find all pictures, before any is read.

    Args:
        words: Files, folders, patterns; `STDIN` stands for a list on standard input, one file per line (or separated by
            NUL).
        recursive: Search subfolders, too.
        out: Folder of results; pictures in it are results of earlier runs and are left out, unless it is itself given.

    Returns:
        The pictures, each once, and how many were left out. Files of a list may not exist.

    Raises:
        UsageError: Nothing is given, a path does not exist, a folder or the list is empty.
    """
    if not words:
        raise UsageError("no pictures are given: give files, folders, patterns, or - for a list on standard input")
    results = None if out is None else absolute(out)
    pictures: dict[str, Path] = {}
    left_out = 0
    for word in words:
        paths: Iterable[Path] = _read_list() if word == STDIN else find_images([word], recursive=recursive)
        skip_results = results is not None and (word == STDIN or absolute(word) != results)
        for path in paths:
            file = absolute(path)
            if skip_results and Path(file).is_relative_to(str(results)):
                left_out += 1
                continue
            pictures.setdefault(file, path)
    if not pictures:
        raise UsageError("there is nothing to do: all pictures lie in the folder of results")
    return list(pictures.values()), left_out


def root_of(words: Sequence[str], pictures: Sequence[Path]) -> Path | None:
    """Return the folder that names of results are relative to: the deepest that holds everything given.

    It depends on the words and not on the pictures, so that a picture added later does not rename the others.
    """
    folders = [_folder(word) for word in words if word != STDIN]
    if len(folders) < len(words):  # a list has no folder of its own
        folders += [path.parent for path in pictures]
    return common_root(folder / "any" for folder in folders)


def _read_list() -> Iterable[Path]:
    data = sys.stdin.buffer.read()
    lines = data.split(b"\0") if b"\0" in data else data.splitlines()
    paths = [Path(os.fsdecode(line)) for line in lines if line.strip()]
    if not paths:
        raise UsageError("the list on standard input is empty")
    return paths


def _folder(word: str) -> Path:
    """Return a folder itself, the fixed beginning of a pattern, or the folder of a file."""
    path = Path(word)
    if path.is_dir():
        return path
    folder = path.parent
    while not os.path.lexists(path) and glob.has_magic(str(folder)):
        folder = folder.parent
    return folder
