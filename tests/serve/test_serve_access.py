"""Who may ask, what is told about the service, and the Open Inference Protocol."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from service_helpers import files, png, serving
from starlette.testclient import TestClient

from blemish.errors import UsageError
from blemish.serve.auth import OPEN
from blemish.serve.options import ServeOptions
from blemish.serve.profiles import Registry


def test_the_key(registry: Registry) -> None:
    with serving(registry, api_key="secret") as client:
        for path in OPEN:
            assert client.get(path).status_code == 200, path
        for path in ("/v1/profiles", "/metrics", "/openapi.json", "/v2", "/nothing"):
            assert client.get(path).status_code == 401, path
        answer = client.post("/v1/detect", files=files(1), headers={"Authorization": "Bearer wrong"})
        assert answer.status_code == 401
        assert answer.json() == {
            "error": {
                "code": "unauthorized",
                "message": "The API key is wrong; send it as Authorization: Bearer KEY.",
            }
        }
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert client.get("/v1/profiles", headers={"Authorization": "Basic secret"}).status_code == 401
        assert client.get("/v1/profiles", headers={"X-API-Key": "secré".encode()}).status_code == 401
        for headers in (
            {"Authorization": "Bearer secret"},
            {"authorization": "bearer secret"},
            {"X-API-Key": "secret"},
        ):
            assert client.post("/v1/detect", files=files(1), headers=headers).status_code == 200


def test_pages_of_other_origins(registry: Registry) -> None:
    with serving(registry, cors=("https://line.example",)) as client:
        statuses = {
            origin: client.post("/v1/detect", files=files(1), headers={"Origin": origin}).status_code
            for origin in ("http://127.0.0.1:8000", "https://line.example", "https://evil.example", "null")
        }
        assert list(statuses.values()) == [200, 200, 403, 403]
        preflight = {"Origin": "https://line.example", "Access-Control-Request-Method": "POST"}
        assert (
            client.options("/v1/detect", headers=preflight).headers["Access-Control-Allow-Origin"]
            == preflight["Origin"]
        )
        preflight["Origin"] = "https://evil.example"
        assert "Access-Control-Allow-Origin" not in client.options("/v1/detect", headers=preflight).headers


def test_the_page(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.headers["content-type"].startswith("text/html")
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert '"mode": "service"' in answer.text or '"mode":"service"' in answer.text


def test_names_of_the_machine(registry: Registry) -> None:
    def status(client: TestClient, host: str) -> int:
        return client.get("/v1/methods", headers={"Host": host}).status_code

    with serving(registry, cors=("https://line.example",)) as client:
        for host in ("localhost:8000", "127.0.0.1", "[::1]:8000", "line.example"):
            assert status(client, host) == 200, host
        for host in ("evil.example:8000", "", "[", "127.0.0.1.evil.example"):
            assert status(client, host) == 403, host
    with serving(registry, host="0.0.0.0") as client:
        assert status(client, "camera-7.local") == 200


def test_facts(client: TestClient, registry: Registry) -> None:
    (profile,) = client.get("/v1/profiles").json()["profiles"]
    limits = registry.profiles["part"].detector.limits
    assert (profile["name"], profile["method"], profile["good"]) == ("part", "winclip", 24)
    assert profile["threshold"] == limits.threshold
    assert profile["guarantee"]["sentence"]
    methods = {method["name"]: method["loaded"] for method in client.get("/v1/methods").json()["methods"]}
    assert methods["clip"] is methods["winclip"] is True
    assert methods["joint"] is False
    assert [model["name"] for model in client.get("/v1/model").json()["models"]] == ["part", "clip", "winclip"]
    assert client.get("/health/ready").json() == {"status": "ready"}
    client.post("/v1/detect", files=files(1))
    text = client.get("/metrics").text
    assert 'blemish_requests_total{route="/v1/detect",status="200"}' in text
    assert "blemish_queue_pictures 0.0" in text


def test_one_backbone_for_all(registry: Registry) -> None:
    served = [*registry.profiles.values(), *registry.methods.values()]
    assert len({id(each.detector.torch_engine.backbone) for each in served}) == 1


def test_open_inference_protocol(client: TestClient, registry: Registry) -> None:
    detector = registry.profiles["part"].detector
    assert client.get("/v2").json()["name"] == "blemish"
    assert client.get("/v2/models/part/ready").json()["ready"] is True
    assert client.get("/v2/models/part").json()["inputs"][0]["datatype"] == "BYTES"
    data = [base64.b64encode(png(seed)).decode() for seed in (1, 2)]
    body = {
        "id": "7",
        "inputs": [{"name": "image", "shape": [2], "datatype": "BYTES", "data": data}],
        "outputs": [{"name": name} for name in ("score", "label", "p_value", "anomaly_map")],
    }
    answer = client.post("/v2/models/part/infer", json=body).json()
    assert (answer["id"], answer["model_name"]) == ("7", "part")
    outputs = {output["name"]: output for output in answer["outputs"]}
    expected = [detector(png(seed)) for seed in (1, 2)]
    assert outputs["score"]["data"] == pytest.approx([each.score for each in expected], abs=1e-6)
    assert outputs["label"]["data"] == [each.label for each in expected]
    assert outputs["anomaly_map"]["shape"] == [2, 30, 40]
    assert outputs["anomaly_map"]["data"][:1200] == pytest.approx(expected[0].anomaly_map.ravel().tolist(), abs=1e-6)

    pixels = np.random.default_rng(0).integers(0, 255, (2, 20, 30, 3), dtype=np.uint8)
    tensor = {"name": "image", "shape": list(pixels.shape), "datatype": "UINT8", "data": pixels.ravel().tolist()}
    answer = client.post("/v2/models/clip/infer", json={"inputs": [tensor]}).json()
    (score,) = answer["outputs"]  # the method has no threshold
    clip = registry.methods["clip"].detector
    assert score["data"] == pytest.approx([clip(picture).score for picture in pixels], abs=1e-6)


TENSOR = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(png()).decode()]}


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ([], 400, "JSON object"),
        ({}, 400, "one tensor"),
        ({"inputs": [{**TENSOR, "name": "picture"}]}, 422, "named image"),
        ({"inputs": [{**TENSOR, "shape": [2]}]}, 422, "does not fit"),
        ({"inputs": [{**TENSOR, "data": ["%%%"]}]}, 422, "base64"),
        ({"inputs": [{**TENSOR, "data": [1]}]}, 422, "base64"),
        ({"inputs": [{**TENSOR, "data": ["aGFsbG8="]}]}, 422, "no format"),
        ({"inputs": [{**TENSOR, "datatype": "FP32"}]}, 422, "BYTES"),
        ({"inputs": [{**TENSOR, "datatype": "UINT8", "shape": [1, 2], "data": [0, 256]}]}, 422, "from 0 to 255"),
        ({"inputs": [{**TENSOR, "datatype": "UINT8", "shape": [1, 2], "data": [0, "x"]}]}, 422, "from 0 to 255"),
        ({"inputs": [{**TENSOR, "datatype": "UINT8", "shape": [2, 2, 2], "data": [0] * 8}]}, 422, "The shape"),
        ({"inputs": [TENSOR], "outputs": [{"name": "scores"}]}, 422, "did you mean score"),
    ],
)
def test_wrong_tensors(client: TestClient, body: object, status: int, words: str) -> None:
    answer = client.post("/v2/models/part/infer", json=body)
    assert answer.status_code == status, answer.text
    assert words in answer.json()["error"]
    assert client.post("/v2/models/other/infer", json=body).json()["error"].startswith("There is no model 'other'")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"queue": 0}, "queue"),
        ({"port": 70_000}, "port"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"queue": 4, "max_pictures": 5}, "fit in"),
        ({"api_key": "two words"}, "API key"),
        ({"api_key": ""}, "API key"),
        ({"cors": ("line.example",)}, "origin"),
        ({"cors": ("*",)}, "origin"),
        ({"webhook": "file:///etc/passwd"}, "webhook"),
    ],
)
def test_wrong_options_of_the_service(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ServeOptions(**options)  # type: ignore[arg-type]
