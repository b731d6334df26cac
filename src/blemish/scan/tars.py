"""Tar shards, as WebDataset writes them: their pictures, and reading these in order.

Nothing is extracted: members are read by their place in the shard into memory, so names with `..`, absolute names and
links lead nowhere. Links, devices and sparse files are passed over. Sizes that a shard states are believed up to the
limits below, since a few bytes may state any size, and a compressed shard may unpack to a thousand times its own.
"""

from __future__ import annotations

import errno
import gzip
import os
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import IO, Any, cast

from blemish.image_io.find import PassedOver, is_picture, suffix_of
from blemish.scan.items import Item, SourceFile
from blemish.scan.stores import open_source

SUFFIXES = (".tar", ".tar.gz", ".tgz")
"""Suffixes of tar shards."""

#: Largest member that is read, in bytes; in a compressed shard, where a large one may take next to no bytes.
MAX_MEMBER, MAX_COMPRESSED_MEMBER = 2**30, 2**28
#: Largest header, in bytes: long names, and the entries of pax.
_MAX_HEADER = 2**20
_DAMAGED = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, UnicodeError, ValueError, OverflowError)


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
    largest = MAX_COMPRESSED_MEMBER if is_compressed(source.file) else MAX_MEMBER
    try:
        with ExitStack() as stack:
            # No mode "r|": the offsets of members are needed, and headers are all that is read of a local shard.
            headers = cast("IO[bytes]", _Headers(_open(source.file, stack)))
            shard = stack.enter_context(tarfile.open(fileobj=headers, mode="r:"))
            for member in shard:
                shard.members = []  # type: ignore[attr-defined] # a list of all members would grow with the shard
                if member.size < 0:  # the next header would be an earlier one
                    raise tarfile.ReadError
                name = member.name
                path = f"{source.path}/{name}"
                if member.isdir():
                    continue
                if name.rpartition("/")[2].startswith("."):
                    passed_over.hidden += 1
                elif not is_picture(name) or not member.isreg() or member.issparse():
                    passed_over.files[suffix_of(name) or "without a suffix"] += 1
                elif member.size > largest:
                    error = f"{path!r} is larger than {largest // 2**20:,} MiB; make it smaller."
                    yield Item(path, source.file, "tar", error=error)
                else:
                    yield Item(path, source.file, "tar", member.offset_data, member.size)
                count += 1
            # tarfile takes a damaged header for the end of the shard.
            headers.seek(shard.offset)
            if any(headers.read(tarfile.BLOCKSIZE)):
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


class _Headers:
    """A shard of which only headers are read."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def read(self, size: int) -> bytes:
        """Return the next bytes. Raises ReadError if they are more than a header has."""
        if size > _MAX_HEADER:
            raise tarfile.ReadError
        return self._stream.read(size)

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position. Raises ReadError if no file is that long."""
        try:
            return self._stream.seek(position, whence)
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise tarfile.ReadError from error
            raise

    def __getattr__(self, name: str) -> Any:
        """Return anything else of the stream."""
        return getattr(self._stream, name)


def _open(file: str, stack: ExitStack) -> IO[bytes]:
    stream = stack.enter_context(open_source(file))
    if not is_compressed(file):
        return stream
    return cast("IO[bytes]", stack.enter_context(gzip.GzipFile(fileobj=stream)))
