"""schemathesis sends what the OpenAPI document allows, and what it does not: all answers are as the document says."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from service_helpers import files, listening
from starlette.testclient import TestClient

from blemish.serve.profiles import Registry

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def api(registry: Registry) -> Iterator[schemathesis.BaseSchema]:
    with listening(registry, max_bytes=200_000) as (_, port):
        yield schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_answers_are_as_documented(api: schemathesis.BaseSchema, mode: GenerationMode) -> None:
    seen = set()
    for result in api.get_all_operations():
        operation = result.ok()

        @settings(
            max_examples=8,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case: schemathesis.Case) -> None:
            case.call_and_validate(checks=CHECKS, timeout=20)

        with contextlib.suppress(Unsatisfiable):  # nothing about it can be wrong
            check()
        seen.add(operation.label)
    assert {"POST /v1/detect", "POST /v1/profiles/{name}/feedback", "POST /v2/models/{name}/infer"} <= seen


def test_the_document(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["summary"], path
            for status, response in operation["responses"].items():
                # FastAPI would tell of its own body for errors of validation.
                if status != "200" and not path.startswith("/v2"):
                    (content,) = response["content"].values()
                    assert content["schema"]["$ref"].endswith("/ErrorBody"), (path, status)
    detect = document["paths"]["/v1/detect"]["post"]
    assert set(detect["requestBody"]["content"]) == {"multipart/form-data", "image/*", "application/octet-stream"}
    assert "example" in detect["responses"]["200"]["content"]["application/json"]
    assert client.post("/v1/detect", files=files(1)).status_code == 200
