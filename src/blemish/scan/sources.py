"""Sources as data: what the words of a command name, the pictures in it, and their bytes.

| word | what it gives |
| --- | --- |
| a folder, or `s3://bucket/prefix` | the pictures below it, subfolders included |
| a picture, or a pattern of pictures | itself |
| `.txt`, `.lst`, `.list` | the paths or URLs in its lines; relative ones start at the working directory |
| `.csv` | the paths or URLs in a column |
| `.parquet`, `.pq` | the bytes, or the paths, in a column |
| `.tar`, `.tar.gz`, `.tgz` | the pictures in it |

Braces are expanded (`shard-{000..127}.tar`, `{a,b}.tar`), in URLs, too.
"""

from __future__ import annotations

import csv
import glob
import hashlib
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from blemish.errors import UsageError, suggest
from blemish.image_io import find_images
from blemish.image_io.find import PassedOver, is_picture, suffix_of
from blemish.scan import parquets, tars
from blemish.scan.items import Item, Kind, SourceFile
from blemish.scan.stores import FETCH, StoreError, fetch, full_name, is_url, list_objects, open_source, stat_source
from blemish.types import ImageSource

_LISTS = (".txt", ".lst", ".list")
_SUFFIXES: dict[Kind, tuple[str, ...]] = {
    "list": _LISTS,
    "csv": (".csv",),
    "parquet": parquets.SUFFIXES,
    "tar": tars.SUFFIXES,
}
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")
#: Files that one pattern of braces may stand for.
_MAX_BRACES = 1_000_000
#: Bytes of a file that are hashed at once.
_CHUNK = 2**20

FOLDER = "folder"
"""Value of `profile_from` that takes the name of a picture's folder."""


@dataclass(frozen=True)
class SourceOptions:
    """How sources are read.

    Attributes:
        column: Column of tables that holds the pictures; None chooses by its name.
        profile_from: Where the name of a picture's profile stands: "folder", or a column of tables; None = nowhere.
    """

    column: str | None = None
    profile_from: str | None = None

    @property
    def profile_column(self) -> str | None:
        """Column with the names of profiles; None without."""
        return None if self.profile_from == FOLDER else self.profile_from


@dataclass(frozen=True)
class Fetched:
    """A picture that is ready to be decoded, or the reason why it is not.

    Attributes:
        item: The picture.
        source: As `read_image` takes it; None where there is an error.
        sha256: Hash of its bytes; None if they cannot be read.
        size: Number of its bytes.
        error: Why it cannot be read.
    """

    item: Item
    source: ImageSource | None = None
    sha256: str | None = None
    size: int | None = None
    error: str | None = None


@dataclass
class Listing:
    """A fingerprint of the source files that were listed, to notice later that they changed.

    Attributes:
        files: How many.
        passed_over: What they hold besides pictures.
    """

    files: int = 0
    passed_over: PassedOver = field(default_factory=PassedOver)
    _hash: hashlib._Hash = field(default_factory=hashlib.sha256)

    def watch(self, files: Iterable[SourceFile]) -> Iterator[SourceFile]:
        """Yield the files again; count and hash them."""
        for source in files:
            self.files += 1
            text = f"{source.kind}\0{source.file}\0{source.size}\0{source.modified}\n"
            self._hash.update(text.encode("utf-8", "surrogateescape"))
            yield source

    @property
    def digest(self) -> str:
        """Hash of names, sizes and versions, 16 hex digits."""
        return self._hash.hexdigest()[:16]


def list_files(
    words: Sequence[str], passed_over: PassedOver | None = None, *, results: Path | None = None
) -> Iterator[SourceFile]:
    """Yield the files that words name, each once; no file is opened.

    Args:
        words: As the module describes them.
        passed_over: Collects what folders hold besides pictures.
        results: Folder of results, whose files are left out.

    Raises:
        UsageError: A word names nothing.
        StoreError: A store does not answer.
    """
    account = PassedOver() if passed_over is None else passed_over
    files: set[str] = set()
    for word in itertools.chain.from_iterable(expand_braces(word) for word in words):
        for source in _listed(word, account):
            if source.file not in files and not (results and Path(source.file).is_relative_to(results)):
                files.add(source.file)
                yield source


def list_items(source: SourceFile, options: SourceOptions, passed_over: PassedOver) -> Iterator[Item]:
    """Yield the pictures of a source file in order.

    Raises:
        UsageError: The file cannot be read, or has no such column.
        StoreError: A store does not answer.
    """
    column = options.profile_column
    if column is not None and source.kind not in ("csv", "parquet"):
        raise UsageError(f"{source.path!r} has no columns to take profiles from: give --profile-from folder.")
    try:
        items = _items(source, options, passed_over)
        if options.profile_from == FOLDER:
            items = (_with_profile(item) for item in items)
        yield from items
    except OSError as error:
        raise UsageError(f"{source.path!r} cannot be read ({error.strerror or error}); check the file.") from error


def read_items(items: Sequence[Item]) -> Iterator[Fetched]:
    """Yield pictures with their bytes, in order; those that cannot be read have an error.

    Local files are hashed here and decoded from their path; of everything else the bytes are kept in memory, for as
    many pictures as the receiver holds.

    Raises:
        StoreError: A store does not answer. That is no fault of a picture.
    """
    for (kind, _, _), group in itertools.groupby(items, _reader):
        alike = list(group)
        if kind == "error":
            yield from (Fetched(item, error=item.error) for item in alike)
        elif kind == "local":
            yield from map(_hashed, alike)
        elif kind == "url":
            for start in range(0, len(alike), FETCH):
                chunk = alike[start : start + FETCH]
                contents = fetch([item.file for item in chunk])
                yield from (_from_bytes(item, contents[item.file], "does not exist") for item in chunk)
        else:
            yield from _from_container(kind, alike)


def expand_braces(word: str) -> list[str]:
    """Return the names that a pattern of braces stands for: `{000..127}` counts, `{a,b}` lists.

    Raises:
        UsageError: They are too many.
    """
    match = _RANGE.search(word)
    if match is None or Path(word).exists():
        return [word]
    first, last, listed = match.groups()
    if listed is not None:
        middle: Iterable[str] = listed.split(",")
    else:
        low, high, width = int(first), int(last), len(first) if first.startswith("0") else 0
        if abs(high - low) >= _MAX_BRACES:
            raise UsageError(f"{word!r} stands for more than {_MAX_BRACES:,} files; check the braces.")
        middle = (f"{n:0{width}}" for n in range(low, high + 1 if high >= low else high - 1, 1 if high >= low else -1))
    before, after = word[: match.start()], word[match.end() :]
    return [name for value in middle for name in expand_braces(f"{before}{value}{after}")]


def kind_of_file(path: str) -> Kind:
    """Return how a file holds pictures, by its suffix."""
    name = path.lower()
    return next((kind for kind, suffixes in _SUFFIXES.items() if name.endswith(suffixes)), "file")


def _listed(word: str, passed_over: PassedOver) -> Iterator[SourceFile]:
    if is_url(word):
        yield from _listed_objects(word, passed_over)
        return
    local = Path(word)
    if not local.is_dir() and (local.exists() or not glob.has_magic(word)):
        yield _source_file(word)
        return
    if not local.is_dir() and kind_of_file(word) != "file":
        matches = sorted(glob.glob(word, recursive=True))  # noqa: PTH207 - keeps the pattern's own form
        if not matches:
            raise UsageError(f"no files match {word!r}; check the pattern.")
        yield from map(_source_file, matches)
        return
    for path in find_images([word], recursive=True, passed_over=passed_over):
        try:
            yield _source_file(str(path))
        except UsageError:  # a broken link: reading it reports the error
            yield SourceFile("file", str(path), full_name(str(path)))


def _source_file(path: str) -> SourceFile:
    return SourceFile(kind_of_file(path), path, full_name(path), *stat_source(path))


def _listed_objects(url: str, passed_over: PassedOver) -> Iterator[SourceFile]:
    if glob.has_magic(url):
        objects = list(list_objects(url, pattern=True))
    elif kind_of_file(url) != "file" or is_picture(url):
        yield SourceFile(kind_of_file(url), url, url, *stat_source(url))
        return
    else:
        objects = []
        for name, size, version in list_objects(url):
            if is_picture(name):
                objects.append((name, size, version))
            else:
                passed_over.files[suffix_of(name) or "without a suffix"] += 1
    if not objects:
        raise UsageError(f"{url!r} holds no pictures; check the address.")
    for name, size, version in objects:
        yield SourceFile(kind_of_file(name), name, name, size, version)


def _items(source: SourceFile, options: SourceOptions, passed_over: PassedOver) -> Iterator[Item]:
    if source.kind == "tar":
        return tars.list_members(source, passed_over)
    if source.kind == "parquet":
        return parquets.list_rows(source, options.column, options.profile_column)
    if source.kind == "csv":
        return _csv_items(source, options)
    if source.kind == "list":
        return (Item(path, full_name(path)) for path in _lines(source) if path)
    return iter([Item(source.path, source.file)])


def _lines(source: SourceFile) -> Iterator[str]:
    with open_source(source.file) as stream:
        for line in stream:
            yield line.rstrip(b"\r\n").decode("utf-8", "surrogateescape")


def _csv_items(source: SourceFile, options: SourceOptions) -> Iterator[Item]:
    with open_source(source.file) as stream, io.TextIOWrapper(stream, "utf-8-sig", newline="") as text:
        try:
            rows = csv.DictReader(text)
            names = list(rows.fieldnames or ())
            column = parquets.choose_column(source.path, names, options.column)
            profile_column = options.profile_column
            if profile_column is not None and profile_column not in names:
                raise UsageError(f"{source.path!r} has no column {profile_column!r}{suggest(profile_column, names)}.")
            for number, row in enumerate(rows, 1):
                profile = None if profile_column is None else row[profile_column] or None
                if path := row[column]:
                    yield Item(path, full_name(path), profile=profile)
                else:
                    name = f"{source.path}#{number}"
                    error = f"{name!r} has no path; fill the row or drop it."
                    yield Item(name, source.file, profile=profile, error=error)
        except (csv.Error, UnicodeDecodeError) as error:
            raise UsageError(f"{source.path!r} is no CSV file in UTF-8 ({error}); save it again.") from error


def _with_profile(item: Item) -> Item:
    folder = item.path.replace("\\", "/").rpartition("/")[0]
    return replace(item, profile=folder.rpartition("/")[2] or None)


def _reader(item: Item) -> tuple[str, str, str | None]:
    """Return what items that are read together have in common."""
    if item.error is not None:
        return "error", "", None
    if item.kind != "file":
        return item.kind, item.file, item.column
    return ("url" if is_url(item.file) else "local"), "", None


def _from_container(kind: str, items: Sequence[Item]) -> Iterator[Fetched]:
    """Read pictures of one shard or one Parquet file; a container that cannot be opened is the error of each."""
    read = tars.read_members if kind == "tar" else parquets.read_rows
    missing = "is not there any more: the shard changed since it was listed" if kind == "tar" else "is empty"
    rest = {id(item): item for item in items}
    try:
        for item, data in read(items[0].file, items):
            del rest[id(item)]
            yield _from_bytes(item, data, missing)
    except StoreError:
        raise
    except Exception as error:  # a decoder of containers may raise anything on damaged bytes
        reason = str(error).rstrip(".") or type(error).__name__
        for item in rest.values():
            yield Fetched(item, error=f"{item.path!r} cannot be read from its file ({reason}); get the file again.")


def _hashed(item: Item) -> Fetched:
    """Hash a local file; if that fails, reading it reports why."""
    digest, size = hashlib.sha256(), 0
    try:
        with Path(item.file).open("rb") as stream:
            while data := stream.read(_CHUNK):
                digest.update(data)
                size += len(data)
    except (OSError, ValueError):
        return Fetched(item, item.file)
    return Fetched(item, item.file, digest.hexdigest(), size)


class NamedBytes(io.BytesIO):
    """Bytes of a picture with a name for messages."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self.name = name


def _from_bytes(item: Item, data: bytes | None, missing: str) -> Fetched:
    if data is None:
        return Fetched(item, error=f"{item.path!r} {missing}; check the source.")
    return Fetched(item, NamedBytes(data, item.path), hashlib.sha256(data).hexdigest(), len(data))
