"""Lines without a programmer: the watched folder, and the webhook."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from service_helpers import eventually, files, png, serving

from blemish.errors import OutputError
from blemish.serve.profiles import Registry, Served
from blemish.serve.webhook import Webhook
from helpers import save_picture


def lines(folder: Path) -> list[dict[str, Any]]:
    journal = folder / "results.jsonl"
    return [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []


def watching(registry: Registry, folder: Path, **options: Any) -> Any:
    return serving(registry, watch=folder, watch_interval=0.05, **options)


def test_pictures_are_scored_once_even_after_a_restart(registry: Registry, tmp_path: Path) -> None:
    folder, results = tmp_path / "in", tmp_path / "in-results"
    save_picture(folder / "a.png", 1)
    (folder / "broken.png").write_bytes(b"x")
    (folder / "notes.txt").write_text("no picture")
    with watching(registry, folder) as client:
        eventually(lambda: len(lines(results)) == 2)
        save_picture(folder / "b.png", 2)
        eventually(lambda: len(lines(results)) == 3)
        time.sleep(0.3)
        assert len(lines(results)) == 3
        detector = registry.profiles["part"].detector
        by_name = {Path(line["path"]).name: line for line in lines(results)}
        for name in ("a.png", "b.png"):
            assert by_name[name]["score"] == pytest.approx(detector(folder / name).score, abs=1e-6)
            assert (results / by_name[name]["files"]["overlay"]).is_file()
        assert "no format that blemish reads" in by_name["broken.png"]["error"]
        eventually((results / "results.csv").exists)
        assert 'blemish_watched_pictures_total{outcome="scored"} 2.0' in client.get("/metrics").text
        # Nobody else writes there meanwhile.
        with pytest.raises(OutputError, match="another run"), watching(registry, folder):
            pass
    assert "b.png" in (results / "results.csv").read_text()
    other = Registry([Served("part", detector.with_profile(detector.profile, threshold=0.5))])  # type: ignore[arg-type]
    with watching(other, folder):
        save_picture(folder / "c.png", 3)
        eventually(lambda: any(line["path"].endswith("c.png") for line in lines(results)))
        scored = [Path(line["path"]).name for line in lines(results) if line.get("score") is not None]
        assert sorted(scored) == ["a.png", "b.png", "c.png"]
        # A file that changes is another picture.
        save_picture(folder / "a.png", 9)
        score = detector(folder / "a.png").score
        eventually(lambda: any(line.get("score") == pytest.approx(score, abs=1e-6) for line in lines(results)))


def test_a_file_that_still_grows_is_not_taken(registry: Registry, tmp_path: Path) -> None:
    folder, data = tmp_path / "in", png(1)
    folder.mkdir()
    with serving(registry, watch=folder, watch_interval=1000) as client:
        look = client.service._watcher.look  # type: ignore[attr-defined]
        with (folder / "slow.png").open("wb") as stream:
            for start in range(0, len(data), 1 + len(data) // 8):
                stream.write(data[start : start + 1 + len(data) // 8])
                stream.flush()
                assert look() == 0
        assert look() == 1
    (line,) = lines(tmp_path / "in-results")
    assert line["error"] is None


class Receiver(HTTPServer):
    """A webhook that answers with the statuses it is given, then with 200."""

    def __init__(self, statuses: list[int]) -> None:
        self.statuses, self.bodies = statuses, list[dict[str, Any]]()
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        if status == 200:
            self.server.bodies.append(body)
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def receiving(*statuses: int) -> Iterator[tuple[Receiver, str]]:
    receiver = Receiver(list(statuses))
    thread = threading.Thread(target=receiver.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield receiver, f"http://127.0.0.1:{receiver.server_port}/hook"
    finally:
        receiver.shutdown()
        thread.join()
        receiver.server_close()


def test_each_result_is_posted(registry: Registry, tmp_path: Path) -> None:
    with receiving() as (receiver, url):
        save_picture(tmp_path / "in" / "a.png", 1)
        with watching(registry, tmp_path / "in", webhook=url) as client:
            (entry,) = client.post("/v1/detect?return=map", files=files(1)).json()["results"]
            eventually(lambda: len(receiver.bodies) == 2)
        posted = {body["name"]: body for body in receiver.bodies}
        assert posted["1.png"]["score"] == entry["score"]
        assert posted["1.png"]["model"] == "part"
        assert "map" not in posted["1.png"]
        assert posted["a.png"]["path"] == os.fspath(tmp_path / "in" / "a.png")


def test_a_result_is_sent_again_and_dropped_in_the_end() -> None:
    outcomes: list[str] = []
    with receiving(500, 302, 500, 500, 500) as (receiver, url):
        webhook = Webhook(url, outcomes.append, pauses=(0.01, 0.01))
        webhook.start()
        webhook.post({"name": "first"})
        webhook.post({"name": "second"})
        eventually(lambda: len(outcomes) == 6)
        webhook.close()
        assert outcomes == ["retried", "retried", "dropped", "retried", "retried", "sent"]
        assert receiver.bodies == [{"name": "second"}]


def test_the_queue_of_the_webhook_is_bounded() -> None:
    outcomes: list[str] = []
    webhook = Webhook("http://127.0.0.1:9/", outcomes.append, pauses=(), max_waiting=3)
    for number in range(10):
        webhook.post({"name": number})
    assert outcomes == ["dropped"] * 7
    assert [json.loads(data)["name"] for data in webhook._waiting] == [7, 8, 9]
    webhook.start()
    webhook.close()
    assert outcomes == ["dropped"] * 10
