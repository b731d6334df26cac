"""The forms of answers, for OpenAPI: what `blemish.serve.responses` and its neighbours write."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from blemish.serve.errors import CODES


class _Form(BaseModel):
    model_config = ConfigDict(extra="allow")


class ErrorDetail(BaseModel):
    """What went wrong."""

    code: str
    message: str


class ErrorBody(BaseModel):
    """The body of every answer that is an error."""

    error: ErrorDetail


class OipError(BaseModel):
    """The body of an error of the Open Inference Protocol."""

    error: str


class RegionForm(_Form):
    """A connected region of anomalous pixels; `box` is (x0, y0, x1, y1), half-open."""

    box: list[int]
    area: int
    peak: float
    mean: float
    centroid: list[float]
    polygon: list[list[list[int]]] | None = None


class PngForm(_Form):
    """A PNG file as base64."""

    png: str


class JpegForm(_Form):
    """A JPEG file as base64."""

    jpeg: str


class Entry(_Form):
    """The result of one picture; one that cannot be read has only name, path and error."""

    name: str
    path: str | None
    error: str | None
    score: float | None = None
    label: int | None = None
    verdict: Literal["pass", "review", "reject"] | None = None
    p_value: float | None = None
    threshold: float | None = None
    review_threshold: float | None = None
    mask_threshold: float | None = None
    size: list[int] | None = None
    map_range: list[float] | None = None
    heatmap_range: list[float] | None = None
    map_step: int | None = None
    peak: float | None = None
    regions: list[RegionForm] | None = None
    notes: list[str] | None = None
    in_profile: Literal["good", "known_defect"] | None = None
    map: PngForm | None = None
    overlay: JpegForm | None = None
    preview: JpegForm | None = None


class ModelForm(_Form):
    """What answered."""

    name: str
    profile: str | None
    method: str
    backbone: str
    backbone_fingerprint: str
    version: str


class DetectAnswer(BaseModel):
    """The results in the order of the pictures, and what made them."""

    results: list[Entry]
    model: ModelForm


class ProfileForm(_Form):
    """A profile in force."""

    name: str
    object_name: str
    method: str
    good: int
    false_alarms: float | None
    threshold: float | None
    review_threshold: float | None
    mask_threshold: float | None
    map_range: list[float]
    heatmap_range: list[float] | None
    guarantee: dict[str, Any]
    known_defects: list[dict[str, Any]]


class ProfilesAnswer(BaseModel):
    """The profiles in force."""

    profiles: list[ProfileForm]


class MethodForm(_Form):
    """A method; `loaded` says whether `method=` may name it."""

    name: str
    title: str
    loaded: bool
    needs_object: bool


class MethodsAnswer(BaseModel):
    """The methods."""

    methods: list[MethodForm]


class ModelAnswer(_Form):
    """What is loaded, and the limits of the service."""

    version: str
    models: list[ModelForm]
    limits: dict[str, float | int | None]


class ProfileState(_Form):
    """A profile in short."""

    threshold: float | None
    review_threshold: float | None
    mask_threshold: float | None
    false_alarms: float | None
    good: int
    known_defects: int
    known_defects_caught: int


class ReviewedPicture(_Form):
    """A reviewed picture under the profile before and after."""

    name: str
    review: Literal["false_alarm", "missed", "confirmed_good", "confirmed_defect"]
    score_before: float
    verdict_before: str | None
    score_after: float
    verdict_after: str | None
    notes_after: list[str]
    score_without_itself: float | None = None


class PreviewAnswer(BaseModel):
    """What would change."""

    token: str
    expires_in: int
    before: ProfileState
    after: ProfileState
    guarantee: dict[str, Any]
    pictures: list[ReviewedPicture]
    sentence: str


class AcceptAnswer(BaseModel):
    """The profile that is in force, and the name of the file that the former one is kept as."""

    profile: ProfileForm
    former: str
    sentence: str


class DriftAnswer(_Form):
    """The last pictures beside the good ones of the profile."""

    level: Literal["ok", "watch", "alarm", "unknown"]
    sentence: str
    advice: str
    pictures: int
    own: int
    scores: dict[str, Any]
    features: dict[str, Any]


class Health(BaseModel):
    """The state of the service."""

    status: str


def errors(*statuses: int, form: type[BaseModel] = ErrorBody) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of a route's errors, with examples."""
    documented: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        code, message = CODES[status]
        example: Any = {"error": {"code": code, "message": message}} if form is ErrorBody else {"error": message}
        documented[status] = {
            "model": form,
            "description": message,
            "content": {"application/json": {"example": example}},
        }
        if status in (429, 503):
            documented[status]["headers"] = {
                "Retry-After": {"schema": {"type": "integer"}, "description": "Seconds until it is worth to try again."}
            }
    return documented
