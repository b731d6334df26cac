"""Files by path or URL: the local disk as it is, object stores (`s3://`, `gs://`, ...) through fsspec.

Keys and endpoints are those of the store's own package (environment variables, profiles, instance roles); blemish takes
none, and writes none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, cast

from blemish.errors import BlemishError, UsageError
from blemish.files import absolute

#: Objects that are fetched at the same time.
FETCH = 32
#: Bytes of an object that are read at once while a shard is read in order.
_BLOCK = 8 * 2**20
#: What a store says about the version of an object, the best first.
_VERSIONS = ("ETag", "etag", "md5Hash", "LastModified", "mtime", "created")


class StoreError(BlemishError):
    """A store that does not answer. No fault of a picture: the scan stops, and the same command goes on later."""


def is_url(path: str) -> bool:
    """Return whether a path names an object of a store, such as `s3://bucket/key`."""
    return "://" in path


def full_name(path: str) -> str:
    """Return the absolute path of a local file; a URL as it is."""
    return path if is_url(path) else absolute(path)


@lru_cache(maxsize=16)
def _filesystem(scheme: str) -> Any:
    import fsspec

    try:
        return fsspec.filesystem(scheme)
    except ImportError as error:
        raise UsageError(f"{scheme}:// needs a package of its own; run: pip install 'blemish[cloud]'.") from error
    except ValueError as error:
        raise UsageError(f"blemish knows no store {scheme}://; use s3://, gs:// or a local path.") from error


def filesystem(url: str) -> Any:
    """Return the fsspec file system of a URL.

    Raises:
        UsageError: Its package is missing, or nobody knows the scheme.
    """
    return _filesystem(url.partition("://")[0])


def store_error(url: str, error: Exception) -> StoreError:
    """Return the error for a store that does not answer."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return StoreError(
        f"the store of {url!r} cannot be read ({reason}); check the network, the address and the keys, and run the "
        "same command again."
    )


def open_source(file: str) -> IO[bytes]:
    """Open a local file or an object for reading; objects are read in blocks.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: A local file cannot be opened.
        StoreError: The store does not answer.
    """
    if not is_url(file):
        return Path(file).open("rb")
    try:
        return cast("IO[bytes]", filesystem(file).open(file, "rb", block_size=_BLOCK))
    except (FileNotFoundError, BlemishError):
        raise
    except Exception as error:  # each store has exceptions of its own
        raise store_error(file, error) from error


def fetch(urls: Sequence[str]) -> Mapping[str, bytes | None]:
    """Return the contents of objects, fetched at the same time; None for an object that does not exist.

    Raises:
        StoreError: The store does not answer, or refuses.
    """
    store = filesystem(urls[0])
    try:
        names = {url: store._strip_protocol(url) for url in urls}
        contents = store.cat(list(names.values()), on_error="return")
    except Exception as error:
        raise store_error(urls[0], error) from error
    result: dict[str, bytes | None] = {}
    for url, name in names.items():
        content = contents.get(name, FileNotFoundError(url))
        if isinstance(content, Exception) and not isinstance(content, FileNotFoundError):
            raise store_error(url, content) from content
        result[url] = None if isinstance(content, Exception) else content
    return result


def list_objects(url: str, *, pattern: bool = False) -> Iterator[tuple[str, int, str]]:
    """Yield (URL, bytes, version) of the objects below a URL, or of those that match a pattern, sorted by name.

    Raises:
        StoreError: The store does not answer.
    """
    store, scheme = filesystem(url), url.partition("://")[0]
    try:
        listed = store.glob(url, detail=True) if pattern else store.find(url, detail=True)
    except Exception as error:
        raise store_error(url, error) from error
    for name in sorted(listed):
        details = listed[name]
        if details.get("type") == "file":
            version = next((str(details[key]) for key in _VERSIONS if details.get(key) is not None), "")
            yield (name if is_url(name) else f"{scheme}://{name}"), int(details.get("size") or 0), version


def stat_source(file: str) -> tuple[int, str]:
    """Return bytes and version of a local file or an object.

    Raises:
        UsageError: There is no such file.
        StoreError: The store does not answer.
    """
    try:
        if not is_url(file):
            status = os.stat(file)  # noqa: PTH116 - a path may be any text here
            return status.st_size, str(status.st_mtime_ns)
        details = filesystem(file).info(file)
        version = next((str(details[key]) for key in _VERSIONS if details.get(key) is not None), "")
        return int(details.get("size") or 0), version
    except FileNotFoundError as error:
        raise UsageError(f"{file!r} does not exist; check the path.") from error
    except BlemishError:
        raise
    except Exception as error:
        if is_url(file):
            raise store_error(file, error) from error
        raise UsageError(f"{file!r} cannot be read; check the path and its permissions.") from error
