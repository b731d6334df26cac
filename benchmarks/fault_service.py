"""Faults over HTTP: a server of weights that misbehaves, and a service that is killed."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import random
import shutil
import signal
import socket
import threading
import time
import types
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fault_files

#: What the server can do instead of answering.
_KINDS = (
    "drop",
    "cut",
    "wrong",
    "flip",
    "503",
    "404",
    "slow",
    "no ranges",
    "wrong range",
    "longer",
    "no length",
    "stall",
)


def behave(rng: random.Random) -> dict[str, Any]:
    """Return a way to misbehave for one request."""
    return {"do": rng.choice(_KINDS), "at": rng.random(), "seed": rng.randrange(2**32), "seconds": 0.2}


class FaultyServer:
    """A process that serves one file, each request as the plan says.

    Args:
        root: Folder with `published.pth`; the plan lies there, too.
    """

    def __init__(self, root: Path) -> None:
        self._plan = root / "server-plan.json"
        self.plan([])
        server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, root, self._plan))
        self.address = f"http://127.0.0.1:{server.server_port}"
        self._process = os.fork()
        if self._process == 0:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            server.handle_error = lambda request, address: None  # type: ignore[method-assign]
            server.serve_forever()
        server.socket.close()

    def plan(self, ways: Sequence[dict[str, Any]]) -> None:
        """Say how the next requests are answered; those after them well."""
        _write(self._plan, list(ways))

    def left(self) -> int:
        """Return how many of the plan's requests did not come."""
        return len(json.loads(self._plan.read_text()))

    def stop(self) -> None:
        """End the process."""
        os.kill(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)


def _write(path: Path, value: Any) -> None:
    new = path.with_suffix(".new")
    new.write_text(json.dumps(value))
    new.replace(path)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    turn = threading.Lock()

    def __init__(self, root: Path, plan: Path, *rest: Any) -> None:
        self.root, self.plan = root, plan
        super().__init__(*rest)

    def do_GET(self) -> None:
        with self.turn:
            ways = json.loads(self.plan.read_text())
            way = ways.pop(0) if ways else {"do": "well"}
            _write(self.plan, ways)
        do, content = way["do"], (self.root / "published.pth").read_bytes()
        self.close_connection = True
        if do == "drop":
            return None
        if do == "stall":
            time.sleep(1)
            return None
        if do in ("503", "404"):
            return self.send_error(int(do))
        asked = self.headers.get("Range")
        start = 0 if do == "no ranges" or not asked else int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        body = bytearray(content[start:])
        at = int(way.get("at", 0) * len(body))
        if do == "wrong":
            body[:] = random.Random(way["seed"]).randbytes(len(body))
        elif do == "flip":
            body[at] ^= 1
        elif do == "longer":
            body += bytes(1000)
        self.send_response(206 if start else 200)
        if start:
            first = start + 1 if do == "wrong range" else start
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        if do not in ("no length", "longer"):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        body = body[:at] if do in ("cut", "no length") else body
        pieces = 20 if do == "slow" else 1
        size = -(-len(body) // pieces) or 1
        for begin in range(0, len(body), size):
            self.wfile.write(body[begin : begin + size])
            time.sleep(way["seconds"] / pieces if do == "slow" else 0)
        return None

    def log_message(self, *words: object) -> None:
        pass


def no_pauses() -> None:
    """Let downloads try again at once."""
    from blemish.hub import download

    download.time = types.SimpleNamespace(sleep=lambda seconds: None)  # type: ignore[assignment]


# A service


def _ask(port: int, method: str, path: str, form: Sequence[tuple[str, bytes]] = ()) -> tuple[int, Any]:
    """Send a request and return status and answer."""
    body, words = b"", {}
    if form:
        for name, data in form:
            head = f'--x\r\nContent-Disposition: form-data; name="{name}"; filename="{name}.png"\r\n'
            body += head.encode() + b"Content-Type: image/png\r\n\r\n" + data + b"\r\n"
        body += b"--x--\r\n"
        words["Content-Type"] = "multipart/form-data; boundary=x"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        connection.request(method, path, body, words)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read() or b"null")


@contextlib.contextmanager
def _service(bench: Any, trial: Any, count: int | None = None) -> Iterator[tuple[int, int]]:
    """Run a service in the bench's folder; yield its process and its port."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    words = ["serve", "--profile", str(bench.out / "part.profile"), "--backbone", str(bench.root / "tiny")]
    words += ["--device", "cpu", "--precision", "float32", "--port", str(port)]
    setup = (lambda: None) if count is None else functools.partial(fault_files.kill_at, str(bench.out), count)
    process = bench.start(words, setup)
    try:
        for _ in range(6000):
            with contextlib.suppress(OSError, http.client.HTTPException):
                if _ask(port, "GET", "/health/ready")[0] == 200:
                    break
            time.sleep(0.01)
        yield process, port
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGTERM)
        ended = bench.end(process)
        if ended.trouble:
            trial.find("wrong", ended.trouble)


def _score(port: int) -> float:
    status, answer = _ask(port, "POST", "/v1/detect", [("files", fault_files.picture_bytes(1))])
    if status != 200:
        raise RuntimeError(f"{status}: {answer}")
    return float(answer["results"][0]["score"])


def serve_and_kill(bench: Any, rng: random.Random, trial: Any) -> Any:
    """Kill a service while it accepts feedback: at an operation on a file, or by a signal at a random moment."""
    from blemish.profile import read_profile

    shutil.rmtree(bench.out, ignore_errors=True)
    bench.out.mkdir()
    shutil.copyfile(bench.root / "finished" / "fit" / "part.profile", bench.out / "part.profile")
    old = read_profile(bench.out / "part.profile")
    accepted = False
    count = rng.randint(1, 5) if rng.random() < 0.5 else None
    number = signal.SIGKILL if count else rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])

    def accept(port: int, token: str) -> None:
        nonlocal accepted
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            accepted = _ask(port, "POST", f"/v1/profiles/part/feedback/{token}")[0] == 200

    with _service(bench, trial, count) as (process, port):
        before = _score(port)
        status, preview = _ask(
            port, "POST", "/v1/profiles/part/feedback", [("false_alarm", fault_files.picture_bytes(1))]
        )
        if status != 200:
            trial.find("wrong", f"{status}: {preview}")
            return trial
        thread = threading.Thread(target=accept, args=(port, preview["token"]))
        thread.start()
        if count is None:
            time.sleep(rng.uniform(0, 0.2))
            os.kill(process, number)
        thread.join()
    trial.tried += 1
    try:
        now = read_profile(bench.out / "part.profile")
    except Exception as error:
        trial.find("lost", f"{type(error).__name__}: {error}")
        return trial
    is_new = len(now.good) == len(old.good) + 1
    if accepted and not is_new:
        trial.find("lost", "what was accepted is gone")
    if is_new and not any(
        read_profile(path).summary() == old.summary() for path in bench.out.glob("part.profile.[0-9]*")
    ):
        trial.find("lost", "the former profile is gone")
    with _service(bench, trial) as (_, port):
        after = _score(port)
        if not is_new and after != before:
            trial.find("wrong", f"the score was {before} and is {after}")
        status, answer = _ask(port, "GET", "/v1/profiles")
        good = [each["good"] for each in answer["profiles"]] if status == 200 else []
        if good != [len(now.good)]:
            trial.find("wrong", f"the profiles are {answer}")
    return trial
