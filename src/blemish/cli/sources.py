"""From the words on the command line to picture files, and to the names their results get."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from blemish.cli import STDIN
from blemish.errors import UsageError
from blemish.files import common_root
from blemish.image_io import find_images


def collect(words: Sequence[str], recursive: bool, out: Path | None) -> tuple[list[Path], int]:
    """Find all pictures, before any is read.

    Args:
        words: Files, folders, patterns; `STDIN` stands for a list on standard input, one file a line (or NUL-divided).
        recursive: Look into subfolders.
        out: Where results go; pictures in there are results of earlier runs and are left out.

    Returns:
        The pictures, each once, and how many were left out. Those of a list may turn out not to exist.

    Raises:
        UsageError: Nothing is given, a path does not exist, a folder or the list is empty.
    """
    if not words:
        raise UsageError("say which pictures: files, folders, patterns, or - for a list on standard input")
    results = None if out is None else absolute(out)
    found: dict[str, Path] = {}
    left_out = 0
    for word in words:
        paths: Iterable[Path] = _listed() if word == STDIN else find_images([word], recursive=recursive)
        # The folder of results is only looked into where it was itself asked for.
        asked = results is None or (word != STDIN and absolute(word) == results)
        for path in paths:
            file = absolute(path)
            if results is not None and not asked and Path(file).is_relative_to(results):
                left_out += 1
                continue
            found.setdefault(file, path)
    if not found:
        raise UsageError("there is nothing to do: all pictures found lie in the folder of the results")
    return list(found.values()), left_out


def root_of(words: Sequence[str], pictures: Sequence[Path]) -> Path | None:
    """The folder that the names of results are counted from: the deepest that holds all that was asked for.

    Taken from the words and not from what was found, so that a picture added later does not rename the others.
    """
    folders = [_folder(word) for word in words if word != STDIN]
    if len(folders) < len(words):  # a list: there are only its pictures to go by
        folders += [path.parent for path in pictures]
    return common_root(folder / "any" for folder in folders)


def absolute(path: str | os.PathLike[str]) -> str:
    """The one spelling by which a file is known from any working directory; links are not followed."""
    return os.path.abspath(path)  # noqa: PTH100 - Path.absolute keeps "..", Path.resolve follows links


def _listed() -> Iterable[Path]:
    data = sys.stdin.buffer.read()
    lines = data.split(b"\0") if b"\0" in data else data.splitlines()
    paths = [Path(os.fsdecode(line)) for line in lines if line.strip()]
    if not paths:
        raise UsageError("the list on standard input is empty")
    return paths


def _folder(word: str) -> Path:
    """The folder itself, a pattern's fixed beginning, a file's folder."""
    path = Path(word)
    if path.is_dir():
        return path
    folder = path.parent
    while not os.path.lexists(path) and glob.has_magic(str(folder)):
        folder = folder.parent
    return folder
