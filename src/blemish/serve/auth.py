"""Who may ask: the API key, and pages of other origins."""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from blemish.serve.errors import ServiceError
from blemish.serve.responses import error_response

#: What answers without a key: the page has no data in it, and health is for whatever restarts the service.
OPEN = frozenset({"/", "/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"})


#: Names of the own machine.
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def _host_name(host: str) -> str:
    """Return the name in a Host header, without the port."""
    try:
        return str(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return ""


class Guard:
    """Middleware that refuses requests without the key, and those that a foreign page made.

    A browser lets any page send a form to this service, and says in `Origin` which page it was. A page may also have a
    name of its own lead to this machine (DNS rebinding); so a service on loopback without a key knows only the names
    of loopback and of `origins`.

    Args:
        app: The application.
        api_key: The key, in `Authorization: Bearer KEY` or `X-API-Key: KEY`; None asks for none.
        origins: Origins that may call besides the service's own.
    """

    def __init__(self, app: ASGIApp, *, api_key: str | None, origins: tuple[str, ...], loopback: bool = False) -> None:
        self._app, self._key = app, None if api_key is None else api_key.encode()
        self._origins = {origin.rstrip("/").lower() for origin in origins}
        self._hosts: frozenset[str] | None = None
        if loopback and api_key is None:
            self._hosts = LOOPBACK | {str(urlsplit(origin).hostname) for origin in origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                self._check(scope["method"], scope["path"], Headers(scope=scope))
            except ServiceError as error:
                await error_response(error, scope["path"])(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, method: str, path: str, headers: Headers) -> None:
        if self._hosts is not None and _host_name(headers.get("host", "")) not in self._hosts:
            raise ServiceError(
                403,
                "This service is for its own machine: call it by 127.0.0.1 or localhost, or allow the name (--cors).",
                "foreign_host",
            )
        origin = headers.get("origin")
        if origin is not None and method not in ("GET", "HEAD", "OPTIONS") and not self._knows(origin, headers):
            raise ServiceError(
                403, "A page of another origin sent this request; allow its origin (--cors) if it may do so."
            )
        if self._key is None or path in OPEN or method == "OPTIONS":
            return
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self._key):
            what = "is wrong" if given else "is missing"
            raise ServiceError(401, f"The API key {what}; send it as Authorization: Bearer KEY.")

    def _knows(self, origin: str, headers: Headers) -> bool:
        # A proxy that ends TLS changes the scheme, so only host and port are compared.
        host = origin.partition("://")[2].lower()
        return host == headers.get("host", "").lower() or origin.lower() in self._origins
