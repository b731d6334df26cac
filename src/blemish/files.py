"""Files that appear whole or not at all, safe names for them, and a lock that ends with its process."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import IO, Any, Literal, Union, get_args, get_origin

from blemish.errors import OutputError
from blemish.types import PathLike

_counter = itertools.count()
#: Characters that some file system refuses: control characters, those reserved on Windows, halves of broken UTF-8.
_UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\\ud800-\udfff]|[. ]$')
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)", re.IGNORECASE)
#: Longest name in bytes. File systems allow 255; suffixes and the temporary name take some.
_MAX_NAME = 180
#: Larger numbers are none that anybody wrote on purpose.
_MAX_NUMBER = 2**63


#: A picture inside a file: `scan.tif#2` is the second page.
_PAGE = re.compile(r"(.+)#([1-9][0-9]*)", re.DOTALL)


def parse_json(text: str | bytes, *, finite: bool = False) -> Any:
    """Return the value of a JSON text that others wrote.

    Args:
        text: The text.
        finite: Refuse NaN and infinite numbers, which Python reads though JSON has none.

    Raises:
        ValueError: It is no JSON, or nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=_finite, parse_float=_finite) if finite else json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no number")
    return value


def has_type(value: Any, kind: Any) -> bool:
    """Return whether a value of JSON that others wrote has the type of an annotation; numbers have to be finite.

    Args:
        value: The value.
        kind: A class, None, `object` or `Any` (which all have), or a union, `Literal`, list, tuple, sequence or
            mapping of such.
    """
    if kind is object or kind is Any:
        return True
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(has_type(value, each) for each in inner)
    if origin is Literal:
        return value in inner
    if origin in (dict, Mapping):
        return isinstance(value, dict) and all(has_type(each, inner[1]) for each in value.values())
    if origin is tuple:
        is_list = isinstance(value, (list, tuple)) and len(value) == len(inner)
        return is_list and all(map(has_type, value, inner))
    if origin in (list, Sequence):
        return isinstance(value, (list, tuple)) and all(has_type(each, inner[0]) for each in value)
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _MAX_NUMBER
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _MAX_NUMBER
    return value is None if kind in (None, NoneType) else isinstance(value, kind)


def is_file(path: PathLike) -> bool:
    """Return whether there is a file. Unlike with `Path.is_file`, no text is an error, such as one of 300 letters."""
    return os.path.isfile(path)  # noqa: PTH113


def is_folder(path: PathLike) -> bool:
    """Return whether there is a folder; as with `is_file`, no text is an error."""
    return os.path.isdir(path)  # noqa: PTH112


def split_page(path: PathLike) -> tuple[str, int | None]:
    """Return the file and the number of the picture in it, from 1: ("scan.tif", 2) for `scan.tif#2`.

    The number is None for a path without one. A file that has such a name itself comes first.
    """
    name = os.fsdecode(path)
    match = _PAGE.fullmatch(name)
    if match is None or os.path.lexists(name) or not os.path.isfile(match[1]):  # noqa: PTH113 - may be any text
        return name, None
    return match[1], int(match[2])


def output_error(path: PathLike, error: OSError) -> OutputError:
    """Return the error for a file that cannot be written."""
    name = os.fspath(path)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        remedy = "the disk is full; free some space and run again"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        remedy = "permission denied; check the permissions or choose another folder"
    elif error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
        remedy = "a file is in the way of a folder, or a folder in the way of a file; choose another folder"
    else:
        remedy = f"{error.strerror or type(error).__name__}; choose another folder"
    return OutputError(f"cannot write {name!r}: {remedy}.", name)


def write_atomically(path: Path, fill: Callable[[IO[bytes]], object], *, durable: bool = True) -> None:
    """Write a file through a temporary neighbour, so that it appears whole or not at all.

    Args:
        path: The file; its folders are created.
        fill: Writes the content into the open binary file.
        durable: Return only when the file is on the disk, so that it survives a loss of power. That takes milliseconds.

    Raises:
        OutputError: The disk is full, permission is denied, ...
    """
    # Not tempfile: its files are readable by their owner only, and results are meant to be shared.
    part = path.with_name(f".{os.getpid()}-{next(_counter)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("xb") as stream:
            fill(stream)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        part.replace(path)
        if durable:
            sync_folder(path.parent)
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system allows it."""
    with contextlib.suppress(OSError):  # Windows opens no folders, and some network disks sync none
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def file_sum(path: Path) -> str:
    """Return the SHA-256 of a file's content as hex digits. Raises OSError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def remove_parts(folder: Path) -> None:
    """Remove the temporary files that killed processes left in a folder and its subfolders."""
    for part in folder.rglob(".*-*.part"):
        part.unlink(missing_ok=True)


def try_lock(file: IO[str], *, shared: bool = False) -> bool:
    """Lock an open file and return whether that worked; the lock ends with the process.

    Args:
        file: The file.
        shared: Lock it together with others that do the same, in place of alone.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no advisory lock
        return True
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def absolute(path: PathLike) -> str:
    """Return the one spelling of a path from any working directory; links are not followed."""
    return os.path.abspath(path)  # noqa: PTH100 - Path.absolute keeps "..", Path.resolve follows links


def common_root(paths: Iterable[PathLike]) -> Path | None:
    """Return the deepest folder that holds all the files; None for no files or for several drives."""
    folders = {os.path.dirname(absolute(path)) for path in paths}  # noqa: PTH120
    try:
        return Path(os.path.commonpath(folders)) if folders else None
    except ValueError:
        return None


def output_name(path: PathLike, root: PathLike | None = None) -> Path:
    """Return the relative path that the results of a picture are named by; their own suffixes are appended.

    It depends on nothing but the two paths. The picture keeps its suffix, so that a/x.png, b/x.png and b/x.jpg stay
    apart. Names that some file system would refuse are changed and get a part of their hash, as do pictures outside
    the root.

    Args:
        path: The picture.
        root: The folder that names are relative to; None for the working directory.
    """
    full, base = absolute(path), absolute(root or ".")
    try:
        below = Path(full).relative_to(base)
    except ValueError:
        return Path(safe_name(Path(full).name, tag=_hash(full)))
    return Path(*(safe_name(part) for part in below.parts)) if below.parts else Path(safe_name(Path(full).name))


def safe_name(name: str, tag: str | None = None) -> str:
    """Return a file name that every file system takes; two different names never become one."""
    clean = _UNSAFE.sub("_", name)
    if _RESERVED.match(clean):
        clean = f"_{clean}"
    if len(clean.encode()) > _MAX_NAME:
        clean = clean.encode()[: _MAX_NAME - 11].decode("utf-8", "ignore")  # leave space for the hash
    if clean != name and tag is None:
        tag = _hash(name)
    return clean if tag is None else f"{clean}-{tag}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:10]
