"""The profiles and methods in force, on one copy of the model; a profile is replaced in one step."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from blemish.detector import AMONG_DEFECTS, AMONG_GOOD, Detector
from blemish.errors import ProfileError, UsageError, suggest
from blemish.loading import DEFAULT_BACKBONE, load
from blemish.methods import info, list_methods
from blemish.profile import Profile, read_profile
from blemish.serve.errors import ServiceError, sentence
from blemish.types import PathLike

Place: TypeAlias = Literal["good", "known_defect"]
"""What a profile keeps a picture as."""
IN_PROFILE: dict[str, Place] = {AMONG_GOOD: "good", AMONG_DEFECTS: "known_defect"}
"""By the note of a detection."""


@dataclass(frozen=True, eq=False)
class Served:
    """A detector that answers under a name."""

    name: str
    """Name of the profile, or of the method."""
    detector: Detector
    path: Path | None = None
    """File of the profile; None for a method."""
    digest: str = ""
    """Hash of that file as it was read."""

    @property
    def profile(self) -> Profile | None:
        """The profile; None for a method."""
        return self.detector.profile


class Registry:
    """What a request can ask for, by name. The first profile, or else the first method, answers unless it asks.

    Raises:
        UsageError: There is nothing, or two profiles have one name.
    """

    def __init__(self, profiles: Iterable[Served] = (), methods: Iterable[Served] = ()) -> None:
        self._lock = threading.Lock()
        self._profiles: dict[str, Served] = {}
        for served in profiles:
            if served.name in self._profiles:
                raise UsageError(f"two profiles are named {served.name!r}: rename one of the files")
            self._profiles[served.name] = served
        self.methods: Mapping[str, Served] = {served.name: served for served in methods}
        if not self._profiles and not self.methods:
            raise UsageError("there is nothing to serve: give a profile or a method")

    @property
    def profiles(self) -> dict[str, Served]:
        """The profiles in force, by name."""
        with self._lock:
            return dict(self._profiles)

    def find(self, profile: str | None = None, method: str | None = None) -> Served:
        """Return what answers a request.

        Raises:
            ServiceError: There is no such profile (404) or method (422), or both were given (422).
        """
        if profile is not None and method is not None:
            raise ServiceError(422, "A profile has its own method: give profile or method, not both.", "bad_option")
        if method is not None:
            if method not in self.methods:
                raise ServiceError(422, self._no_method(method), "bad_option")
            return self.methods[method]
        if profile is not None:
            return self.profile(profile)
        return next(iter((self.profiles or self.methods).values()))

    def profile(self, name: str) -> Served:
        """Return a profile in force. Raises ServiceError (404)."""
        known = self.profiles
        if name not in known:
            names = f"there is {', '.join(known)}" if known else "none is loaded"
            raise ServiceError(404, f"There is no profile {name!r}{suggest(name, known)}; {names}.", "unknown_profile")
        return known[name]

    def _no_method(self, name: str) -> str:
        loaded = f"loaded: {', '.join(self.methods)}" if self.methods else "none is loaded beside the profiles"
        if name in list_methods():
            return f"The method {name} is not loaded ({loaded}); start the service with it, too."
        return f"There is no method {name!r}{suggest(name, self.methods or list_methods())} ({loaded})."

    def replace(self, served: Served) -> None:
        """Put another version of a profile in force; requests that have begun keep the former one."""
        with self._lock:
            self._profiles[served.name] = served


def load_registry(
    profiles: Iterable[PathLike] = (),
    methods: Iterable[str] = (),
    *,
    backbone: PathLike | None = None,
    **settings: Any,
) -> Registry:
    """Load profiles and methods; those of one backbone share it.

    Args:
        profiles: Files of profiles.
        methods: Names of methods that score without a profile.
        backbone: As in `blemish.load`; None = that of each profile, and the built-in one for methods.
        settings: Other arguments of `blemish.load`: `device`, `precision`, `max_pixels`; `weights`, `config`,
            `object_name`, `threshold`, `mask_threshold`, `value_range`, `tile` and `overlap` are those of methods.

    Raises:
        UsageError: There is nothing to load, a name is unknown, or options do not fit together.
        ProfileError: A profile cannot be used.
        WeightsError: A checkpoint cannot be used.
    """
    detectors: list[Detector] = []
    shared = {name: settings[name] for name in ("device", "precision", "max_pixels") if name in settings}

    def tower(fingerprint: str) -> dict[str, Any]:
        """Return the backbone that is loaded already, or the one that was asked for."""
        for detector in detectors:
            if detector.provenance.backbone_fingerprint == fingerprint:
                return {"backbone": detector.torch_engine.backbone}
        return {} if backbone is None else {"backbone": backbone}

    def with_profile(profile: Profile) -> Detector:
        for detector in detectors:
            try:
                return detector.with_profile(profile)
            except ProfileError:  # another method, config or backbone
                continue
        return load(profile=profile, **tower(profile.backbone_fingerprint), **shared)

    served = []
    for file in profiles:
        path = Path(file)
        profile = read_profile(path)
        detectors.append(with_profile(profile))
        served.append(Served(path.stem, detectors[-1], path, digest(path)))
    by_method: list[Served] = []
    for name in dict.fromkeys(methods):
        info(name).require_references(False)
        backbone_name = os.fspath(DEFAULT_BACKBONE if backbone is None else backbone)
        loaded = [each.torch_engine.backbone for each in detectors if each.provenance.backbone == backbone_name]
        detectors.append(load(name, backbone=loaded[0] if loaded else backbone_name, **settings))
        by_method.append(Served(name, detectors[-1]))
    return Registry(served, by_method)


def digest(path: Path) -> str:
    """Return the hash of a file, by which a change of it is noticed; "" if it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def describe(served: Served) -> dict[str, Any]:
    """Return what `GET /v1/profiles` says about a profile, JSON-able."""
    profile, limits = served.profile, served.detector.limits
    assert profile is not None
    return {
        "name": served.name,
        "object_name": profile.object_name,
        "method": profile.method,
        "good": len(profile.good),
        "false_alarms": profile.false_alarms,
        "threshold": limits.threshold,
        "review_threshold": limits.review_threshold,
        "mask_threshold": limits.mask_threshold,
        "min_area": limits.min_area,
        "map_range": list(profile.map_range),
        "heatmap_range": None if limits.heatmap_range is None else list(limits.heatmap_range),
        "promise": limits.promise,
        "guarantee": dict(profile.guarantee),
        "known_defects": [_defect(defect) for defect in getattr(profile, "known_defects", ())],
        "notes": [sentence(note) for note in profile.notes],
        "fingerprint": profile.fingerprint,
        "created": profile.created,
    }


def _defect(defect: Any) -> dict[str, Any]:
    return {"name": Path(defect.name).name, "fingerprint": defect.fingerprint, "score": defect.score}
