"""Tar shards, as WebDataset writes them: their pictures, and reading these in order.

Nothing is extracted: members are read by their place in the shard into memory, so names with `..`, absolute names and
links lead nowhere. Links, devices and sparse files are passed over.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import IO, cast

from blemish.image_io.find import PassedOver, is_picture, suffix_of
from blemish.scan.items import Item, SourceFile
from blemish.scan.stores import open_source

SUFFIXES = (".tar", ".tar.gz", ".tgz")
"""Suffixes of tar shards."""

#: Largest member that is read, in bytes.
MAX_MEMBER = 2**30
_DAMAGED = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, UnicodeError, ValueError)


def is_compressed(file: str) -> bool:
    """Return whether a shard can only be read from its beginning."""
    return file.lower().endswith((".gz", ".tgz"))


def list_members(source: SourceFile, passed_over: PassedOver) -> Iterator[Item]:
    """Yield the pictures of a shard in order; what is damaged becomes an item with an error.

    Args:
        source: The shard.
        passed_over: Collects what it holds besides pictures.

    Raises:
        OSError: It cannot be opened.
    """
    count = 0
    try:
        with ExitStack() as stack:
            # No mode "r|": the offsets of members are needed, and headers are all that is read of a local shard.
            shard = stack.enter_context(tarfile.open(fileobj=_open(source.file, stack), mode="r:"))
            for member in shard:
                shard.members = []  # type: ignore[attr-defined] # a list of all members would grow with the shard
                name = member.name
                path = f"{source.path}/{name}"
                if member.isdir():
                    continue
                if name.rpartition("/")[2].startswith("."):
                    passed_over.hidden += 1
                elif not is_picture(name) or not member.isreg() or member.issparse():
                    passed_over.files[suffix_of(name) or "without a suffix"] += 1
                elif member.size > MAX_MEMBER:
                    yield Item(path, source.file, "tar", error=f"{path!r} is larger than 1 GiB; make it smaller.")
                else:
                    yield Item(path, source.file, "tar", member.offset_data, member.size)
                count += 1
            # tarfile takes a damaged header for the end of the shard.
            shard.fileobj.seek(shard.offset)
            if any(shard.fileobj.read(tarfile.BLOCKSIZE)):
                raise tarfile.ReadError
    except _DAMAGED:
        yield Item(
            source.path,
            source.file,
            "tar",
            error=f"{source.path!r} is cut short or damaged after {count:,} files; get the shard again.",
        )


def read_members(file: str, items: Sequence[Item]) -> Iterator[tuple[Item, bytes | None]]:
    """Yield the bytes of pictures of one shard; None for a member that the shard does not hold any more.

    Raises:
        OSError: The shard cannot be opened.
        StoreError: The store does not answer.
    """
    with ExitStack() as stack:
        stream = _open(file, stack)
        for item in items:
            try:
                stream.seek(item.position)
                data = stream.read(item.size)
            except _DAMAGED:
                data = b""
            yield item, data if len(data) == item.size else None


def _open(file: str, stack: ExitStack) -> IO[bytes]:
    stream = stack.enter_context(open_source(file))
    if not is_compressed(file):
        return stream
    return cast("IO[bytes]", stack.enter_context(gzip.GzipFile(fileobj=stream)))
