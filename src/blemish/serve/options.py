"""How the service runs: its limits, who may use it, and what else it does."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from blemish.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """Options of the service.

    Attributes:
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        api_key: Key that every request but health and the page has to carry; None asks for none.
        cors: Origins whose pages may call the service, such as "https://line.example".
        max_bytes: Largest body of a request, in bytes.
        max_pixels: Largest picture, in pixels; larger ones are refused before they are decoded.
        max_pictures: Most pictures in a request.
        timeout: Seconds in which a body has to arrive, and in which it has to be answered after that.
        queue: Most pictures that are accepted and not answered yet.
        client_queue: The same for one client address; None sets no limit of its own.
        batch_size: Pictures that go through the model together.
        batch_wait: Seconds that a batch waits for pictures that are being read.
        watch: Folder whose new pictures are scored; None watches none.
        watch_out: Folder for their results; None is the name of `watch` with "-results".
        watch_interval: Seconds between two looks into the folder.
        webhook: URL that each result is posted to; None posts nothing.
        access_log: Log each request.

    Raises:
        UsageError: A value is out of range.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = field(default=None, repr=False)  # a representation may end in a log
    cors: tuple[str, ...] = ()
    max_bytes: int = 64 * 2**20
    max_pixels: int = 64_000_000
    max_pictures: int = 32
    timeout: float = 60.0
    queue: int = 64
    client_queue: int | None = None
    batch_size: int = 8
    batch_wait: float = 0.01
    watch: Path | None = None
    watch_out: Path | None = None
    watch_interval: float = 1.0
    webhook: str | None = field(default=None, repr=False)  # its address may hold a key
    access_log: bool = False

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "max_pictures", "queue", "batch_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.client_queue is not None and self.client_queue < 1:
            raise UsageError(f"client_queue must be at least 1, not {self.client_queue}")
        if not 0 <= self.port <= 65535:
            raise UsageError(f"port must be a number from 0 to 65535, not {self.port}")
        for name in ("timeout", "watch_interval"):
            if not 0 < getattr(self, name) < 1e6:
                raise UsageError(f"{name} must be a number of seconds above 0, not {getattr(self, name)}")
        if not 0 <= self.batch_wait <= 10:
            raise UsageError(f"batch_wait must be from 0 to 10 seconds, not {self.batch_wait}")
        if self.max_pictures > self.queue:
            raise UsageError(
                f"max_pictures is {self.max_pictures}, and the queue takes only {self.queue}: a request has to fit in"
            )
        if self.api_key is not None and (not self.api_key or not self.api_key.isascii() or " " in self.api_key):
            raise UsageError("the API key is a word of ASCII letters, digits and signs, and not empty")
        for origin in self.cors:
            parts = urlsplit(origin)
            if parts.scheme not in ("http", "https") or not parts.netloc or parts.path not in ("", "/"):
                raise UsageError(f"{origin!r} is no origin; write it like https://line.example")
        if self.webhook is not None:
            parts = urlsplit(self.webhook)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise UsageError(
                    f"{self.webhook!r} is no address of a webhook; write it like https://line.example/hook"
                )
        if self.watch is not None and self.results == self.watch:
            raise UsageError("the results of a watched folder need a folder of their own")

    @property
    def results(self) -> Path | None:
        """Folder for the results of the watched folder; None without one."""
        if self.watch is None or self.watch_out is not None:
            return self.watch_out
        return self.watch.with_name(f"{self.watch.name}-results")

    @property
    def max_request_pixels(self) -> int:
        """Pixels of all pictures of a request, at most."""
        return 4 * self.max_pixels

    @property
    def max_waiting_bytes(self) -> int:
        """Bytes of all bodies that are in memory at the same time, at most."""
        return 4 * self.max_bytes
