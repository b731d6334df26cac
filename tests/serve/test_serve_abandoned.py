"""Work that nobody waits for ends: its client has left, its time is over, or the service closes."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from service_helpers import SlowDetector, eventually, listening, png

from blemish.fitting.pictures import PictureScorer
from blemish.serve import review
from blemish.serve.profiles import Registry, Served, load_registry
from blemish.serve.service import Service
from blemish.types import Tiling

FEEDBACK = "/v1/profiles/part/feedback"


@dataclass
class Gate:
    """Stops each picture of a preview until it may go on."""

    begun: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)
    pictures: int = 0


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    gate, measure = Gate(), PictureScorer._result

    def measured(*arguments: Any) -> Any:
        gate.pictures += 1
        gate.begun.set()
        assert gate.go_on.wait(60)
        return measure(*arguments)

    monkeypatch.setattr(PictureScorer, "_result", measured)
    return gate


@pytest.fixture
def running(profile_file: Path, tiny_backbone: Path, tmp_path: Path) -> Iterator[tuple[Service, int]]:
    file = shutil.copy(profile_file, tmp_path / "part.profile")
    registry = load_registry([file], backbone=str(tiny_backbone), device="cpu", precision="float32")
    with listening(registry, access_log=True) as both:
        yield both


def form() -> list[tuple[str, tuple[str, bytes, str]]]:
    return [("missed", (f"{seed}.png", png(seed), "image/png")) for seed in range(4)]


def send(client: socket.socket, request: httpx.Request) -> None:
    """Send a request and do not wait for its answer."""
    lines = [f"{name}: {value}" for name, value in request.headers.items()]
    head = [f"POST {request.url.raw_path.decode()} HTTP/1.1", *lines, "", ""]
    client.sendall("\r\n".join(head).encode() + request.read())


def requests(service: Service, status: str) -> float:
    """Return how many requests had this status."""
    samples = (sample for metric in service.metrics.requests.collect() for sample in metric.samples)
    return sum(each.value for each in samples if each.name.endswith("_total") and each.labels["status"] == status)


def nothing_goes_on(service: Service, gate: Gate) -> None:
    """Let the preview go on and see that it ends with the picture that it was at."""
    gate.go_on.set()
    service._background.submit(int).result(60)  # there is one thread
    assert gate.pictures == 1


def test_a_preview_whose_client_leaves(
    running: tuple[Service, int], gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    service, port = running
    caplog.set_level("INFO", "blemish.serve")
    with socket.create_connection(("127.0.0.1", port)) as client:
        send(client, httpx.Request("POST", f"http://127.0.0.1:{port}{FEEDBACK}", files=form()))
        assert gate.begun.wait(60)
    eventually(lambda: requests(service, "499") == 1)
    nothing_goes_on(service, gate)
    assert service.pictures == 0
    assert not service.feedback._pending
    lines = [record for record in caplog.records if record.name.startswith("blemish")]
    assert [record.levelname for record in lines if record.levelname != "INFO"] == []
    assert any(" 499 (the client went away) " in record.getMessage() for record in lines)


def test_a_preview_that_takes_too_long(
    running: tuple[Service, int], gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, port = running
    monkeypatch.setattr(review, "_PATIENCE", 0.001)
    answer = httpx.post(f"http://127.0.0.1:{port}{FEEDBACK}", files=form(), timeout=60)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "timeout")
    gate.go_on.set()
    service._background.submit(int).result(60)
    assert gate.pictures <= 1  # the time may be over before the first one


def test_a_preview_while_the_service_closes(running: tuple[Service, int], gate: Gate) -> None:
    service, port = running
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(httpx.post, f"http://127.0.0.1:{port}{FEEDBACK}", files=form(), timeout=60)
        assert gate.begun.wait(60)
        service.closing = True  # as a signal does
        nothing_goes_on(service, gate)
        assert (answer.result().status_code, answer.result().json()["error"]["code"]) == (503, "closing")


def test_the_tiles_of_a_client_that_left_are_not_scored(registry: Registry) -> None:
    go_on = threading.Event()
    go_on.set()
    tiled = registry.methods["clip"].detector.replaced(tiling=Tiling(64, 0.25))
    detector = SlowDetector(tiled, go_on=go_on)
    with listening(Registry(methods=[Served("clip", detector)]), batch_size=1) as (service, port):
        url = f"http://127.0.0.1:{port}/v1/detect"
        go_on.clear()
        with socket.create_connection(("127.0.0.1", port)) as client:
            send(client, httpx.Request("POST", url, files=[("files", ("a.png", png(0, (200, 150)), "image/png"))]))
            eventually(lambda: detector.batches == 2)  # the first one was for warming up
        eventually(lambda: service.pictures == 0)
        go_on.set()
        assert httpx.post(url, files=[("files", ("b.png", png(1), "image/png"))], timeout=60).status_code == 200
        assert detector.batches == 3
