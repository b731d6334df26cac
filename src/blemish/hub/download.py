"""Fetching one file over HTTP: what arrived is kept, failures are tried again, nothing is trusted unchecked."""

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
from typing import IO

from blemish.errors import OutputError, UsageError, WeightsError

_PIECE = 1 << 16
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")
#: Answers that may be others a moment later.
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})

Told = Callable[[int, int | None], object]


@dataclass(frozen=True)
class Patience:
    """How long to try, and for how much."""

    attempts: int = 5
    """In a row without one new byte; a cut connection that brought some does not count."""
    timeout: float = 30.0
    """Seconds without a byte after which a connection is given up."""
    pause: float = 1.0
    """Seconds before the second attempt; each further one waits twice as long."""
    largest: int = 512 * 2**20
    """Bytes; no published file comes near."""


class _Passing(Exception):
    """Something that may go better next time."""


def blob_id(path: Path) -> str:
    """Git's id of a file's content, 40 hex digits. Raises OSError."""
    with path.open("rb") as file:
        digest = hashlib.sha1(b"blob %d\0" % os.fstat(file.fileno()).st_size, usedforsecurity=False)
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def fetch(address: str, place: Path, blob: str, *, told: Told | None = None, patience: Patience | None = None) -> None:
    """Puts the file behind an address in its place, once its content is known to be the right one.

    What has arrived is kept in `<place>.part` and continued from there, also by a later call. The environment's proxies
    (`https_proxy`, `no_proxy`, ...) are used.

    Args:
        address: http or https.
        place: of the file; its folder is made.
        blob: the git blob id that its content must have.
        told: called with (bytes that are there, bytes in all or None) as it goes.

    Raises:
        UsageError: the address is of another kind.
        WeightsError: it is not there, cannot be reached, is too large, or is something else than the id says.
        OutputError: it cannot be written.
    """
    if not address.startswith(("http://", "https://")):
        raise UsageError(f"{address} is no http or https address: give one that begins so")
    patience = patience or Patience()
    part = place.with_name(f"{place.name}.part")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab") as file, _alone(file, place):
            begun = _size(file) > 0
            found = _complete(address, file, part, patience, told)
            if found != blob and begun:  # the piece from before may be what is wrong
                file.truncate(0)
                found = _complete(address, file, part, patience, told)
        if found != blob:
            part.unlink()
            raise WeightsError(
                f"{address} gave something else than the published file (git blob id {found}, not {blob}); it was "
                "deleted unread: try another mirror"
            )
        part.replace(place)
    except OSError as error:
        raise OutputError(f"cannot write {place} ({error.strerror or error}): make room or set BLEMISH_HOME") from error


def _complete(address: str, file: IO[bytes], part: Path, patience: Patience, told: Told | None) -> str:
    """Attempts until the whole file is there. Returns the git blob id of what came."""
    failures, most = 0, _size(file)
    while True:
        try:
            _attempt(address, file, patience, told or (lambda done, total: None))
            return blob_id(part)
        except _Passing as problem:
            failures = 1 if _size(file) > most else failures + 1
            most = max(most, _size(file))
            if failures >= patience.attempts:
                kept = f"; the {_size(file):,} bytes that arrived are kept for next time" if _size(file) else ""
                raise WeightsError(f"{address} could not be fetched: {problem}{kept}") from problem
        time.sleep(patience.pause * 2 ** (failures - 1))


def _attempt(address: str, file: IO[bytes], patience: Patience, told: Told) -> None:
    """One request, from where the file ends."""
    have = _size(file)
    request = urllib.request.Request(address, headers={"Accept-Encoding": "identity", "User-Agent": "blemish"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        # not urlopen, which looks for proxies once in a process
        answer = urllib.request.build_opener().open(request, timeout=patience.timeout)
    except urllib.error.HTTPError as error:
        return _refused(error, address, file, have)
    except (OSError, http.client.HTTPException) as error:
        raise _Passing(_words(error)) from error
    with answer:
        start, total = _extent(answer, have)
        if start != have:
            file.truncate(start)
        done, most = start, patience.largest if total is None else total
        if most > patience.largest:
            raise _too_large(address, patience)
        while piece := _read(answer):
            done += len(piece)
            if done > most:
                raise _too_large(address, patience)
            file.write(piece)
            file.flush()
            told(done, total)
    if total is not None and done < total:
        raise _Passing(f"the connection broke after {done:,} of {total:,} bytes")


def _read(answer: http.client.HTTPResponse) -> bytes:
    try:
        return answer.read1(_PIECE)
    except (OSError, http.client.HTTPException) as error:
        raise _Passing(_words(error)) from error


def _words(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    if isinstance(reason, TimeoutError):
        return "it did not answer in time"
    return str(getattr(reason, "strerror", None) or reason) or type(reason).__name__


def _extent(answer: http.client.HTTPResponse, have: int) -> tuple[int, int | None]:
    """Where the answer's content begins in the file, and how long the whole file is."""
    if answer.status == 206:
        match = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if match is None or match[1] is None or int(match[1]) != have:
            raise _Passing("it sent another part than was asked for")
        return have, None if match[2] == "*" else int(match[2])
    length = answer.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


def _refused(error: urllib.error.HTTPError, address: str, file: IO[bytes], have: int) -> None:
    """What an answer of 400 and above means; returns if the file is complete after all."""
    with error:
        match = _CONTENT_RANGE.fullmatch(error.headers.get("Content-Range", ""))
    if error.code == 416 and have:
        if match is not None and match[2] == str(have):
            return
        file.truncate(0)
        raise _Passing("what was kept from before is longer than the file")
    if error.code in _PASSING:
        raise _Passing(f"the server answered {error.code} {error.reason}")
    raise WeightsError(
        f"{address} is not there (the server answered {error.code} {error.reason}): check the address, or try a mirror"
    ) from error


def _size(file: IO[bytes]) -> int:
    return os.fstat(file.fileno()).st_size


def _too_large(address: str, patience: Patience) -> WeightsError:
    return WeightsError(f"{address} is larger than any published file ({patience.largest:,} bytes): try another mirror")


@contextlib.contextmanager
def _alone(file: IO[bytes], place: Path) -> Iterator[None]:
    """One process at a time may add to a file; the lock goes with the process."""
    try:
        import fcntl
    except ImportError:  # Windows: no advisory lock; a mix of two would fail the check
        yield
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise WeightsError(f"another run is fetching {place.name}: wait for it", place) from None
    yield
