"""Download one file over HTTP: resume partial downloads, retry failures, and check the content."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeAlias

from blemish.errors import OutputError, UsageError, WeightsError
from blemish.files import sync_folder

_CHUNK = 1 << 16
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")
#: Status codes after which another attempt may succeed.
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})

OnProgress: TypeAlias = Callable[[int, int | None], object]
"""Receives the bytes that are on the disk and the size of the file, None if it is unknown."""


@dataclass(frozen=True)
class RetryPolicy:
    """Limits of a download."""

    attempts: int = 5
    """Attempts in a row that bring no new byte."""
    timeout: float = 30.0
    """Seconds without a byte after which a connection is closed."""
    pause: float = 1.0
    """Seconds before the second attempt; the pause doubles for each further one."""
    max_bytes: int = 512 * 2**20
    """Largest file."""


class TransientError(Exception):
    """A failure after which another attempt may succeed."""


def blob_id(path: Path) -> str:
    """Return git's id of a file's content, 40 hex digits. Raises OSError."""
    with path.open("rb") as file:
        digest = hashlib.sha1(b"blob %d\0" % os.fstat(file.fileno()).st_size, usedforsecurity=False)
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def fetch(
    url: str, path: Path, blob: str, *, on_progress: OnProgress | None = None, retry: RetryPolicy | None = None
) -> None:
    """Download a file, check its content, and move it to its path.

    A partial download stays in `<path>.part` and is resumed, also by a later call. Proxies are taken from the
    environment (`https_proxy`, `no_proxy`, ...).

    Args:
        url: http or https.
        path: Path of the file; its folder is made.
        blob: Git blob id of the content.
        on_progress: Called as bytes arrive.
        retry: Limits; None for the default.

    Raises:
        UsageError: The URL has another scheme.
        WeightsError: The file is missing, cannot be reached, is too large, or has other content.
        OutputError: The file cannot be written.
    """
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"{url} is no http or https address: give one that begins so")
    retry = retry or RetryPolicy()
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as lock:
            with part.open("ab") as file:
                lock.enter_context(file_lock(file, path))
                if not part.is_file() or not os.path.samestat(os.fstat(file.fileno()), part.stat()):
                    raise WeightsError(f"another run has just fetched {path.name}: run the same command again", path)
                resumed = _size(file) > 0
                actual = _download(url, file, part, retry, on_progress)
                if actual != blob and resumed:  # the earlier part may be wrong
                    file.truncate(0)
                    actual = _download(url, file, part, retry, on_progress)
                os.fsync(file.fileno())
            if actual != blob:
                part.unlink()
                raise WeightsError(
                    f"{url} gave something else than the published file (git blob id {actual}, not {blob}); it was "
                    "deleted unread: try another mirror"
                )
            part.replace(path)  # closed, as Windows wants it, but locked, so that no other run goes on with it
            sync_folder(path.parent)
    except OSError as error:
        raise OutputError(f"cannot write {path} ({error.strerror or error}): make room or set BLEMISH_HOME") from error


def _download(url: str, file: IO[bytes], part: Path, retry: RetryPolicy, on_progress: OnProgress | None) -> str:
    """Download the whole file in as many attempts as needed, and return its git blob id."""
    failures, largest = 0, _size(file)
    while True:
        try:
            _attempt(url, file, retry, on_progress or (lambda done, total: None))
            return blob_id(part)
        except TransientError as problem:
            failures = 1 if _size(file) > largest else failures + 1
            largest = max(largest, _size(file))
            if failures >= retry.attempts:
                kept = f"; the {_size(file):,} bytes that arrived are kept for next time" if _size(file) else ""
                raise WeightsError(f"{url} could not be fetched: {problem}{kept}") from problem
        time.sleep(retry.pause * 2 ** (failures - 1))


def _attempt(url: str, file: IO[bytes], retry: RetryPolicy, on_progress: OnProgress) -> None:
    """Make one request, from the end of the file."""
    have = _size(file)
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity", "User-Agent": "blemish"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        # urlopen reads the proxies once per process, so a new opener is built.
        answer = urllib.request.build_opener().open(request, timeout=retry.timeout)
    except urllib.error.HTTPError as error:
        return _refused(error, url, file, have)
    except (OSError, http.client.HTTPException) as error:
        raise TransientError(_reason(error)) from error
    with answer:
        start, total = _extent(answer, have)
        if start != have:
            file.truncate(start)
        done, limit = start, retry.max_bytes if total is None else total
        if limit > retry.max_bytes:
            raise _too_large(url, retry)
        while chunk := _read(answer):
            done += len(chunk)
            if done > limit:
                raise _too_large(url, retry)
            file.write(chunk)
            file.flush()
            on_progress(done, total)
    if total is not None and done < total:
        raise TransientError(f"the connection broke after {done:,} of {total:,} bytes")


def _read(answer: http.client.HTTPResponse) -> bytes:
    try:
        return answer.read1(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise TransientError(_reason(error)) from error


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    if isinstance(reason, TimeoutError):
        return "it did not answer in time"
    return str(getattr(reason, "strerror", None) or reason) or type(reason).__name__


def _extent(answer: http.client.HTTPResponse, have: int) -> tuple[int, int | None]:
    """Return where the answer's content begins in the file, and the size of the whole file."""
    if answer.status == 206:
        match = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if match is None or match[1] is None or int(match[1]) != have:
            raise TransientError("it sent another part than was asked for")
        return have, None if match[2] == "*" else int(match[2])
    length = answer.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


def _refused(error: urllib.error.HTTPError, url: str, file: IO[bytes], have: int) -> None:
    """Raise the error for a status code from 400 on; return if the file is complete after all."""
    with error:
        match = _CONTENT_RANGE.fullmatch(error.headers.get("Content-Range", ""))
    if error.code == 416 and have:
        if match is not None and match[2] == str(have):
            return
        file.truncate(0)
        raise TransientError("the partial download is longer than the file")
    if error.code in _TRANSIENT:
        raise TransientError(f"the server answered {error.code} {error.reason}")
    raise WeightsError(
        f"{url} is not there (the server answered {error.code} {error.reason}): check the address, or try a mirror"
    ) from error


def _size(file: IO[bytes]) -> int:
    return os.fstat(file.fileno()).st_size


def _too_large(url: str, retry: RetryPolicy) -> WeightsError:
    return WeightsError(f"{url} is larger than any published file ({retry.max_bytes:,} bytes): try another mirror")


@contextlib.contextmanager
def file_lock(file: IO[bytes], path: Path) -> Iterator[None]:
    """Lock a file inside the block, even after it is closed. Raises WeightsError if another process has the lock."""
    try:
        import fcntl
    except ImportError:  # Windows has no advisory locks; the check of the content catches a mix of two downloads
        yield
        return
    held = os.dup(file.fileno())
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise WeightsError(f"another run is fetching {path.name}: wait for it", path) from None
        yield
    finally:
        os.close(held)
