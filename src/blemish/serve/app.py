"""The application: routes of pictures, profiles and health, and what stands around them."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import blemish
from blemish.errors import BlemishError, ImageError
from blemish.methods import info, list_methods
from blemish.page import content_security_policy, service_page
from blemish.serve import metrics, oip, profiles, responses, review
from blemish.serve.auth import LOOPBACK, Guard
from blemish.serve.bodies import BodyLimits, read_pictures
from blemish.serve.errors import ServiceError, from_blemish, sentence
from blemish.serve.requests import answered, client_of, known_options
from blemish.serve.responses import PARTS, Finished, Wish, error_response
from blemish.serve.schema import (
    DetectAnswer,
    Health,
    MethodsAnswer,
    ModelAnswer,
    ProfilesAnswer,
    errors,
)
from blemish.serve.service import Service

log = logging.getLogger("blemish.serve")
access = logging.getLogger("blemish.serve.access")

#: Status of a request whose client went away, in metrics and the log; nobody receives it.
CLIENT_GONE = 499
#: Requests at the same time, those included whose bodies are still coming.
MAX_REQUESTS = 1000

_PICTURE = {"type": "string", "format": "binary"}
_DETECT_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["files"],
                "properties": {"files": {"type": "array", "minItems": 1, "items": _PICTURE}},
            }
        },
        "image/*": {"schema": _PICTURE},
        "application/octet-stream": {"schema": _PICTURE},
    },
}
_DETECT_EXAMPLE = {
    "results": [
        {
            "name": "part.jpg",
            "path": None,
            "size": [1200, 900],
            "score": 0.81,
            "label": 1,
            "verdict": "reject",
            "p_value": 0.016,
            "threshold": 0.62,
            "review_threshold": 0.55,
            "mask_threshold": 0.7,
            "regions": [{"box": [10, 20, 40, 60], "area": 812, "peak": 0.93, "mean": 0.8, "centroid": [24.1, 40.2]}],
            "in_profile": None,
            "error": None,
        }
    ],
    "model": {
        "name": "part",
        "profile": "part",
        "method": "joint",
        "backbone": "builtin",
        "backbone_fingerprint": "0123456789abcdef",
        "version": "0.1.0",
    },
}


def create_app(service: Service) -> FastAPI:
    """Return the ASGI application of a service, which it starts and closes."""
    options = service.options

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.close()

    app = FastAPI(
        title="blemish",
        version=blemish.__version__,
        description="Finds defects in pictures. Every error has the body "
        '`{"error": {"code": "...", "message": "One sentence."}}`; under /v2 it is `{"error": "One sentence."}`.',
        lifespan=lifespan,
        docs_url=None,  # both load their code from elsewhere
        redoc_url=None,
    )
    app.state.service = service
    _handle_errors(app)
    # The last one added is the outermost.
    app.add_middleware(BodyLimits, max_bytes=options.max_bytes, timeout=options.timeout, waiting=service.waiting)
    app.add_middleware(Guard, api_key=options.api_key, origins=options.cors, loopback=options.host in LOOPBACK)
    if options.cors:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(options.cors),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key"],
            expose_headers=["Retry-After"],
        )
    app.add_middleware(Observed, service=service)
    _add_page(app, service)
    _add_detect(app, service)
    _add_facts(app, service)
    _add_health(app, service)
    review.add_routes(app, service)
    oip.add_routes(app, service)
    return app


def _add_page(app: FastAPI, service: Service) -> None:
    own = service.options
    text = service_page(
        {
            "title": "blemish",
            "version": blemish.__version__,
            "max_bytes": own.max_bytes,
            "max_pixels": own.max_pixels,
            "concurrency": max(1, min(2, own.queue, own.client_queue or 2)),
            "method": next(iter(service.registry.methods), None),
        }
    )
    policy = f"{content_security_policy('service')}; frame-ancestors 'none'"

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(text, headers={"Content-Security-Policy": policy})


def _add_detect(app: FastAPI, service: Service) -> None:
    @app.post(
        "/v1/detect",
        summary="Score pictures",
        tags=["pictures"],
        response_model=None,
        responses={
            200: {
                "model": DetectAnswer,
                "description": "One result for each picture, in order. A picture that cannot be read has `error`.",
                "content": {"application/json": {"example": _DETECT_EXAMPLE}},
            },
            **errors(400, 401, 403, 404, 408, 413, 415, 422, 429, 500, 503),
        },
        openapi_extra={"requestBody": _DETECT_BODY},
        dependencies=[Depends(known_options)],
    )
    async def detect(
        request: Request,
        profile: Annotated[str | None, Query(description="Name of a profile; by default the first one.")] = None,
        method: Annotated[str | None, Query(description="Name of a loaded method, in place of a profile.")] = None,
        object: Annotated[
            str | None, Query(min_length=1, max_length=200, description="What the pictures show, such as metal nut.")
        ] = None,
        threshold: Annotated[
            float | None, Query(ge=0, le=1, description="Threshold in place of the profile's; it promises nothing.")
        ] = None,
        mask_threshold: Annotated[
            float | None, Query(ge=0, le=1, description="The same for pixels, as a fraction of map_range.")
        ] = None,
        min_area: Annotated[int | None, Query(ge=1, le=10**9, description="Smallest region in pixels.")] = None,
        returned: Annotated[
            str | None,
            Query(alias="return", description=f"Comma list of {', '.join(PARTS)}; by default regions,polygons."),
        ] = None,
        map_side: Annotated[int | None, Query(ge=1, le=100_000, description="Longest side of the map as PNG.")] = None,
        name: Annotated[str | None, Query(description="Name of a picture that is the body itself.")] = None,
    ) -> Response:
        """Score one or many pictures: a form with the field `files`, or one picture as the body."""
        served = service.registry.find(profile, method)
        parts = responses.parse_parts(returned)
        wish = Wish(parts, threshold, mask_threshold, min_area, map_side)
        client = client_of(request)
        service.require_room(client)  # before the body is read
        uploads = await read_pictures(request, min(service.options.max_pictures, service.options.queue))

        def build(finished: Finished) -> bytes:
            detection = wish.apply(finished.detection, served.detector.limits)
            return responses.dumps(responses.entry(replace(finished, detection=detection), wish))

        with service.admitted(client, len(uploads)):
            results = await answered(request, service.detect(uploads, served, build, object), service.options.timeout)
        failed = [result for result in results if isinstance(result, ImageError)]
        if len(failed) == len(results):
            raise from_blemish(failed[0])
        entries = [
            responses.dumps(responses.failure(upload.name, sentence(result)))
            if isinstance(result, ImageError)
            else result
            for upload, result in zip(uploads, results, strict=True)
        ]
        return responses.results_response(entries, served)


def _add_facts(app: FastAPI, service: Service) -> None:
    @app.get(
        "/v1/profiles",
        summary="List the profiles in force",
        tags=["facts"],
        response_model=ProfilesAnswer,
        responses=errors(401),
    )
    async def list_profiles() -> Any:
        """List the profiles with their thresholds and what these promise; the first one is the default."""
        return JSONResponse({"profiles": [profiles.describe(served) for served in service.registry.profiles.values()]})

    @app.get(
        "/v1/methods",
        summary="List the methods",
        tags=["facts"],
        response_model=MethodsAnswer,
        responses=errors(401),
    )
    async def methods() -> Any:
        """List all methods; those that are loaded can be asked for."""
        infos = [info(name) for name in list_methods()]
        return {
            "methods": [
                {
                    "name": method.name,
                    "title": method.title,
                    "loaded": method.name in service.registry.methods,
                    "needs_object": method.needs_object,
                    "few_shot": method.few_shot,
                    "url": method.url,
                }
                for method in infos
            ]
        }

    @app.get(
        "/v1/model",
        summary="Describe what is loaded",
        tags=["facts"],
        response_model=ModelAnswer,
        responses=errors(401),
    )
    async def model() -> Any:
        """Describe the models in force and the limits of the service."""
        own, registry = service.options, service.registry
        limits = ("max_bytes", "max_pixels", "max_pictures", "timeout", "queue", "batch_size")
        return {
            "version": blemish.__version__,
            "models": [responses.model(served) for served in (*registry.profiles.values(), *registry.methods.values())],
            "limits": {name: getattr(own, name) for name in limits},
        }


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/health/live", summary="Say that the process runs", tags=["health"], response_model=Health)
    async def live() -> Any:
        """Answer as long as the process runs."""
        return {"status": "live"}

    @app.get(
        "/health/ready",
        summary="Say whether pictures are taken",
        tags=["health"],
        response_model=Health,
        responses=errors(503),
    )
    async def ready() -> Any:
        """Answer 200 while pictures are taken, 503 before and while the service shuts down."""
        service.require_ready()
        return {"status": "ready"}

    @app.get(
        "/metrics",
        summary="Metrics for Prometheus",
        tags=["health"],
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **errors(401)},
    )
    async def all_metrics() -> Response:
        """Return the metrics in the text format of Prometheus."""
        await service.in_finisher(service.drift_levels)
        return Response(service.metrics.text(), media_type=metrics.CONTENT_TYPE)


def _handle_errors(app: FastAPI) -> None:
    """Give every error the one body."""

    @app.exception_handler(ServiceError)
    async def refused(request: Request, error: ServiceError) -> Response:
        return error_response(error, request.url.path)

    @app.exception_handler(BlemishError)
    async def failed(request: Request, error: BlemishError) -> Response:
        return error_response(from_blemish(error), request.url.path)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        name = next((str(part) for part in reversed(first["loc"]) if isinstance(part, str)), "the request")
        given = f", not {str(first['input'])[:100]!r}" if isinstance(first.get("input"), str | int | float) else ""
        words = f"{name} is wrong: {first['msg'][:1].lower()}{first['msg'][1:]}{given}."
        return error_response(ServiceError(422, words, "bad_option"), request.url.path)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404:
            own = ServiceError(
                404, f"There is nothing at {request.url.path[:200]!r}; /openapi.json lists the addresses."
            )
        elif error.status_code == 405:
            own = ServiceError(405, f"{request.url.path[:200]!r} does not take {request.method[:20]}.")
        else:
            own = ServiceError(400, sentence(error.detail))
        response = error_response(own, request.url.path)
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return error_response(ServiceError(CLIENT_GONE, "The client went away.", "client_gone"), request.url.path)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            own = ServiceError(503, "The service is out of memory; send fewer or smaller pictures.", retry_after=5)
        else:
            own = ServiceError(500, f"The service failed: {type(error).__name__}; its log says where.")
        return error_response(own, request.url.path)


class Observed:
    """Middleware that counts requests, refuses what is too many at once, and logs them."""

    def __init__(self, app: ASGIApp, *, service: Service) -> None:
        self._app, self._service = app, service
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 0

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._open += 1
        try:
            if self._open <= MAX_REQUESTS:
                await self._app(scope, receive, observed)
            else:
                error = ServiceError(503, "Too many requests are open; try again in a moment.", retry_after=1)
                await error_response(error, scope["path"])(scope, receive, observed)
        finally:
            self._open -= 1
            seconds = time.perf_counter() - start
            route = getattr(scope.get("route"), "path", "other")
            own = self._service.metrics
            own.requests.labels(route, str(status)).inc()
            own.seconds.labels(route).observe(seconds)
            if self._service.options.access_log:
                words = " (the client went away)" if status == CLIENT_GONE else ""
                access.info("%s %s %d%s %.3f s", scope["method"], route, status, words, seconds)
