"""The routes of the loop: feedback into a profile, and its drift."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Annotated

from fastapi import FastAPI, Query, Request
from fastapi.responses import JSONResponse, Response

from blemish.serve.bodies import read_form
from blemish.serve.feedback import FIELDS
from blemish.serve.requests import answered, client_of
from blemish.serve.schema import AcceptAnswer, DriftAnswer, PreviewAnswer, errors
from blemish.serve.service import Service

#: Most pictures of a review; their bytes and pixels are bounded, too.
MAX_REVIEWED = 1000
#: A preview may take so many times as long as other answers: it scores good pictures of the profile again.
_PATIENCE = 10

_FILES = {"type": "array", "items": {"type": "string", "format": "binary"}}
_BODY = {
    "required": True,
    "content": {"multipart/form-data": {"schema": {"type": "object", "properties": dict.fromkeys(FIELDS, _FILES)}}},
}


def add_routes(app: FastAPI, service: Service) -> None:
    """Add the routes of the loop."""

    @app.post(
        "/v1/profiles/{name}/feedback",
        summary="Preview what reviewed pictures would change",
        tags=["profiles"],
        response_model=None,
        responses={
            200: {"model": PreviewAnswer, "description": "The change. Nothing is written before it is accepted."},
            **errors(400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 500, 503),
        },
        openapi_extra={"requestBody": _BODY},
    )
    async def preview(
        name: str,
        request: Request,
        whole_batch: Annotated[
            bool,
            Query(
                description="These are all pictures of a batch that was not selected by score. Its good ones then move "
                "the threshold; otherwise they are only compared with."
            ),
        ] = False,
    ) -> Response:
        """Say what would change if these pictures went back into the profile.

        `false_alarm`: good pictures that were rejected; they become good pictures of the profile. `missed`: defects
        that passed; they are kept as known defects. `confirmed_good`, `confirmed_defect`: others that were reviewed.
        """
        served, client = service.registry.profile(name), client_of(request)
        service.require_room(client)
        uploads = await read_form(request, FIELDS, MAX_REVIEWED)
        with service.admitted(client, 1):  # the model is not asked picture by picture
            preview = partial(service.feedback.preview, served, uploads, whole_batch=whole_batch)
            work = service.in_background(lambda check: preview(check=check))
            return JSONResponse(await answered(request, work, _PATIENCE * service.options.timeout))

    @app.post(
        "/v1/profiles/{name}/feedback/{token}",
        summary="Accept a preview",
        tags=["profiles"],
        response_model=None,
        responses={
            200: {"model": AcceptAnswer, "description": "The profile is written and in force."},
            **errors(401, 403, 404, 409, 422, 429, 503),
        },
    )
    async def accept(name: str, token: str) -> Response:
        """Write the profile of a preview and put it in force; the former file is kept beside it."""
        service.registry.profile(name)
        service.require_ready()
        # Not cancelled when the client goes away: the file is written, or it is not.
        answer = await asyncio.shield(
            asyncio.ensure_future(service.in_background(lambda _: service.feedback.accept(name, token)))
        )
        service.forget_drift(name)
        return JSONResponse(answer)

    @app.get(
        "/v1/profiles/{name}/drift",
        summary="Say whether pictures have changed",
        tags=["profiles"],
        response_model=None,
        responses={
            200: {"model": DriftAnswer, "description": "The last pictures beside the good ones."},
            **errors(401, 404, 422),
        },
    )
    async def drift(name: str) -> Response:
        """Compare the last pictures with the good ones of the profile."""
        service.registry.profile(name)
        report = await service.in_finisher(service.drift(name).report)
        return JSONResponse(report)
