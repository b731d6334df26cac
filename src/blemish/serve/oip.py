"""The Open Inference Protocol, version 2: https://github.com/kserve/open-inference-protocol

A model is a profile or a loaded method. It takes one input: `image`, either BYTES (encoded pictures, base64 in JSON) or
UINT8 with the shape (H, W), (H, W, 3) or (N, H, W, 3). The outputs are score, label, p_value and, if it is asked for,
anomaly_map.
"""

from __future__ import annotations

import base64
import binascii
import math
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import Response

import blemish
from blemish.detection import Detection
from blemish.errors import ImageError, suggest
from blemish.serve.bodies import Upload, read_json
from blemish.serve.errors import ServiceError, from_blemish
from blemish.serve.profiles import Served
from blemish.serve.requests import answered, client_of
from blemish.serve.responses import Finished, dumps
from blemish.serve.schema import OipError, errors
from blemish.serve.service import Service

#: Values of all maps in an answer: as numbers in JSON each takes some 20 bytes.
_MAX_VALUES = 5_000_000
OUTPUTS = ("score", "label", "p_value", "anomaly_map")
_EXAMPLE = {
    "id": "42",
    "inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": ["iVBORw0KGgo..."]}],
    "outputs": [{"name": "score"}, {"name": "label"}],
}
_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["inputs"],
                "properties": {
                    "id": {"type": "string"},
                    "inputs": {
                        "type": "array",
                        "minItems": 1,
                        "maxItems": 1,
                        "items": {
                            "type": "object",
                            "required": ["name", "shape", "datatype", "data"],
                            "properties": {
                                "name": {"type": "string", "enum": ["image"]},
                                "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}},
                                "datatype": {"type": "string", "enum": ["BYTES", "UINT8"]},
                                "data": {"type": "array", "items": {}},
                            },
                        },
                    },
                    "outputs": {
                        "type": "array",
                        "items": {"type": "object", "properties": {"name": {"type": "string", "enum": list(OUTPUTS)}}},
                    },
                },
            },
            "example": _EXAMPLE,
        }
    },
}


def add_routes(app: FastAPI, service: Service) -> None:
    """Add the routes of the protocol."""
    tags: list[Any] = ["open inference protocol"]

    def find(name: str) -> Served:
        registry = service.registry
        known = {**registry.methods, **registry.profiles}
        if name not in known:
            raise ServiceError(404, f"There is no model {name!r}{suggest(name, known)}; there is {', '.join(known)}.")
        return known[name]

    @app.get("/v2", summary="Describe the server", tags=tags, responses=errors(401, form=OipError))
    async def server() -> dict[str, Any]:
        """Describe the server."""
        return {"name": "blemish", "version": blemish.__version__, "extensions": []}

    @app.get("/v2/health/live", summary="Say that the server runs", tags=tags)
    async def live() -> dict[str, Any]:
        """Answer as long as the process runs."""
        return {"live": True}

    @app.get("/v2/health/ready", summary="Say whether models answer", tags=tags, responses=errors(503, form=OipError))
    async def ready() -> dict[str, Any]:
        """Answer 200 while pictures are taken."""
        service.require_ready()
        return {"ready": True}

    @app.get(
        "/v2/models/{name}/ready",
        summary="Say whether a model answers",
        tags=tags,
        responses=errors(401, 404, 422, 503, form=OipError),
    )
    async def model_ready(name: str) -> dict[str, Any]:
        """Answer 200 while the model takes pictures."""
        find(name)
        service.require_ready()
        return {"name": name, "ready": True}

    @app.get("/v2/models/{name}", summary="Describe a model", tags=tags, responses=errors(401, 404, 422, form=OipError))
    async def model(name: str) -> dict[str, Any]:
        """Describe the input and the outputs of a model."""
        served = find(name)
        return {
            "name": served.name,
            "versions": ["1"],
            "platform": f"blemish_{served.detector.provenance.backend}",
            "inputs": [{"name": "image", "datatype": "BYTES", "shape": [-1]}],
            "outputs": [
                {"name": "score", "datatype": "FP32", "shape": [-1]},
                {"name": "label", "datatype": "INT32", "shape": [-1]},
                {"name": "p_value", "datatype": "FP32", "shape": [-1]},
                {"name": "anomaly_map", "datatype": "FP32", "shape": [-1, -1, -1]},
            ],
        }

    @app.post(
        "/v2/models/{name}/infer",
        summary="Score pictures",
        tags=tags,
        response_model=None,
        responses={
            200: {"description": "The outputs.", "content": {"application/json": {"schema": {"type": "object"}}}},
            **errors(400, 401, 403, 404, 408, 413, 422, 429, 500, 503, form=OipError),
        },
        openapi_extra={"requestBody": _BODY},
    )
    async def infer(name: str, request: Request) -> Response:
        """Score pictures. `label` is there with a threshold, `p_value` with a profile, `anomaly_map` if asked for."""
        served, client = find(name), client_of(request)
        service.require_room(client)
        body = await read_json(request)
        output_names = _outputs(body)
        pictures = _pictures(body, service.options.max_pictures)

        def build(finished: Finished) -> Detection:
            return finished.detection

        with service.admitted(client, len(pictures)):
            results = await answered(request, service.detect(pictures, served, build), service.options.timeout)
            detections: list[Detection] = []
            for result in results:
                if isinstance(result, ImageError):
                    raise from_blemish(result)
                detections.append(result)
            head = {"model_name": served.name, "model_version": "1"}
            if isinstance(body.get("id"), str):
                head["id"] = body["id"]
            content = await service.in_finisher(lambda: dumps({**head, "outputs": _answer(detections, output_names)}))
        return Response(content, media_type="application/json")


def _outputs(body: Any) -> list[str]:
    """Return the names of the outputs that are asked for."""
    if not isinstance(body, dict):
        raise ServiceError(400, "The body has to be a JSON object with inputs.")
    asked = body.get("outputs")
    if asked is None or asked == []:
        return ["score", "label", "p_value"]
    if not isinstance(asked, list) or not all(isinstance(output, dict) for output in asked):
        raise ServiceError(400, 'outputs has to be a list of objects such as {"name": "score"}.')
    names = [str(output.get("name")) for output in asked]
    for name in names:
        if name not in OUTPUTS:
            raise ServiceError(
                422, f"There is no output {name[:80]!r}{suggest(name, OUTPUTS)}; there are {', '.join(OUTPUTS)}."
            )
    return names


def _pictures(body: dict[str, Any], maximum: int) -> list[Upload]:
    """Return the pictures of a request: encoded ones as they are, arrays as `LoadedImage` takes them."""
    inputs = body.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise ServiceError(400, "inputs has to be a list of one tensor, named image.")
    tensor = inputs[0]
    shape, data, kind = tensor.get("shape"), tensor.get("data"), tensor.get("datatype")
    if tensor.get("name") != "image":
        raise ServiceError(422, "The input is named image.")
    if not isinstance(shape, list) or not all(type(side) is int and 0 < side < 2**31 for side in shape):
        raise ServiceError(422, "The shape has to be a list of positive whole numbers.")
    if not isinstance(data, list) or not data:
        raise ServiceError(422, "The data has to be a list that is not empty.")
    if kind == "BYTES":
        pictures = _encoded(shape, data)
    elif kind == "UINT8":
        pictures = _arrays(shape, data)
    else:
        raise ServiceError(422, "The datatype has to be BYTES (encoded pictures) or UINT8 (pixels).")
    if len(pictures) > maximum:
        raise ServiceError(413, f"A request takes {maximum} pictures at most.", "too_many")
    return [Upload(f"picture {number}", picture) for number, picture in enumerate(pictures, 1)]


def _encoded(shape: list[int], data: list[Any]) -> list[Any]:
    if math.prod(shape) != len(data) or len(shape) > 2:
        raise ServiceError(422, f"The shape {shape} does not fit {len(data)} elements; it is [number of pictures].")
    try:
        return [base64.b64decode(text, validate=True) for text in data]
    except (binascii.Error, ValueError, TypeError) as error:
        raise ServiceError(422, "An element of BYTES has to be an encoded picture as base64.") from error


def _arrays(shape: list[int], data: list[Any]) -> list[Any]:
    if not (len(shape) == 2 or (len(shape) in (3, 4) and shape[-1] == 3)):
        raise ServiceError(422, "The shape of UINT8 is [H, W], [H, W, 3] or [N, H, W, 3].")
    try:
        values = np.asarray(data)
    except ValueError as error:
        raise ServiceError(422, "The data are not a regular array of numbers.") from error
    is_byte = values.dtype.kind in "iu" and values.size > 0 and values.min() >= 0 and values.max() <= 255
    if not is_byte or math.prod(shape) != values.size:
        raise ServiceError(422, f"The data have to be {math.prod(shape)} whole numbers from 0 to 255.")
    pixels = values.astype(np.uint8).reshape(shape)
    return list(pixels) if len(shape) == 4 else [pixels]


def _answer(detections: list[Detection], output_names: list[str]) -> list[dict[str, Any]]:
    """Return the tensors of the outputs."""
    count = len(detections)
    outputs = []
    for name in output_names:
        if name == "anomaly_map":
            maps = [detection.anomaly_map for detection in detections]
            if len({each.shape for each in maps}) > 1:
                raise ServiceError(422, "The maps differ in size; ask for anomaly_map with pictures of one size.")
            if sum(each.size for each in maps) > _MAX_VALUES:
                raise ServiceError(
                    413,
                    f"The maps have more than {_MAX_VALUES:,} values; send fewer pictures, or ask /v1/detect.",
                )
            shape, kind = [count, *maps[0].shape], "FP32"
            values: list[Any] = np.stack(maps).ravel().tolist()
        else:
            values = [getattr(detection, name) for detection in detections]
            shape, kind = [count], "INT32" if name == "label" else "FP32"
            if None in values:  # no threshold, or no profile
                continue
        outputs.append({"name": name, "datatype": kind, "shape": shape, "data": values})
    return outputs
