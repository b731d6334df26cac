"""uvicorn around the application: the socket, slow and silent connections, and the end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from blemish.errors import OutputError
from blemish.serve.app import create_app
from blemish.serve.errors import ServiceError
from blemish.serve.responses import dumps
from blemish.serve.service import Service

log = logging.getLogger("blemish.serve")

#: Seconds in which the headers of a request have to be there, and that an idle connection is kept.
HEADER_SECONDS = 15
#: Connections at the same time; one more closes that which has been idle for longest.
MAX_CONNECTIONS = 1000


class Protocol(H11Protocol):
    """HTTP/1.1 that closes a connection whose headers do not come, or whose answer is not taken."""

    connections: set[Protocol]  # type: ignore[assignment]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._answers, self._idle_since = 0, self.loop.time()
        self._look_later()
        if len(self.connections) > MAX_CONNECTIONS:
            # Idle connections, however many, must not keep others out.
            idle = [each for each in self.connections if each.is_idle and each is not self]
            if idle:
                min(idle, key=lambda each: each._idle_since).transport.close()

    @property
    def is_idle(self) -> bool:
        """Whether the connection is open, and no request is being answered."""
        is_answered = self.cycle is None or self.cycle.response_complete
        return is_answered and not self.transport.get_write_buffer_size() and not self.transport.is_closing()

    def _look_later(self) -> None:
        state = self._answers, self.transport.get_write_buffer_size()
        self._timer = self.loop.call_later(HEADER_SECONDS, self._close_if_silent, *state)

    def _close_if_silent(self, answers: int, unsent: int) -> None:
        """Close the connection if nothing has come or gone since the last look, and no answer is being made."""
        waiting = self.transport.get_write_buffer_size()
        if unsent and waiting == unsent:
            self.transport.abort()  # a mere close would wait until the rest is taken
        elif self.transport.is_closing() and not waiting:
            return
        elif self.is_idle and self._answers == answers:
            self.transport.close()
        else:
            self._look_later()

    def on_response_complete(self) -> None:
        self._answers, self._idle_since = self._answers + 1, self.loop.time()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, unless an answer has begun; either way the connection ends."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = dumps(ServiceError(400, "This is no HTTP request, or its headers are too long.").body())
            headers = [
                ("content-type", "application/json"),
                ("content-length", str(len(body))),
                ("connection", "close"),
            ]
            for event in (h11.Response(status_code=400, headers=headers), h11.Data(body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        super().connection_lost(exc)


class Server(uvicorn.Server):
    """A server that closes its service first when it is to end, and does not raise the signal again."""

    def __init__(self, config: uvicorn.Config, service: Service, on_ready: Callable[[], object]) -> None:
        super().__init__(config)
        self._service, self._on_ready = service, on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    def handle_exit(self, sig: int, frame: Any) -> None:
        self._service.closing = True
        super().handle_exit(sig, frame)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {each: signal.signal(each, self.handle_exit) for each in signals}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to the address.

    Raises:
        OutputError: The address is in use, not allowed, or not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError(
            f"the service cannot listen on {host} port {port}: {reason}; choose another host or port"
        ) from error
    listener.set_inheritable(True)
    return listener


def make_server(service: Service, on_ready: Callable[[], object] = lambda: None) -> Server:
    """Return the server of a service; `server.run(sockets=[...])` serves until SIGTERM or SIGINT.

    Args:
        service: The service; it is started and closed with the server.
        on_ready: Called once the server answers.
    """
    options = service.options
    config = uvicorn.Config(
        create_app(service),
        http=Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=HEADER_SECONDS,
        timeout_graceful_shutdown=max(1, round(options.timeout)) + 5,
        proxy_headers=False,
    )
    return Server(config, service, on_ready)
