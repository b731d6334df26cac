"""Answers: one entry per picture, with what was asked for as base64, and the one form of every error."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from PIL import Image
from starlette.responses import JSONResponse, Response

from blemish.detection import Detection
from blemish.detector import with_thresholds
from blemish.errors import suggest
from blemish.image_io import LoadedImage
from blemish.maps import encode_map
from blemish.page import make_preview
from blemish.profile import Limits
from blemish.regions import encode_mask
from blemish.serve.errors import ServiceError
from blemish.serve.profiles import IN_PROFILE, Served

Part: TypeAlias = Literal["regions", "polygons", "rle", "map", "map-tiff", "overlay", "preview"]
PARTS: tuple[Part, ...] = get_args(Part)
"""What an entry can have besides its numbers."""
DEFAULT_PARTS: tuple[Part, ...] = ("regions", "polygons")

#: Longest side of a JPEG file.
_MAX_JPEG_SIDE = 65500


@dataclass(frozen=True)
class Wish:
    """What a request wants to know about its pictures.

    Attributes:
        parts: What entries have besides their numbers.
        threshold, mask_threshold: Thresholds in place of those of the profile or service; they promise nothing.
        min_area: Smallest region in pixels; None = that of the profile.
        map_side: Longest side of the map as PNG; None = that of the picture.
    """

    parts: frozenset[Part] = frozenset(DEFAULT_PARTS)
    threshold: float | None = None
    mask_threshold: float | None = None
    min_area: int | None = None
    map_side: int | None = None

    def apply(self, detection: Detection, limits: Limits) -> Detection:
        """Return the detection under the thresholds of the request."""
        if (self.threshold, self.mask_threshold, self.min_area) == (None, None, None):
            return detection
        limits = with_thresholds(limits, self.threshold, self.mask_threshold)
        return detection.with_threshold(
            limits.threshold,
            limits.mask_threshold,
            review_threshold=limits.review_threshold,
            min_area=self.min_area,
        )


def parse_parts(words: str | None) -> frozenset[Part]:
    """Return the parts in a comma-separated list; None = the usual ones. Raises ServiceError (422)."""
    if words is None:
        return frozenset(DEFAULT_PARTS)
    parts = [word.strip() for word in words.split(",") if word.strip()]
    for word in parts:
        if word not in PARTS:
            raise ServiceError(
                422,
                f"There is no {word[:80]!r} to return{suggest(word, PARTS)}; choose from {', '.join(PARTS)}.",
                "bad_option",
            )
    return frozenset(parts)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Finished:
    """A picture with its result."""

    name: str
    """What the client calls it."""
    image: LoadedImage
    detection: Detection

    def line(self) -> dict[str, Any]:
        """Return the numbers, JSON-able; "in_profile" is what the profile keeps a picture with the same pixels as."""
        place = next((IN_PROFILE[note] for note in self.detection.notes if note in IN_PROFILE), None)
        return {"name": self.name, **self.detection.to_dict(), "in_profile": place, "error": None}


def entry(finished: Finished, wish: Wish) -> dict[str, Any]:
    """Return what is answered for a picture: its numbers and the parts that were asked for."""
    line, detection = finished.line(), finished.detection
    if "polygons" not in wish.parts:
        for region in line["regions"]:
            del region["polygon"]
    if not wish.parts & {"regions", "polygons"}:
        line["regions"] = []
    if "rle" in wish.parts:
        line["mask"] = None if detection.mask is None else encode_mask(detection.mask)
    if "map" in wish.parts:
        line["map"] = {"png": _base64(encode_map(detection, wish.map_side))}
    if "map-tiff" in wish.parts:
        line["map_tiff"] = {"tiff": _base64(_tiff(detection))}
    if "overlay" in wish.parts:
        line["overlay"] = {"jpeg": _base64(_jpeg(detection.overlay(finished.image)))}
    if "preview" in wish.parts:
        line["preview"] = {"jpeg": _base64(make_preview(finished.image.image))}
    return line


def failure(name: str, reason: str) -> dict[str, Any]:
    """Return the entry of a picture that cannot be read."""
    return {"name": name, "path": None, "error": reason}


def model(served: Served) -> dict[str, Any]:
    """Return what answered: name and provenance, JSON-able."""
    detector = served.detector
    return {
        **detector.provenance.to_dict(),
        "name": served.name,
        "profile": None if served.profile is None else served.name,
        "object_name": detector.object_name,
        "threshold": detector.threshold,
    }


def dumps(value: Any) -> bytes:
    """Return JSON as bytes."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def results_response(entries: Iterable[bytes], served: Served) -> Response:
    """Return the answer to a request, from entries that are JSON already."""
    body = b'{"results":[' + b",".join(entries) + b'],"model":' + dumps(model(served)) + b"}"
    return Response(body, media_type="application/json")


def error_response(error: ServiceError, path: str = "") -> Response:
    """Return the answer for an error; that of the Open Inference Protocol is a text only."""
    body: dict[str, Any] = error.body()
    if is_oip(path):
        body = {"error": error.message}
    return JSONResponse(body, status_code=error.status, headers=error.headers)


def is_oip(path: str) -> bool:
    """Return whether an address belongs to the Open Inference Protocol."""
    return path == "/v2" or path.startswith("/v2/")


def _tiff(detection: Detection) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(detection.anomaly_map).save(stream, "TIFF", compression="tiff_adobe_deflate")
    return stream.getvalue()


def _jpeg(image: Image.Image) -> bytes:
    if max(image.size) > _MAX_JPEG_SIDE:
        image.thumbnail((_MAX_JPEG_SIDE, _MAX_JPEG_SIDE))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=90)
    return stream.getvalue()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
