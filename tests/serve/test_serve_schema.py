"""schemathesis sends what the OpenAPI document allows, and what it does not: nothing breaks, all answers are as told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.testclient import TestClient

from blemish.serve.profiles import Registry
from service_helpers import files, listening

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def api(registry: Registry) -> Iterator[schemathesis.BaseSchema]:
    with listening(registry, max_bytes=200_000) as (_, port):
        yield schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")


schema = schemathesis.pytest.from_fixture("api")


@schema.parametrize()
@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_answers_are_as_documented(case: schemathesis.Case) -> None:
    case.call_and_validate(checks=CHECKS)


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
