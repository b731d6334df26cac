"""The account of a data set's files: each is a picture, a mask or something else, and nothing is left out unsaid."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from blemish.datasets.names import system_file, system_folder
from blemish.datasets.pairing import no_picture
from blemish.datasets.samples import MASK_OF_NORMAL, Dataset
from blemish.image_io import SUFFIXES
from blemish.image_io.find import suffix_of


@dataclass(frozen=True)
class Account:
    """What became of every file below a folder."""

    root: Path
    read: Mapping[Path, str]
    """Files that were read, and as what: "normal picture, test", "mask", "list"."""
    left_out: Mapping[Path, str]
    """Files that were not read, and why."""

    def __len__(self) -> int:
        return len(self.read) + len(self.left_out)

    def groups(self, files: Mapping[Path, str]) -> list[tuple[str, list[Path]]]:
        """Return files by what is said of them, in the order of the words."""
        by_words: dict[str, list[Path]] = {}
        for path, words in files.items():
            by_words.setdefault(words, []).append(path)
        return sorted(by_words.items())

    def short(self, path: Path) -> str:
        """Return a file's path below the root."""
        root = self.root if self.root.is_dir() else self.root.parent
        return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


READ = frozenset(("list", MASK_OF_NORMAL))
"""What may be said of a file that is no sample's and still has its use."""


def account(root: Path, datasets: Iterable[Dataset]) -> Account:
    """Account for every file of a data set.

    Args:
        root: The folder of the data set, or its list; then the folders of the list and of the listed files count.
        datasets: All splits, read from the root.
    """
    read: dict[Path, str] = {}
    others: dict[Path, str] = {}
    for dataset in datasets:
        others.update(dataset.others)
        for sample in dataset:
            read[sample.path] = f"{'anomalous' if sample.label else 'normal'} picture, {dataset.split}"
            read.update(dict.fromkeys(sample.masks or (), "mask"))
        others.update({issue.path: issue.kind for issue in dataset.issues if issue.path not in read})
    read |= {path: what for path, what in others.items() if what in READ and path not in read}
    listed = "list" in read.values()
    left_out: dict[Path, str] = {}
    for path in _files(root, read) if root.is_dir() else _files_beside(read):
        if path not in read:
            left_out[path] = others.get(path) or _reason(root, path, listed)
    return Account(root, {path: what for path, what in read.items() if path.exists()}, left_out)


def _files(root: Path, known: Mapping[Path, str]) -> Iterator[Path]:
    """Yield every file below a folder; links to folders are followed where something was read through them."""
    followed = {path.parent for path in known}
    for folder, folders, files in os.walk(root, followlinks=False):
        yield from (Path(folder, name) for name in sorted(files))
        for name in folders:
            link = Path(folder, name)
            if link.is_symlink() and any(path == link or link in path.parents for path in followed):
                yield from _files(link, known)


def _files_beside(known: Mapping[Path, str]) -> Iterator[Path]:
    for folder in sorted({path.parent for path in known}):
        yield from (path for path in sorted(folder.iterdir()) if path.is_file())


def _reason(root: Path, path: Path, listed: bool) -> str:
    folders = path.relative_to(root).parts[:-1] if root.is_dir() else ()
    if system_file(path.name) or any(map(system_folder, folders)):
        return "file of the system"
    if suffix_of(path.name) not in SUFFIXES:
        return no_picture(path)
    return "not in the list" if listed else "no part of this layout"
