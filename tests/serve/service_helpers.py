"""Services for tests, slow ones among them, and pictures for them."""

from __future__ import annotations

import contextlib
import io
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image
from starlette.testclient import TestClient

from blemish.detector import Detector
from blemish.serve.app import create_app
from blemish.serve.options import ServeOptions
from blemish.serve.profiles import Registry, Served
from blemish.serve.server import bind, make_server
from blemish.serve.service import Service


@contextlib.contextmanager
def serving(registry: Registry, **options: Any) -> Iterator[TestClient]:
    """Run a service in this process; the client talks to it without a socket."""
    service = Service(registry, ServeOptions(**options))
    with TestClient(create_app(service), "http://127.0.0.1:8000", raise_server_exceptions=False) as client:
        client.service = service  # type: ignore[attr-defined]
        yield client
    assert service.pictures == 0
    assert service.waiting.bytes == 0


@contextlib.contextmanager
def listening(registry: Registry, **options: Any) -> Iterator[tuple[Service, int]]:
    """Run a service on a socket, in a thread; yield it with its port."""
    service = Service(registry, ServeOptions(**options))
    listener = bind("127.0.0.1", 0)
    ready = threading.Event()
    server = make_server(service, ready.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        assert ready.wait(120)
        yield service, listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(120)
        assert not thread.is_alive()
        listener.close()


class SlowDetector(Detector):
    """A detector that takes its time, or waits until it is told to go on."""

    def __init__(self, detector: Detector, seconds: float = 0.0, go_on: threading.Event | None = None) -> None:
        self.__dict__.update(vars(detector))
        self.seconds, self.go_on = seconds, go_on
        self.batches = 0

    def score_prepared(self, batch: Any) -> Any:
        self.batches += 1
        time.sleep(self.seconds)
        if self.go_on is not None:
            assert self.go_on.wait(60)
        return super().score_prepared(batch)


def slow(registry: Registry, **options: Any) -> Registry:
    """Return a registry with one slow method."""
    served = registry.methods["clip"]
    return Registry(methods=[Served("clip", SlowDetector(served.detector, **options))])


def eventually(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def png(seed: int = 0, size: tuple[int, int] = (40, 30)) -> bytes:
    """Return a picture of noise as a PNG file."""
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def files(*seeds: int) -> list[tuple[str, tuple[str, bytes, str]]]:
    """Return a form with pictures."""
    return [("files", (f"{seed}.png", png(seed), "image/png")) for seed in seeds]
