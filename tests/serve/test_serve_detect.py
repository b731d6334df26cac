"""`POST /v1/detect`: the same numbers as everywhere else, what can be asked for, and what is refused."""

from __future__ import annotations

import base64
import io
import json
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from service_helpers import eventually, files, png, serving, slow
from starlette.testclient import TestClient

from blemish.detector import Detector
from blemish.maps import decode_map
from blemish.serve.profiles import Registry
from helpers import decode_mask, save_picture

SIZES = [(40, 30), (64, 48), (31, 57)]


def test_scores_are_those_of_the_library(client: TestClient, registry: Registry) -> None:
    detector = registry.profiles["part"].detector
    pictures = [png(number, size) for number, size in enumerate(SIZES)]
    form = [("files", (f"{number}.png", data, "image/png")) for number, data in enumerate(pictures)]
    answer = client.post("/v1/detect", files=form).json()
    assert answer["model"]["profile"] == "part"
    for number, (entry, data) in enumerate(zip(answer["results"], pictures, strict=True)):
        own = json.loads(json.dumps(detector(data).to_dict()))
        for key in ("score", "peak", "p_value"):
            assert entry[key] == pytest.approx(own[key], abs=1e-6), key
        for key in set(own) - {"timing", "score", "peak", "p_value", "regions"}:
            assert entry[key] == own[key], key
        assert [region["box"] for region in entry["regions"]] == [region["box"] for region in own["regions"]]
        assert entry["name"] == f"{number}.png"
        assert entry["error"] is None
        assert entry["path"] is None


def test_a_body_can_be_the_picture(client: TestClient, registry: Registry) -> None:
    detector = registry.methods["clip"].detector
    answer = client.post(
        "/v1/detect?method=clip&name=a/b.png&object=screw", content=png(3), headers={"Content-Type": "image/png"}
    ).json()
    (entry,) = answer["results"]
    assert entry["name"] == "a/b.png"
    assert entry["score"] == pytest.approx(detector(png(3), object_name="screw").score, abs=1e-6)
    assert entry["label"] is None
    assert answer["model"]["profile"] is None


def test_names_are_only_labels(client: TestClient, tmp_path: Path) -> None:
    secret = save_picture(tmp_path / "secret.png")
    for name in (str(secret), "../../etc/passwd", "http://127.0.0.1:1/x.png", "\x00\n"):
        answer = client.post("/v1/detect", files=[("files", (name, b"no picture", "image/png"))])
        assert answer.status_code == 422
        assert answer.json()["error"]["code"] == "unreadable"
        assert "passwd" not in answer.text


def test_parts(client: TestClient, registry: Registry) -> None:
    detection = registry.profiles["part"].detector(png(5)).with_threshold(0.0, 0.2)
    words = "regions,polygons,rle,map,map-tiff,overlay,preview"
    (entry,) = client.post(f"/v1/detect?return={words}&threshold=0&mask_threshold=0.2", files=files(5)).json()[
        "results"
    ]

    def image(data: str) -> Image.Image:
        picture = Image.open(io.BytesIO(base64.b64decode(data)))
        picture.load()
        return picture

    values, low, high, step = decode_map(base64.b64decode(entry["map"]["png"]))
    assert step == 1
    assert np.abs(values - detection.anomaly_map).max() <= (high - low) / 65535
    assert np.array_equal(np.asarray(image(entry["map_tiff"]["tiff"])), detection.anomaly_map)
    assert image(entry["overlay"]["jpeg"]).height > 30  # the legend is below
    assert image(entry["preview"]["jpeg"]).size == (40, 30)
    assert np.array_equal(decode_mask(entry["mask"]), detection.mask)
    assert len(entry["regions"]) == len(detection.regions) > 0
    assert "polygon" in entry["regions"][0]
    (plain,) = client.post("/v1/detect?return=regions&threshold=0&mask_threshold=0.2", files=files(5)).json()["results"]
    assert len(plain["regions"]) == len(detection.regions)
    assert "polygon" not in plain["regions"][0]
    (small,) = client.post("/v1/detect?return=map&map_side=10", files=files(5)).json()["results"]
    assert max(decode_map(base64.b64decode(small["map"]["png"])).values.shape) == 10
    assert small["regions"] == []


def test_thresholds_of_a_request(client: TestClient) -> None:
    def entry(query: str) -> dict[str, object]:
        result: dict[str, object] = client.post(f"/v1/detect?{query}", files=files(1)).json()["results"][0]
        return result

    assert entry("threshold=0")["verdict"] == "reject"
    assert entry("threshold=1")["verdict"] == "pass"
    assert entry("threshold=1")["review_threshold"] is None
    assert entry("")["review_threshold"] is not None
    assert len(entry("threshold=0&mask_threshold=0&min_area=1200")["regions"]) == 1  # type: ignore[arg-type]
    assert entry("threshold=0&mask_threshold=0&min_area=1201")["regions"] == []


def test_an_unreadable_picture_among_others(client: TestClient) -> None:
    form = [*files(1), ("files", ("b.png", png(2)[:200], "image/png")), *files(3)]
    answer = client.post("/v1/detect", files=form)
    assert answer.status_code == 200
    first, broken, last = answer.json()["results"]
    assert first["error"] is last["error"] is None
    assert broken == {"name": "b.png", "path": None, "error": broken["error"]}
    assert broken["error"] == "The picture is cut short; save it again or leave it out."


REFUSED = [
    ("?treshold=1", 422, "bad_option", "did you mean threshold"),
    ("?return=regoins", 422, "bad_option", "did you mean regions"),
    ("?threshold=7", 422, "bad_option", "threshold is wrong: input should be less than or equal to 1, not '7'."),
    ("?min_area=0", 422, "bad_option", "min_area is wrong"),
    ("?object=", 422, "bad_option", "object is wrong"),
    ("?object=%20", 422, "bad_option", "object name"),
    ("?profile=prt", 404, "unknown_profile", "did you mean part"),
    ("?method=joint", 422, "bad_option", "is not loaded"),
    ("?method=clop", 422, "bad_option", "did you mean clip"),
    ("?method=clip&profile=part", 422, "bad_option", "not both"),
    ("?object=screw", 422, "bad_option", "was made for 'part'"),
]


@pytest.mark.parametrize(("query", "status", "code", "words"), REFUSED)
def test_wrong_options(client: TestClient, query: str, status: int, code: str, words: str) -> None:
    answer = client.post(f"/v1/detect{query}", files=files(1))
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["code"] == code
    assert words in error["message"]
    assert error["message"].endswith(".")


def test_wrong_bodies(client: TestClient) -> None:
    def refused(status: int, code: str, **request: object) -> None:
        answer = client.post("/v1/detect", **request)  # type: ignore[arg-type]
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text

    form = {"Content-Type": "multipart/form-data; boundary=x"}
    refused(415, "unsupported_type", content=b"x", headers={"Content-Type": "text/plain"})
    refused(415, "unsupported_type", content=b"x")
    refused(422, "unreadable", content=b"x", headers={"Content-Type": "image/png"})
    refused(422, "no_picture", content=b"", headers={"Content-Type": "image/png"})
    refused(422, "no_picture", content=b"--x--\r\n", headers=form)
    refused(422, "bad_option", files=[("file", ("a.png", png(), "image/png"))])
    refused(422, "bad_option", files=files(1), data={"files": "a.png"})
    refused(400, "bad_request", content=b"garbage", headers=form)
    refused(400, "bad_request", content=b"garbage", headers={"Content-Type": "multipart/form-data"})
    refused(413, "too_many", files=files(*range(33)))
    assert client.get("/v1/detect").json()["error"]["code"] == "method_not_allowed"
    assert client.get("/v1/detekt").json()["error"]["code"] == "not_found"


def bomb(width: int, height: int) -> bytes:
    """Return a small PNG file that claims to be large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_limits(registry: Registry) -> None:
    with serving(registry, max_bytes=20_000, max_pixels=2000, max_pictures=3) as client:
        image = {"Content-Type": "image/png"}
        for data in (bomb(60_000, 60_000), png(0, (60, 40))):
            answer = client.post("/v1/detect", content=data, headers=image)
            assert answer.status_code == 422
            assert "more than" in answer.json()["error"]["message"]
        assert client.post("/v1/detect", files=files(*range(3))).status_code == 200
        assert client.post("/v1/detect", files=files(*range(4))).json()["error"]["code"] == "too_many"
        too_large = client.post("/v1/detect", content=bytes(20_001), headers=image)
        assert too_large.status_code == 413
        assert "20,000 bytes" in too_large.json()["error"]["message"]
        # Without a length, and with one that lies.
        for headers in (image, {**image, "Content-Length": "10"}):
            answer = client.post("/v1/detect", content=(bytes(5000) for _ in range(8)), headers=headers)
            assert answer.status_code == 413, headers
        assert client.post("/v1/detect", content=png(), headers=image).status_code == 200


def test_pictures_that_are_too_large_together(registry: Registry) -> None:
    with serving(registry, max_pixels=2000) as client:
        answer = client.post("/v1/detect", files=files(*range(7)))  # 1,200 pixels each, of 8,000
        assert answer.status_code == 413
        assert "8,400 pixels together" in answer.json()["error"]["message"]
        assert client.post("/v1/detect", files=files(*range(6))).status_code == 200


def test_a_full_queue_turns_clients_away(registry: Registry) -> None:
    go_on = threading.Event()
    go_on.set()
    with serving(slow(registry, go_on=go_on), queue=4, max_pictures=3) as client, ThreadPoolExecutor() as pool:
        service = client.service  # type: ignore[attr-defined]
        go_on.clear()
        accepted = pool.submit(client.post, "/v1/detect", files=files(1, 2, 3))
        eventually(lambda: service.pictures == 3)
        refused = client.post("/v1/detect", files=files(4, 5))
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "queue_full"
        assert 1 <= int(refused.headers["Retry-After"]) <= 30
        last = pool.submit(client.post, "/v1/detect", files=files(6))
        eventually(lambda: service.pictures == 4)
        # Now the body is not even read.
        assert client.post("/v1/detect", content=b"", headers={"Content-Type": "image/png"}).status_code == 429
        assert client.get("/health/ready").status_code == 200
        go_on.set()
        assert accepted.result().status_code == last.result().status_code == 200
        assert client.post("/v1/detect", files=files(4, 5)).status_code == 200


def test_one_client_cannot_take_the_whole_queue(registry: Registry) -> None:
    with serving(registry, client_queue=2) as client:
        answer = client.post("/v1/detect", files=files(1, 2, 3))
        assert answer.status_code == 429
        assert answer.json()["error"]["code"] == "client_queue_full"


def test_an_answer_that_takes_too_long(registry: Registry) -> None:
    go_on = threading.Event()
    go_on.set()
    with serving(slow(registry, go_on=go_on), timeout=0.3) as client:
        go_on.clear()
        answer = client.post("/v1/detect", files=files(1))
        go_on.set()
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "timeout"
        assert client.service.pictures == 0  # type: ignore[attr-defined]


def test_requests_share_batches_and_keep_their_options(registry: Registry) -> None:
    go_on = threading.Event()
    go_on.set()
    sizes: list[int] = []
    slow_registry = slow(registry, go_on=go_on)
    detector: Any = slow_registry.methods["clip"].detector
    with serving(slow_registry) as client, ThreadPoolExecutor(8) as pool:
        model = client.service.model  # type: ignore[attr-defined]
        count = model._on_batch
        model._on_batch = lambda pictures, seconds: (sizes.append(pictures), count(pictures, seconds))
        go_on.clear()
        first = pool.submit(client.post, "/v1/detect", files=files(0))
        eventually(lambda: detector.batches == 2)  # the first is the one that warms the model up
        queries = [f"threshold={number % 2}&object={'screw' if number < 3 else 'nut'}" for number in range(6)]
        answers = [pool.submit(client.post, f"/v1/detect?{query}", files=files(9)) for query in queries]
        eventually(lambda: model.waiting == 6)
        go_on.set()
        assert first.result().status_code == 200
        entries = [answer.result().json()["results"][0] for answer in answers]
    assert sizes[-2:] == [1, 6]
    assert [entry["verdict"] for entry in entries] == ["reject", "pass"] * 3
    for number, entry in enumerate(entries):
        name = "screw" if number < 3 else "nut"
        assert entry["score"] == pytest.approx(detector(png(9), object_name=name).score, abs=1e-6)


def test_an_error_of_the_model_ends_only_its_requests(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(registry) as client:
        monkeypatch.setattr(Detector, "score_prepared", lambda *_: 1 / 0)
        answer = client.post("/v1/detect", files=files(1))
        assert answer.status_code == 500
        assert answer.json()["error"] == {
            "code": "internal",
            "message": "The service failed: ZeroDivisionError; its log says where.",
        }
        monkeypatch.undo()
        assert client.post("/v1/detect", files=files(1)).status_code == 200


def test_tiles(tiny_backbone: Path) -> None:
    from blemish.serve.profiles import load_registry

    settings = {"backbone": str(tiny_backbone), "device": "cpu", "precision": "float32", "tile": 32}
    own = load_registry(methods=["clip"], **settings)  # type: ignore[arg-type]
    with serving(own) as client:
        for size in ((100, 70), (20, 20)):
            data = png(1, size)
            (entry,) = client.post("/v1/detect", files=[("files", ("a", data, "image/png"))]).json()["results"]
            assert entry["score"] == pytest.approx(own.methods["clip"].detector(data).score, abs=1e-6)
