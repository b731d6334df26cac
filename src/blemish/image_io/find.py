"""Which files are pictures: kinds by suffix, `find_images`, and an account of what is passed over."""

from __future__ import annotations

import functools
import glob
import importlib.util
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from blemish.errors import UsageError
from blemish.files import absolute, split_page
from blemish.types import PathLike


@dataclass(frozen=True)
class Kind:
    """A kind of file that is read with a package of its own, or not at all."""

    name: str
    suffixes: tuple[str, ...]
    extra: str | None = None
    """Optional part of blemish that reads it."""
    module: str = ""
    """Module of that part."""
    remedy: str = ""
    """What to do with a file that blemish does not read."""

    @property
    def installed(self) -> bool:
        """Whether files of this kind can be read here."""
        return self.extra is not None and _is_installed(self.module)

    @property
    def advice(self) -> str:
        """What to do about a file that is not read."""
        return f"pip install 'blemish[{self.extra}]'" if self.extra is not None else self.remedy


HEIC = Kind("HEIC", (".heic", ".heif", ".hif"), "heic", "pillow_heif")
DICOM = Kind("DICOM", (".dcm", ".dicom"), "medical", "pydicom")
NIFTI = Kind("NIfTI", (".nii", ".nii.gz"), "medical", "nibabel")
VIDEO = Kind(
    "video",
    (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".ts", ".mts", ".3gp"),
    "video",
    "av",
)
_RAW_SUFFIXES = (
    ".3fr .ari .arw .bay .cap .cr2 .cr3 .crw .dcr .dng .erf .fff .iiq .k25 .kdc .mef .mos .mrw .nef .nrw .orf .pef "
    ".ptx .r3d .raf .raw .rw2 .rwl .sr2 .srf .srw .x3f"
)
RAW = Kind(
    "camera raw",
    tuple(_RAW_SUFFIXES.split()),
    remedy="camera raw: develop it to TIFF or JPEG with the camera's program",
)
_OPTIONAL = (HEIC, DICOM, NIFTI, VIDEO)
_NOT_READ = (
    RAW,
    Kind("JPEG XL", (".jxl",), remedy="convert it to PNG"),
    Kind("document", (".pdf", ".ai", ".eps", ".ps", ".svg"), remedy="a drawing: export its pictures as PNG"),
    Kind("layered picture", (".psd", ".psb", ".xcf", ".kra"), remedy="export it as PNG or TIFF"),
    Kind(
        "picture", (".exr", ".hdr", ".dds", ".tga", ".ico", ".pcx", ".sgi", ".fits"), remedy="convert it to TIFF or PNG"
    ),
    Kind("archive", (".zip", ".rar", ".7z", ".tar", ".gz", ".tgz"), remedy="unpack it"),
)

_BASE = (
    ".jpg .jpeg .jpe .jfif .mpo .png .apng .bmp .dib .webp .tif .tiff .gif .ppm .pgm .pbm .pnm .pfm .avif .jp2 .j2k "
    ".jpx .j2c"
)


@functools.lru_cache(maxsize=16)
def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


#: Video files are pictures only where their frames are asked for.
SUFFIXES = frozenset(
    [*_BASE.split(), *(suffix for kind in (HEIC, DICOM, NIFTI) if kind.installed for suffix in kind.suffixes)]
)
"""Suffixes of picture files in folders, in lower case, as far as the installed parts read them."""


def suffix_of(path: str) -> str:
    """Return the suffix of a file in lower case, `.nii.gz` as a whole."""
    name = os.path.basename(path).lower()  # noqa: PTH119 - a path may be any text here
    return ".nii.gz" if name.endswith(".nii.gz") else os.path.splitext(name)[1]  # noqa: PTH122


def kind_of(path: str) -> Kind | None:
    """Return the kind of a file by its suffix; None for plain pictures and for files that are none."""
    suffix = suffix_of(path)
    return next((kind for kind in (*_OPTIONAL, *_NOT_READ) if suffix in kind.suffixes), None)


@dataclass
class PassedOver:
    """What a search for pictures found and did not take.

    Attributes:
        files: How many files, by suffix as it is written most often.
        folders: Subfolders that were not searched.
        hidden: Number of hidden files and folders.
    """

    files: Counter[str] = field(default_factory=Counter)
    folders: list[str] = field(default_factory=list)
    hidden: int = 0

    def __bool__(self) -> bool:
        return bool(self.files or self.folders)

    def groups(self) -> dict[str, tuple[int, str]]:
        """Return number and advice by suffix: kinds of pictures first; advice is empty for what is no picture."""
        merged: dict[str, Counter[str]] = {}
        for suffix, number in self.files.items():
            merged.setdefault(suffix.lower(), Counter())[suffix] += number
        rows = {}
        for suffix, spellings in merged.items():
            kind = kind_of(f"x{suffix}")
            advice = "" if kind is None else kind.advice
            if kind is VIDEO and kind.installed:
                advice = "give the video itself"
            rows[spellings.most_common(1)[0][0]] = (sum(spellings.values()), advice)
        return dict(sorted(rows.items(), key=lambda row: (not row[1][1], row[0])))


class NoPicturesError(UsageError):
    """A folder holds no pictures; `passed_over` says what it holds."""

    def __init__(self, message: str, folder: str, passed_over: PassedOver) -> None:
        super().__init__(message)
        self.folder, self.passed_over = folder, passed_over


def find_images(
    paths: PathLike | Iterable[PathLike],
    *,
    recursive: bool = False,
    videos: bool = False,
    passed_over: PassedOver | None = None,
) -> Iterator[Path]:
    """Yield the picture files of paths, folders and patterns.

    A named file is taken whatever its suffix. A folder gives the files with a picture's suffix, in natural order
    (`2.png` before `10.png`), its own before those of its subfolders. A pattern (`*.png`, `parts/**/*.jpg`) that is no
    existing path gives its matches in natural order; unless it ends in a suffix, only those with a picture's suffix.
    Hidden files and folders are skipped unless named. Each file comes once.

    No file is read, and a folder is listed only when its turn comes, so errors come then, too.

    Args:
        paths: Files, folders, patterns; or one of them.
        recursive: Search subfolders, too.
        videos: Take the videos of folders and patterns, too, if the optional part for them is installed.
        passed_over: Collects what folders hold besides pictures.

    Yields:
        Paths as they were given, not resolved.

    Raises:
        UsageError: A path does not exist, or a folder or pattern has no pictures.
    """
    yielded: set[str] = set()
    account = PassedOver() if passed_over is None else passed_over
    for path in [paths] if isinstance(paths, (str, os.PathLike)) else paths:
        for file in _expand(os.fsdecode(path), recursive, videos and VIDEO.installed, account):
            key = absolute(file)
            if key not in yielded:
                yielded.add(key)
                yield Path(file)


def _expand(path: str, recursive: bool, videos: bool, account: PassedOver) -> Iterator[str]:
    if os.path.isdir(path):  # noqa: PTH112 - a path may be any text here
        empty = True
        own = PassedOver()
        for file in _walk(path, recursive, videos, own):
            empty = False
            yield file
        account.files.update(own.files)
        account.folders.extend(own.folders)
        account.hidden += own.hidden
        if empty:
            raise NoPicturesError(f"{path!r} holds no pictures; {_hint(own)}.", path, own)
    elif os.path.lexists(path) or split_page(path)[1] is not None:
        yield path
    elif glob.has_magic(path):
        suffix = os.path.splitext(path)[1]  # noqa: PTH122
        ends = bool(suffix) and not glob.has_magic(suffix)
        matches = [
            match
            for match in glob.iglob(path, recursive=True)  # noqa: PTH207 - keeps the pattern's own form
            if (ends or is_picture(match, videos)) and not os.path.isdir(match)  # noqa: PTH112
        ]
        if not matches:
            raise UsageError(f"no pictures match {path!r}; check the pattern.")
        yield from sorted(matches, key=natural_key)
    elif "://" in path:
        raise UsageError(f"{path!r} is an address, which blemish does not fetch; download it and give the file.")
    else:
        raise UsageError(f"{path!r} does not exist; check the path.")


def _hint(account: PassedOver) -> str:
    """Return what to do about a folder without pictures."""
    known = [
        f"{number} {suffix} not read ({advice})" for suffix, (number, advice) in account.groups().items() if advice
    ]
    if account.folders:
        known.append("search its subfolders (recursive)")
    return ", or ".join([*known, "give another folder"])


def _walk(folder: str, recursive: bool, videos: bool, account: PassedOver) -> Iterator[str]:
    """Yield the files of a folder in natural order, then those of its subfolders; links to folders are not followed."""
    try:
        with os.scandir(folder) as entries:
            everything = list(entries)
    except OSError as error:
        raise UsageError(f"{folder!r} cannot be listed ({error.strerror}); check its permissions.") from error
    visible = [entry for entry in everything if not entry.name.startswith(".")]
    account.hidden += len(everything) - len(visible)
    folders = [entry.name for entry in visible if entry.is_dir(follow_symlinks=False)]
    # A broken link with a picture's suffix, or one that leads in a circle, is kept: reading it reports an error.
    plain = [entry.name for entry in visible if not os.path.isdir(entry)]  # noqa: PTH112
    files = [name for name in plain if is_picture(name, videos)]
    account.files.update(_written_suffix(name) for name in plain if not is_picture(name, videos))
    for name in sorted(files, key=natural_key):
        yield os.path.join(folder, name)  # noqa: PTH118
    for name in sorted(folders, key=natural_key):
        path = os.path.join(folder, name)  # noqa: PTH118
        if recursive:
            yield from _walk(path, recursive, videos, account)
        else:
            account.folders.append(path)


def is_picture(name: str, videos: bool = False) -> bool:
    """Return whether a file of a folder is a picture, or else a video, by its suffix."""
    suffix = suffix_of(name)
    return suffix in SUFFIXES or (videos and suffix in VIDEO.suffixes)


def _written_suffix(name: str) -> str:
    """Return the suffix as it is written."""
    length = len(suffix_of(name))
    return name[-length:] if length else "without a suffix"


def natural_key(path: str) -> tuple[list[list[str | int]], str]:
    """Return a sort key: folder by folder, numbers by value, ignoring case; the path itself decides ties."""
    key: list[list[str | int]] = []
    for part in path.replace(os.sep, "/").split("/"):
        bits = re.split(r"([0-9]+)", part.casefold())  # text and numbers alternate, text first
        key.append([int(bit) if position % 2 else bit for position, bit in enumerate(bits)])
    return key, path
