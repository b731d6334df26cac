"""What every route does with a request: checks its options, and waits for the answer no longer than it should."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from blemish.errors import suggest
from blemish.serve.errors import ServiceError

T = TypeVar("T")


def client_of(request: Request) -> str:
    """Return the address of the client."""
    return request.client.host if request.client is not None else "unknown"


async def known_options(request: Request) -> None:
    """Refuse options that the route does not have, since a misspelt one would change nothing silently."""
    known = [parameter.alias for parameter in request.scope["route"].dependant.query_params]
    for name in request.query_params:
        if name not in known:
            raise ServiceError(
                422,
                f"There is no option {name[:80]!r}{suggest(name, known)}; there are {', '.join(known)}.",
                "bad_option",
            )


async def answered(request: Request, work: Coroutine[Any, Any, T], timeout: float) -> T:
    """Return the result of the work; it is cancelled when the client goes away or the time is over.

    Raises:
        ServiceError: The time is over (503).
        ClientDisconnect: The client went away.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if gone.done():
            raise ClientDisconnect
        raise ServiceError(
            503, f"The answer took longer than {timeout:g} seconds; send fewer pictures.", "timeout", retry_after=5
        )
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
