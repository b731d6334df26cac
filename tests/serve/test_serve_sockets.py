"""Clients that go away, send slowly or send garbage harm nobody; SIGTERM finishes what was accepted."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import httpx
import pytest
from service_helpers import eventually, files, listening, png, slow

from blemish.errors import OutputError
from blemish.serve import app, server
from blemish.serve.profiles import Registry
from blemish.serve.server import bind
from blemish.serve.service import Service

HEAD = b"POST /v1/detect?method=clip HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\n"


@pytest.fixture(scope="module")
def running(registry: Registry) -> Iterator[tuple[Service, int]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "HEADER_SECONDS", 1)
        with listening(registry, timeout=4, max_bytes=100_000) as both:
            yield both


def answer(port: int, *parts: bytes, pause: float = 0.0) -> bytes:
    """Send parts of a request and return all that comes back until the connection is closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        for part in parts:
            client.sendall(part)
            time.sleep(pause)
        received = b""
        try:
            while data := client.recv(65536):
                received += data
        except ConnectionResetError:
            pass
        return received


def status(received: bytes) -> int:
    return int(received.split(b" ", 2)[1])


def still_serves(port: int) -> None:
    reply = httpx.post(f"http://127.0.0.1:{port}/v1/detect?method=clip", files=files(1), timeout=60)
    assert reply.status_code == 200


def test_garbage(running: tuple[Service, int]) -> None:
    _, port = running
    assert status(answer(port, b"\x16\x03\x01garbage\r\n\r\n")) == 400
    assert status(answer(port, HEAD + b"Content-Length: -5\r\n\r\n")) == 400
    assert status(answer(port, HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n")) == 400
    received = answer(port, HEAD + b"X-Long: " + b"a" * 1_000_000 + b"\r\n\r\n")
    assert status(received) == 400
    assert json.loads(received.partition(b"\r\n\r\n")[2])["error"]["code"] == "bad_request"
    still_serves(port)


def test_garbage_after_the_answer(running: tuple[Service, int], caplog: pytest.LogCaptureFixture) -> None:
    _, port = running
    refused = HEAD.replace(b"clip", b"unknown") + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(refused)
        received = client.recv(65536)
        assert status(received) == 422
        with contextlib.suppress(OSError):
            client.sendall(b"zz\r\n")
            while client.recv(65536):
                pass
    still_serves(port)
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]


def test_requests_in_one_go_are_answered_in_order(running: tuple[Service, int]) -> None:
    _, port = running
    picture = png(1)
    score = HEAD + f"Content-Length: {len(picture)}\r\n\r\n".encode() + picture
    end = b"GET /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    received = answer(port, score + score + end)
    assert re.findall(rb"HTTP/1\.1 (\d+)", received) == [b"200", b"200", b"404"]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"--b\r\n"),
        ("multipart/form-data; boundary=", b"--b\r\n"),
        ("multipart/form-data; boundary=\xe9\xe9", b"--b\r\n"),
        ("multipart/form-data; boundary=" + "b" * 5000, b"--b\r\n"),
        ("multipart/form-data; boundary=b", b""),
        ("multipart/form-data; boundary=b", b"--c\r\nContent-Disposition: form-data; name=files\r\n\r\nx\r\n--c--\r\n"),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data; name=files; filename=a\r\n\r\nx"),
        ("multipart/form-data; boundary=b", b"--b\r\n" + b"A: b\r\n" * 5000 + b"\r\nx\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n"),
    ],
)
def test_a_malformed_form(
    running: tuple[Service, int], kind: str, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    _, port = running
    head = HEAD.replace(b"image/png", kind.encode("latin-1"))
    received = answer(port, head + f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    assert status(received) == 400, received
    error = json.loads(received.partition(b"\r\n\r\n")[2])["error"]
    assert error["code"] == "bad_request"
    assert error["message"].startswith("The form is malformed: ")
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]


def test_idle_connections_keep_nobody_out(running: tuple[Service, int], monkeypatch: pytest.MonkeyPatch) -> None:
    _, port = running
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 5)
    monkeypatch.setattr(server, "HEADER_SECONDS", 600)
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60)) for _ in range(10)]
        still_serves(port)
        assert idle[0].recv(1) == b""  # the first ones made room
        idle[-1].settimeout(0.01)
        with pytest.raises(TimeoutError):
            idle[-1].recv(1)


def test_too_many_open_requests(running: tuple[Service, int], monkeypatch: pytest.MonkeyPatch) -> None:
    _, port = running
    monkeypatch.setattr(app, "MAX_REQUESTS", 0)
    reply = httpx.post(f"http://127.0.0.1:{port}/v1/detect?method=clip", files=files(1), timeout=60)
    assert (reply.status_code, reply.json()["error"]["code"], reply.headers["Retry-After"]) == (503, "unavailable", "1")
    monkeypatch.undo()
    still_serves(port)


def test_clients_that_say_nothing_are_closed(running: tuple[Service, int]) -> None:
    _, port = running
    start = time.monotonic()
    assert answer(port) == b""
    assert answer(port, HEAD) == b""
    assert 1 <= time.monotonic() - start < 60
    still_serves(port)


def test_a_slow_body(running: tuple[Service, int]) -> None:
    service, port = running
    with ThreadPoolExecutor(8) as pool:
        slow_ones = [
            pool.submit(answer, port, HEAD + b"Content-Length: 1000\r\nConnection: close\r\n\r\n", b"abc", b"d")
            for _ in range(7)
        ]
        still_serves(port)  # nobody else waits for them
        for each in slow_ones:
            received = each.result()
            assert status(received) == 408
            assert json.loads(received.partition(b"\r\n\r\n")[2])["error"]["code"] == "too_slow"
    eventually(lambda: service.waiting.bytes == 0)


def test_a_body_that_is_too_large_is_not_read(running: tuple[Service, int]) -> None:
    service, port = running
    assert status(answer(port, HEAD + b"Content-Length: 100001\r\n\r\n")) == 413
    chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    assert status(answer(port, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", chunk, chunk)) == 413
    eventually(lambda: service.waiting.bytes == 0)
    still_serves(port)


def test_a_client_that_goes_away_while_it_sends(running: tuple[Service, int]) -> None:
    service, port = running
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(HEAD + b"Content-Length: 50000\r\n\r\n" + bytes(20_000))
    eventually(lambda: service.waiting.bytes == 0 and service.pictures == 0)
    still_serves(port)


def test_pictures_of_a_client_that_went_away_are_not_scored(registry: Registry) -> None:
    go_on = threading.Event()
    go_on.set()
    slow_registry = slow(registry, go_on=go_on)
    detector: Any = slow_registry.methods["clip"].detector
    with listening(slow_registry, queue=8, batch_size=1, max_pictures=8) as (service, port):
        url = f"http://127.0.0.1:{port}/v1/detect"
        go_on.clear()
        request = httpx.Request("POST", url, files=files(*range(5)))
        lines = [f"{name}: {value}" for name, value in request.headers.items()]
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall("\r\n".join(["POST /v1/detect HTTP/1.1", *lines, "", ""]).encode() + request.read())
            eventually(lambda: service.pictures == 5 and detector.batches == 2)
        eventually(lambda: service.pictures == 0)
        go_on.set()
        assert httpx.post(url, files=files(9), timeout=60).status_code == 200
        # One batch warmed the model up and one was with it already; the four other pictures were left out.
        eventually(lambda: "blemish_batch_pictures_count 3.0" in httpx.get(f"http://127.0.0.1:{port}/metrics").text)
        assert "blemish_batch_pictures_sum 3.0" in httpx.get(f"http://127.0.0.1:{port}/metrics").text


def test_an_address_in_use(running: tuple[Service, int]) -> None:
    with pytest.raises(OutputError, match=r"cannot listen on 127\.0\.0\.1 port"):
        bind("127.0.0.1", running[1])
    with pytest.raises(OutputError, match="cannot listen"):
        bind("no such host", 0)


def test_sigterm_finishes_what_was_accepted(tiny_backbone: Path, tmp_path: Path) -> None:
    words = ["serve", "--method", "clip", "--backbone", str(tiny_backbone), "--device", "cpu", "--port", "0"]
    environment = {**os.environ, "BLEMISH_API_KEY": "secret"}
    command = [sys.executable, "-m", "blemish", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, text=True) as process:
        assert process.stderr is not None
        lines = []
        while "blemish serves clip at " not in (line := process.stderr.readline()):
            assert line, "".join(lines)
            lines.append(line)
        url = line.split(" at ")[1].strip()
        headers = {"Authorization": "Bearer secret"}
        form = [("files", (f"{n}.png", png(n, (400, 300)), "image/png")) for n in range(4)]
        with ThreadPoolExecutor(6) as pool:
            answers = [
                pool.submit(httpx.post, f"{url}v1/detect?return=map", files=form, headers=headers, timeout=60)
                for _ in range(6)
            ]
            accepted = 0.0

            def some_are_accepted() -> bool:
                nonlocal accepted
                text = httpx.get(f"{url}metrics", headers=headers, timeout=60).text
                accepted = float(re.findall(r"^blemish_queue_pictures (\S+)", text, re.MULTILINE)[0])
                return accepted > 0

            eventually(some_are_accepted)
            process.send_signal(signal.SIGTERM)
            wait(answers)
        assert all(isinstance(each.exception(), httpx.TransportError | None) for each in answers)
        replies = [each.result() for each in answers if each.exception() is None]
        assert {reply.status_code for reply in replies} <= {200, 503}  # 503: it came after the signal
        finished = [reply.json()["results"] for reply in replies if reply.status_code == 200]
        assert all(len(results) == 4 for results in finished)
        assert 4 * len(finished) >= accepted
        rest = process.stderr.read()
        assert process.wait(120) == 0
        assert "Traceback" not in rest
        assert "The service has ended." in rest
        assert "secret" not in "".join(lines) + rest
        with pytest.raises(httpx.ConnectError):
            httpx.get(url)
