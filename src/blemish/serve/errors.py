"""What a request is refused with: a status, a code for programs and one sentence for people."""

from __future__ import annotations

from collections.abc import Mapping

from blemish.errors import BlemishError, ImageError, OutputError, ProfileError, UsageError

#: Codes that the routes document, by status.
CODES: Mapping[int, tuple[str, str]] = {
    400: ("bad_request", "The request is malformed."),
    401: ("unauthorized", "The API key is missing or wrong."),
    403: ("foreign_origin", "A page of another origin sent the request."),
    404: ("not_found", "There is no such profile, model, token or address."),
    405: ("method_not_allowed", "The address does not take this HTTP method."),
    408: ("too_slow", "The body did not arrive in time."),
    409: ("changed", "The profile has changed since the preview."),
    413: ("too_large", "The body, or the number of pictures, is too large."),
    415: ("unsupported_type", "The body is no picture by its Content-Type."),
    422: ("unreadable", "A picture cannot be read, or an option is wrong."),
    429: ("queue_full", "Too many pictures are waiting."),
    500: ("internal", "The service failed."),
    503: ("unavailable", "The service is not ready, is shutting down, or took too long."),
}


class ServiceError(Exception):
    """A request that is refused.

    Args:
        status: HTTP status.
        message: One sentence.
        code: Code for programs; None for that of the status.
        retry_after: Seconds after which it is worth to try again; None gives no advice.
    """

    def __init__(self, status: int, message: str, code: str | None = None, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.message = status, message
        self.code = code or CODES[status][0]
        self.retry_after = retry_after

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the answer."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return headers

    def body(self) -> dict[str, dict[str, str]]:
        """Return the body of the answer."""
        return {"error": {"code": self.code, "message": self.message}}


def from_blemish(error: BlemishError) -> ServiceError:
    """Return how a request ends that caused this error."""
    if isinstance(error, ImageError):
        return ServiceError(422, sentence(error), "unreadable")
    if isinstance(error, UsageError):
        return ServiceError(422, sentence(error), "bad_option")
    if isinstance(error, ProfileError):
        return ServiceError(409, sentence(error), "changed")
    if isinstance(error, OutputError):
        return ServiceError(503, sentence(error), "cannot_write")
    return ServiceError(500, sentence(error))


def sentence(text: object) -> str:
    """Return a text as a sentence: it begins with a capital and ends with a full stop."""
    words = str(text).strip()
    return words[:1].upper() + words[1:] + ("" if words.endswith((".", "!", "?")) else ".")
