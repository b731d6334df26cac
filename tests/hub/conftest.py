"""A server on this machine in the place of GitHub, and published files of its own."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from blemish.hub import TABLE, Published


@dataclass
class Server:
    """What it serves and how badly; `requests` is what was asked: (path, Range or None)."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    cuts: list[int] = field(default_factory=list)
    """Bytes after which the next answers break off, one each."""
    answers: list[int] = field(default_factory=list)
    """Status codes of the next answers, before any content."""
    length: bool = True
    requests: list[tuple[str, str | None]] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    server_version, protocol_version = "test", "HTTP/1.1"
    served: Server

    def do_GET(self) -> None:
        served = self.served
        asked = self.headers.get("Range")
        served.requests.append((self.path, asked))
        self.close_connection = True
        if served.answers:
            return self.send_error(served.answers.pop(0))
        if self.path not in served.files:
            return self.send_error(404)
        content = served.files[self.path]
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and served.ranges else 0
        if start and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if served.length:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:]
        self.wfile.write(body[: served.cuts.pop(0)] if served.cuts else body)

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    served = Server()
    running = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"served": served}))
    served.address = f"http://127.0.0.1:{running.server_port}"
    thread = threading.Thread(target=running.serve_forever, args=(0.01,))
    thread.start()
    yield served
    running.shutdown()
    running.server_close()
    thread.join()


def blob_of(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@pytest.fixture
def publish(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts a file on the server and into the table: `publish(name, method, content)`."""
    monkeypatch.setenv("BLEMISH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BLEMISH_WEIGHTS_URL", server.address)

    def put(name: str, method: str, content: bytes) -> Published:
        one = Published(name, method, "plates", "owner/code", "0" * 40, f"weights/{name}.pth", blob_of(content))
        monkeypatch.setitem(TABLE, name, one)
        server.files[f"/owner/code/{'0' * 40}/{one.path}"] = content
        return one

    return put
