"""Which picture files stand behind paths, folders and patterns."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from blemish.errors import UsageError

SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .mpo .png .apng .bmp .dib .webp .tif .tiff .gif .ppm .pgm .pbm .pnm .pfm".split()  # noqa: SIM905
)
"""Suffixes, in lower case, by which pictures are known inside folders."""


def find_images(paths: Iterable[str | os.PathLike[str]], *, recursive: bool = False) -> Iterator[Path]:
    """The picture files behind paths, one after the other.

    A file that is named is taken whatever its suffix. A folder gives the files with a picture's suffix, in natural
    order ("2.png" before "10.png"), those of subfolders after its own. A pattern ("*.png", "parts/**/*.jpg") that is
    no existing path gives its matches in natural order; unless it ends in a suffix, only those with a picture's
    suffix. Hidden files and folders are skipped unless named. Each file comes once.

    Nothing is read, and a folder is listed only when its turn comes, so the errors come then too.

    Args:
        paths: files, folders, patterns.
        recursive: go into subfolders.

    Yields:
        Paths as they were given, not resolved.

    Raises:
        UsageError: a path that does not exist, or a folder or pattern without pictures.
    """
    seen: set[str] = set()
    for path in [paths] if isinstance(paths, (str, os.PathLike)) else paths:
        for found in _behind(os.fsdecode(path), recursive):
            key = os.path.abspath(found)  # noqa: PTH100 - without asking the disk
            if key not in seen:
                seen.add(key)
                yield Path(found)


def _behind(path: str, recursive: bool) -> Iterator[str]:
    if os.path.isdir(path):  # noqa: PTH112 - a path may be any text here
        empty = True
        for found in _walk(path, recursive):
            empty = False
            yield found
        if empty:
            hint = "give another folder" if recursive else "give another folder, or search its subfolders (recursive)"
            raise UsageError(f"{path!r} holds no pictures; {hint}.")
    elif os.path.lexists(path):
        yield path
    elif glob.has_magic(path):
        suffix = os.path.splitext(path)[1]  # noqa: PTH122
        ends = bool(suffix) and not glob.has_magic(suffix)
        matches = [
            match
            for match in glob.iglob(path, recursive=True)  # noqa: PTH207 - keeps the pattern's own form
            if (ends or _is_picture(match)) and not os.path.isdir(match)  # noqa: PTH112
        ]
        if not matches:
            raise UsageError(f"no pictures match {path!r}; check the pattern.")
        yield from sorted(matches, key=_natural)
    elif "://" in path:
        raise UsageError(f"{path!r} is an address, which blemish does not fetch; download it and give the file.")
    else:
        raise UsageError(f"{path!r} does not exist; check the path.")


def _walk(folder: str, recursive: bool) -> Iterator[str]:
    """Files of a folder in natural order, then its subfolders; links to folders are not followed."""
    try:
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise UsageError(f"{folder!r} cannot be listed ({error.strerror}); check its permissions.") from error
    folders = [entry.name for entry in visible if entry.is_dir(follow_symlinks=False)]
    # A broken link with a picture's suffix stays in: reading it says what is wrong, leaving it out says nothing.
    files = [entry.name for entry in visible if _is_picture(entry.name) and not entry.is_dir()]
    for name in sorted(files, key=_natural):
        yield os.path.join(folder, name)  # noqa: PTH118
    if recursive:
        for name in sorted(folders, key=_natural):
            yield from _walk(os.path.join(folder, name), recursive)  # noqa: PTH118


def _is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122


def _natural(path: str) -> tuple[list[list[str | int]], str]:
    """Sort key: folder by folder, numbers by their value, case aside; the path itself settles ties."""
    key: list[list[str | int]] = []
    for part in path.replace(os.sep, "/").split("/"):
        bits = re.split(r"([0-9]+)", part.casefold())  # text and numbers take turns, text first
        key.append([int(bit) if turn % 2 else bit for turn, bit in enumerate(bits)])
    return key, path
