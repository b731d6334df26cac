"""Reviewed pictures go back into a profile: first a preview of what would change, then, if it is accepted, the file.

A false alarm becomes a good picture, marked as selected: it was chosen because of its score, so the promise must not
count on it. A missed defect becomes a known defect, which changes no threshold. Confirmed pictures show what the new
profile would say about them. Only when somebody judged a whole batch that nobody selected, all its good pictures join
those that the promise rests on, and the threshold moves.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from blemish.detector import Detector
from blemish.errors import ImageError
from blemish.few_shot import picture_fingerprint
from blemish.files import write_atomically
from blemish.image_io import LoadedImage, read_image
from blemish.profile import read_profile
from blemish.serve.bodies import Upload
from blemish.serve.errors import ServiceError, sentence
from blemish.serve.options import ServeOptions
from blemish.serve.profiles import Registry, Served, describe, digest

FIELDS = ("false_alarm", "missed", "confirmed_good", "confirmed_defect")
"""Fields of the form: what a person said about the pictures in it."""

#: Seconds for which a preview can be accepted.
LIFETIME = 30 * 60
#: Previews that wait for being accepted; the oldest is forgotten.
_MAX_PENDING = 8


@dataclass(frozen=True, eq=False)
class _Pending:
    """A change that nobody has accepted yet."""

    before: Served
    detector: Detector
    expires: float


class Feedback:
    """Previews and accepts changes of profiles; one at a time, in any thread.

    Args:
        registry: The profiles in force.
        options: How many pixels a picture and a request may have.
    """

    def __init__(self, registry: Registry, options: ServeOptions) -> None:
        self._registry, self._options = registry, options
        self._lock = threading.Lock()
        self._pending: dict[str, _Pending] = {}

    def preview(
        self,
        served: Served,
        uploads: Sequence[Upload],
        *,
        whole_batch: bool = False,
        check: Callable[[], object] = lambda: None,
    ) -> dict[str, Any]:
        """Return what would change, with a token that accepts it.

        Args:
            served: The profile.
            uploads: The reviewed pictures.
            whole_batch: They are all pictures of a batch that was not selected, so its good ones, false alarms and
                confirmed ones, may move the threshold.
            check: Called between pictures; an exception that it raises ends the preview.

        Raises:
            ServiceError: A picture cannot be read, or nothing would change.
            UsageError: A picture is good and defective at once.
        """
        counts = Counter(upload.field for upload in uploads)
        joining = ("false_alarm", "confirmed_good") if whole_batch else ("false_alarm",)
        if not any(counts[field] for field in (*joining, "missed")):
            raise ServiceError(
                422,
                "Nothing would change: send pictures as false_alarm or missed; confirmed ones only show the effect.",
                "no_change",
            )
        pictures = self._read(served, uploads, check)
        by_field = {
            name: [picture for upload, picture in zip(uploads, pictures, strict=True) if upload.field == name]
            for name in FIELDS
        }
        detector = served.detector
        if good := [picture for field in joining for picture in by_field[field]]:
            detector = detector.with_more_good(good, selected=not whole_batch, check=check)
        if by_field["missed"]:
            detector = detector.with_known_defects(by_field["missed"], check=check)
        rows = self._effect(served.detector, detector, uploads, pictures, joining, check)
        token = secrets.token_urlsafe(24)
        with self._lock:
            self._forget_old()
            self._pending[token] = _Pending(served, detector, time.monotonic() + LIFETIME)
        profile = detector.profile
        assert profile is not None
        return {
            "token": token,
            "expires_in": LIFETIME,
            "before": _state(served.detector),
            "after": _state(detector),
            "guarantee": dict(profile.guarantee),
            "pictures": rows,
            "sentence": _sentence(served.detector, detector, counts, rows, whole_batch),
        }

    def accept(self, name: str, token: str) -> dict[str, Any]:
        """Write the profile of a preview and put it in force; the former file is kept beside it.

        Raises:
            ServiceError: The token is unknown or has expired (404), or the profile has changed since (409).
            OutputError: The file cannot be written; then nothing has changed.
        """
        with self._lock:
            self._forget_old()
            pending = self._pending.get(token)
            if pending is None or pending.before.name != name:
                raise ServiceError(
                    404, "There is no such preview, or it is too old; ask for a new one.", "unknown_token"
                )
            before, current = pending.before, self._registry.profile(name)
            assert before.path is not None
            if current is not before or digest(before.path) != before.digest:
                del self._pending[token]
                raise ServiceError(409, "The profile has changed since the preview; ask for a new one.", "changed")
            profile = pending.detector.profile
            assert profile is not None
            former = _free_name(before.path)
            data = before.path.read_bytes()
            write_atomically(former, lambda stream: stream.write(data))
            profile.save(before.path)
            detector = before.detector.with_profile(read_profile(before.path))
            after = Served(name, detector, before.path, digest(before.path))
            self._registry.replace(after)
            del self._pending[token]
        return {
            "profile": describe(after),
            "former": former.name,
            "sentence": f"The profile {name} is in force with {len(profile.good)} good pictures; the former one is "
            f"kept as {former.name}.",
        }

    def _forget_old(self) -> None:
        now = time.monotonic()
        self._pending = {token: each for token, each in self._pending.items() if each.expires > now}
        while len(self._pending) >= _MAX_PENDING:
            del self._pending[next(iter(self._pending))]

    def _read(self, served: Served, uploads: Sequence[Upload], check: Callable[[], object]) -> list[LoadedImage]:
        pictures, pixels = [], 0
        for upload in uploads:
            check()
            try:
                loaded = read_image(
                    upload.data, max_pixels=self._options.max_pixels, value_range=served.detector.value_range
                )
            except ImageError as error:
                raise ServiceError(422, f"{upload.name}: {sentence(error)}", "unreadable") from error
            pixels += loaded.size[0] * loaded.size[1]
            if pixels > self._options.max_request_pixels:
                raise ServiceError(413, "The pictures are too large together; send fewer at once.")
            pictures.append(replace(loaded, path=upload.name))
        return pictures

    def _effect(
        self,
        before: Detector,
        after: Detector,
        uploads: Sequence[Upload],
        pictures: Sequence[LoadedImage],
        joining: Sequence[str],
        check: Callable[[], object],
    ) -> list[dict[str, Any]]:
        """Return what each profile says about each picture."""
        assert after.profile is not None
        # Against the new memory a picture that joined it finds itself; the entry was scored without.
        others = {entry.fingerprint: entry.score for entry in after.profile.good}
        rows = []
        for upload, old, new, picture in zip(
            uploads, before.stream(pictures), after.stream(pictures), pictures, strict=True
        ):
            check()
            row = {
                "name": upload.name,
                "review": upload.field,
                "score_before": old.score,
                "verdict_before": old.verdict,
                "score_after": new.score,
                "verdict_after": new.verdict,
                "notes_after": list(new.notes),
            }
            if upload.field in joining:
                row["score_without_itself"] = others.get(picture_fingerprint(picture, after.tiling))
            rows.append(row)
        return rows


def _state(detector: Detector) -> dict[str, Any]:
    profile = detector.profile
    assert profile is not None
    threshold = detector.threshold
    return {
        "threshold": threshold,
        "review_threshold": detector.limits.review_threshold,
        "mask_threshold": detector.mask_threshold,
        "false_alarms": profile.guarantee.get("bound"),
        "good": len(profile.good),
        "known_defects": len(profile.known_defects),
        "known_defects_caught": len(profile.known_defects) - len(profile.missed_defects(threshold)),
    }


def _sentence(
    before: Detector, after: Detector, counts: Counter[str], rows: Sequence[dict[str, Any]], whole_batch: bool
) -> str:
    assert before.profile is not None
    assert after.profile is not None
    parts = []
    joined = len(after.profile.good) - len(before.profile.good)  # it may have had some already
    if whole_batch and (n := joined):
        parts.append(f"the {n} good picture{'s join' if n > 1 else ' joins'} those that the promise rests on")
    elif n := joined:
        parts.append(f"{n} false alarm{'s become good pictures' if n > 1 else ' becomes a good picture'}")
    if n := counts["missed"]:
        parts.append(f"{n} missed picture{'s are' if n > 1 else ' is'} kept as known defect{'s' if n > 1 else ''}")
    if not parts:
        parts.append("the profile has these pictures already")
    old, new = before.threshold, after.threshold
    if old == new or f"{old:.4f}" == f"{new:.4f}":
        moved = f"the threshold stays at {old:.4f}" if old is not None else "there is no threshold"
    else:
        moved = f"the threshold moves from {old:.4f} to {new:.4f}"
    changed = sum(row["verdict_before"] != row["verdict_after"] for row in rows)
    verdicts = f"{changed} of the {len(rows)} reviewed pictures would get another verdict"
    still = sum(
        row["review"] == "false_alarm"
        and row.get("score_without_itself") is not None
        and new is not None
        and row["score_without_itself"] >= new
        for row in rows
    )
    hint = (
        f"; {still} of the false alarms would still be rejected if compared with the other good pictures only"
        if still
        else ""
    )
    text = f"{' and '.join(parts)}; {moved}; {verdicts}{hint}."
    return text[0].upper() + text[1:]


def _free_name(path: Path) -> Path:
    """Return a name beside a file that nothing has: part.profile.1, part.profile.2, ..."""
    number = 1
    while (former := path.with_name(f"{path.name}.{number}")).exists():
        number += 1
    return former
