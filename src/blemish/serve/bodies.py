"""Bodies of requests: how much of one is read, how long that may take, and the pictures in it.

Nothing in a body is opened as a path or a URL, and nothing of it is written to the disk: a file's name is a label.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from blemish.errors import suggest
from blemish.serve.errors import ServiceError

#: Longest label of a picture.
_MAX_NAME = 400
_MULTIPART = "multipart/form-data"


@dataclass(frozen=True)
class Upload:
    """A picture as it came: bytes of a file."""

    name: str
    """What the client calls it."""
    data: bytes | npt.NDArray[np.uint8]
    """The file, or pixels (H, W[, 3])."""
    field: str = "files"
    """Field of the form that it was in."""


class Waiting:
    """Bytes of all bodies that are in memory."""

    def __init__(self, maximum: int) -> None:
        self.maximum, self.bytes = maximum, 0

    def take(self, count: int) -> bool:
        """Count some more bytes, unless they are too many."""
        if self.bytes and self.bytes + count > self.maximum:
            return False
        self.bytes += count
        return True


class BodyLimits:
    """Middleware that bounds each body in bytes and time, whatever its headers say, and all bodies together.

    The errors are raised where the body is read.

    Args:
        app: The application.
        max_bytes: Largest body.
        timeout: Seconds until a body has to be there.
        waiting: Bytes of all bodies.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, timeout: float, waiting: Waiting) -> None:
        self._app, self._max_bytes, self._timeout, self._waiting = app, max_bytes, timeout, waiting

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        loop = asyncio.get_running_loop()
        deadline, held, complete = loop.time() + self._timeout, 0, False
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")

        async def limited() -> Message:
            nonlocal held, complete
            if complete:
                return await receive()  # the client's going away
            if declared.isdigit() and int(declared) > self._max_bytes:
                raise self._too_large()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise ServiceError(
                    408, f"The body did not arrive within {self._timeout:g} seconds; send it faster, or less of it."
                ) from None
            if message["type"] == "http.request":
                size = len(message.get("body", b""))
                complete = not message.get("more_body", False)
                if held + size > self._max_bytes:
                    raise self._too_large()
                if not self._waiting.take(size):
                    raise ServiceError(429, "Too many bodies are being read; try again in a moment.", retry_after=1)
                held += size
            return message

        try:
            await self._app(scope, limited, send)
        finally:
            self._waiting.bytes -= held

    def _too_large(self) -> ServiceError:
        return ServiceError(413, f"The body is larger than {self._max_bytes:,} bytes; send fewer or smaller pictures.")


async def read_pictures(request: Request, max_pictures: int) -> list[Upload]:
    """Return the pictures of a request: the field `files` of a form, or the body itself.

    Raises:
        ServiceError: There is none (422), there are too many (413), or the body is of another type (415).
    """
    kind = content_type(request)
    if kind == _MULTIPART:
        uploads = await read_form(request, ("files",), max_pictures)
    elif kind.startswith("image/") or kind in ("application/octet-stream", "application/dicom"):
        data = await request.body()
        uploads = [Upload(label(request.query_params.get("name")), data)] if data else []
    else:
        what = f"not {kind!r}" if kind else "and this body has no Content-Type"
        raise ServiceError(
            415, f"A body is a picture (image/..., application/octet-stream) or a form ({_MULTIPART}), {what}."
        )
    if not uploads:
        raise ServiceError(422, "There is no picture in the body; send some in the field files.", "no_picture")
    return uploads


async def read_form(request: Request, fields: Sequence[str], max_pictures: int) -> list[Upload]:
    """Return the files of a form.

    Raises:
        ServiceError: It is no form (415) or a malformed one (400), a field is unknown (422), or there are too many
            files (413).
    """
    if content_type(request) != _MULTIPART:
        raise ServiceError(415, f"The body has to be a form ({_MULTIPART}).")
    parser = _Parser(request, max_pictures)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if "Too many files" in error.message:
            raise ServiceError(413, f"A request takes {max_pictures} pictures at most.", "too_many") from error
        raise ServiceError(400, f"The form is malformed: {error.message}.".replace("..", ".")) from error
    except (KeyError, ValueError, UnicodeError) as error:  # a boundary that is missing or no text
        raise ServiceError(400, "The form is malformed: its boundary is missing or wrong.") from error
    try:
        return await _uploads(form, fields)
    finally:
        await form.close()


async def _uploads(form: FormData, fields: Sequence[str]) -> list[Upload]:
    uploads = []
    for field, value in form.multi_items():
        if field not in fields:
            raise ServiceError(
                422,
                f"The form has no field {field[:80]!r}{suggest(field, fields)}; it takes {', '.join(fields)}.",
                "bad_option",
            )
        if not isinstance(value, UploadFile):
            raise ServiceError(422, f"The field {field} takes files, with a file name each.", "bad_option")
        uploads.append(Upload(label(value.filename), await value.read(), field))
    return uploads


class _Parser(MultiPartParser):
    # Everything stays in memory, where it is counted.
    spool_max_size = 2**62

    def __init__(self, request: Request, max_files: int) -> None:
        self._is_complete = False
        super().__init__(request.headers, self._checked(request.stream()), max_files=max_files, max_fields=20)

    async def _checked(self, stream: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """Yield the body, and raise a MultiPartException at its end if the form goes on."""
        async for chunk in stream:
            yield chunk
        if not self._is_complete:
            raise MultiPartException("it ends before its last boundary")

    def on_end(self) -> None:
        self._is_complete = True


async def read_json(request: Request) -> Any:
    """Return the JSON value of a body. Raises ServiceError (400)."""
    try:
        return json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise ServiceError(400, "The body is no JSON.") from error


def content_type(request: Request) -> str:
    """Return the type of the body without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def label(name: str | None) -> str:
    """Return the name of a picture as text that can be shown: without control characters, and not too long."""
    clean = re.sub(r"[\x00-\x1f\x7f\ud800-\udfff]", "_", name or "").strip()
    return clean[-_MAX_NAME:] or "picture"
