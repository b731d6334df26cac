"""Drawn pictures with maps, and a server that answers as the service does, for the tests of the page."""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, urlsplit

import numpy as np
from PIL import Image

from blemish.detection import Detection
from blemish.detector import AMONG_GOOD
from blemish.maps import encode_map
from blemish.page import MAP_SIDE, PagePicture, content_security_policy, make_preview, service_page, write_page

if TYPE_CHECKING:
    from playwright.sync_api import Page

SIZE = (96, 64)
THRESHOLD, MASK_THRESHOLD = 0.5, 0.4
HOSTILE = '<img src=x onerror="document.title=1">\u2028</script><!--.png'


def draw(seed: int, size: tuple[int, int] = SIZE) -> tuple[Image.Image, np.ndarray]:
    """Return a grey picture with dark spots, and a float32 map with a hole and spots that touch at a corner."""
    rng = np.random.default_rng(seed)
    width, height = size
    y, x = np.mgrid[:height, :width]
    values = 0.1 + 0.05 * rng.random((height, width))
    strength = 0.2 + 0.08 * (seed % 9)
    for _ in range(1 + seed % 3):
        cx, cy, radius = rng.integers(12, width - 12), rng.integers(12, height - 12), rng.integers(4, 10)
        distance = np.hypot(x - cx, y - cy)
        values = np.maximum(values, strength * (distance < radius) * (distance > radius / 2))
    values[2:4, 2:4] = values[4:6, 4:6] = strength
    pixels = 150 + 20 * np.sin(x / 5) - 100 * values
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), values.astype(np.float32)


def detection(seed: int, path: str | None = None, **changes: Any) -> Detection:
    """Return a made-up result: the higher the seed (up to 8), the higher the score."""
    values = draw(seed)[1]
    options: dict[str, Any] = {"threshold": THRESHOLD, "mask_threshold": MASK_THRESHOLD, "heatmap_range": (0.1, 0.7)}
    score = float(np.float32(values.max()))
    return Detection(score=score, anomaly_map=values, map_range=(0.0, 1.0), size=SIZE, path=path, **options | changes)


def picture(folder: Path, seed: int, name: str | None = None, **changes: Any) -> PagePicture:
    """Return a picture of a report; its file is written unless its name cannot be one."""
    image, _ = draw(seed)
    path = folder / f"part_{seed}.png" if name is None else name
    result = detection(seed, str(path), **changes)
    preview = None
    if isinstance(path, Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    else:
        preview = make_preview(image)
    return PagePicture({**result.to_dict(), "error": None}, encode_map(result, max_side=MAP_SIDE), preview)


def write_report(folder: Path) -> Path:
    """Write a report of nine pictures, one of them with a hostile name, one without its file, and a failure."""

    def pictures() -> Iterator[PagePicture]:
        for seed in range(8):
            yield picture(folder / "sub", seed)
        yield picture(folder, 8, HOSTILE)
        gone = picture(folder, 4)
        (folder / "part_4.png").unlink()
        yield gone
        yield PagePicture({"path": "=cmd()|'x'.png", "error": "'=cmd()' is cut short; save it again or leave it out."})

    path = folder / "report.html"
    size = write_page(path, pictures(), title="Drawn <parts>", profile={"name": "drawn.profile", "promise": "none"})
    assert (size.pictures, size.unreadable) == (11, 2)
    return path


class FakeService:
    """Answers the page's requests from memory. `fail` may answer any request first.

    Attributes:
        url: Address of the page.
        requests: (method, path with query, headers) of everything asked for.
        forms: (field, file name) of the parts of each form.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.forms: list[list[tuple[str, str]]] = []
        self.threshold = THRESHOLD
        self.fail: Callable[[str, str, dict[str, str]], tuple[int, dict[str, Any], dict[str, str]] | None] = (
            lambda method, path, headers: None
        )
        self.config: dict[str, Any] = {"title": "blemish", "concurrency": 2}
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                fake.answer(self, "GET")

            def do_POST(self) -> None:
                fake.answer(self, "POST")

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop answering: connections are refused from now on."""
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()

    def answer(self, handler: BaseHTTPRequestHandler, method: str) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        self.requests.append((method, handler.path, headers))
        path = urlsplit(handler.path).path
        failure = self.fail(method, path, headers)
        extra: dict[str, str] = {}
        if failure is not None:
            status, content, extra = failure
            data, kind = json.dumps(content).encode(), "application/json"
        elif path == "/":
            status, data, kind = 200, service_page(self.config).encode(), "text/html; charset=utf-8"
            extra = {"Content-Security-Policy": content_security_policy("service") + "; frame-ancestors 'none'"}
        else:
            status, content = self.respond(method, path, parse_qs(urlsplit(handler.path).query), body)
            data, kind = json.dumps(content).encode(), "application/json"
        handler.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **extra}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)

    def respond(self, method: str, path: str, query: dict[str, list[str]], body: bytes) -> tuple[int, dict[str, Any]]:
        """Return status and JSON of one of the endpoints."""
        names = [
            (field.decode(), file.decode()) for field, file in re.findall(rb'name="([^"]+)"; filename="([^"]*)"', body)
        ]
        if method == "GET" and path == "/v1/profiles":
            return 200, {"profiles": [self.profile()]}
        if path == "/v1/detect":
            self.forms.append(names)
            return self.detect(names[0][1], query["return"][0].split(","))
        if path == "/v1/profiles/nut/feedback":
            self.forms.append(names)
            return 200, self.feedback(names)
        if path == "/v1/profiles/nut/feedback/t1":
            self.threshold = 0.62
            return 200, {"profile": self.profile(), "sentence": "The former profile is kept as nut.profile.1."}
        if path == "/v1/profiles/nut/drift":
            return 200, self.drift()
        return 404, {"error": {"code": "not_found", "message": "There is nothing here."}}

    def profile(self) -> dict[str, Any]:
        sentence = "At most 5 % of good pictures are rejected."
        limits = {"threshold": self.threshold, "mask_threshold": MASK_THRESHOLD, "map_range": [0, 1]}
        return {"name": "nut", "object_name": "metal nut", "good": 20, "guarantee": {"sentence": sentence}, **limits}

    def detect(self, name: str, returned: list[str]) -> tuple[int, dict[str, Any]]:
        """Score a picture by the number in its name."""
        number = re.search(r"(\d+)", name)
        if number is None:
            message = f"{name!r} is damaged or not supported; save it again or leave it out."
            return 422, {"error": {"code": "unreadable", "message": message}}
        seed = int(number[1])
        result = detection(seed, threshold=self.threshold)
        entry = {**result.to_dict(), "error": None, "name": name}
        if "map" in returned:
            entry["map"] = {"png": base64.b64encode(encode_map(result)).decode()}
        if "preview" in returned:
            entry["preview"] = {"jpeg": base64.b64encode(make_preview(draw(seed)[0])).decode()}
        return 200, {"results": [entry], "model": {}}

    def drift(self) -> dict[str, Any]:
        """Answer as after many pictures that look like the good ones but for some defects."""
        bins = {"edges": [0, 0.25, 0.5, 1], "calibration": [8, 2, 0], "recent": [2, 5, 3]}
        parts = {
            name: {
                "name": words,
                "meaning": f"About {words}.",
                "level": level,
                "sentence": f"{words}: {level}.",
                **bins,
            }
            for name, words, level in (("scores", "scores", "watch"), ("features", "ordinary places", "ok"))
        }
        words = {"sentence": "The last 200 scores have moved.", "advice": "Look at the latest pictures."}
        return {"level": "watch", **words, "pictures": 200, "own": 0, **parts}

    def feedback(self, names: list[tuple[str, str]]) -> dict[str, Any]:
        pictures = []
        for field, name in names:
            seed = int(re.search(r"(\d+)", name)[1])  # type: ignore[index]
            score = detection(seed).score
            before = "reject" if score >= self.threshold else "pass"
            after = {"score_after": score - 0.01, "verdict_after": "reject" if score - 0.01 >= 0.62 else "pass"}
            after["notes_after"] = [AMONG_GOOD] if field == "false_alarm" else []
            pictures.append({"name": name, "review": field, "score_before": score, "verdict_before": before, **after})
        limits = [
            {"threshold": threshold, "review_threshold": None, "mask_threshold": MASK_THRESHOLD, "good": good}
            | {"false_alarms": 1 / (good + 1), "known_defects": 3, "known_defects_caught": caught}
            for threshold, good, caught in ((0.5, 20, 3), (0.62, 21, 2))
        ]
        sentence = "The threshold rises from 0.500 to 0.620."
        guarantee = {"sentence": "At most 4.8 % of good pictures are rejected."}
        return {
            "token": "t1",
            "before": limits[0],
            "after": limits[1],
            "guarantee": guarantee,
            "pictures": pictures,
            "sentence": sentence,
        }


def until(page: Page, expression: str, seconds: float = 30) -> None:
    """Wait until an expression is true on the page. Playwright's own wait needs `eval`, which the page forbids."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"still not true: {expression}"
        time.sleep(0.02)
