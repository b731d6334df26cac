"""The detectors of a scan: one, or one for each profile, all on one backbone."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from blemish.detector import Detector
from blemish.errors import ProfileError, UsageError, suggest
from blemish.loading import load
from blemish.outputs.journal import result_settings
from blemish.profile import SUFFIX, read_profile
from blemish.scan.options import DetectorOptions


class Detectors:
    """Loads detectors when they are needed, each once; the backbone is shared. Not for several threads at once.

    Args:
        options: How they are loaded.
    """

    def __init__(self, options: DetectorOptions) -> None:
        self.options = options
        self._loaded: dict[str | None, Detector] = {}

    def get(self, profile: str | None) -> Detector:
        """Return the detector of a profile, or the only one.

        Raises:
            UsageError: There is no profile of that name, or something cannot be loaded.
            ProfileError: The profile cannot be used.
        """
        name = profile if self.options.profiles else None
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def problem(self, profile: str | None) -> str | None:
        """Return why no picture of a profile can be scored; None if they can."""
        profiles = self.options.profiles
        if not profiles or profile in profiles:
            return None
        if profile is None:
            return "the source names no profile for it; fill the column, or move it into a product's folder."
        return f"there is no profile {profile!r}{suggest(profile, profiles)}; give --profile {profile}=FILE."

    @property
    def first(self) -> Detector:
        """The only detector, or that of the first profile."""
        return self.get(next(iter(self.options.profiles), None))

    def settings(self) -> dict[str, Any]:
        """Return everything that scores and verdicts depend on, as JSON-able values.

        Raises:
            UsageError: A profile does not exist.
        """
        if self.options.profiles:
            own = {name: _fingerprint(file) for name, file in sorted(self.options.profiles.items())}
            return {**_detector_settings(self.first, limits=False), "profiles": own}
        return _detector_settings(self.first)

    def _load(self, name: str | None) -> Detector:
        if name is None:
            return load(**self.options.load)
        if problem := self.problem(name):
            raise UsageError(problem)
        file = self.options.profiles[name]
        thresholds = {key: self.options.load.get(key) for key in ("threshold", "mask_threshold")}
        profile = read_profile(file)
        base = next(iter(self._loaded.values()), None)
        if base is not None:
            try:
                return base.with_profile(profile, **thresholds)
            except ProfileError:  # of another method or config; the backbone may still be the same
                shared = base.torch_engine.backbone
                if shared.fingerprint == profile.backbone_fingerprint:
                    return load(profile=profile, **{**self.options.load, "backbone": shared})
        return load(profile=profile, **self.options.load)


def profile_files(words: list[str]) -> dict[str, str]:
    """Return the files of profiles by name, from `NAME=FILE`, a file (named by its stem) or a folder of them.

    Raises:
        UsageError: A file does not exist, a folder has no profiles, or two have one name.
    """
    files: dict[str, str] = {}
    for word in words:
        path = Path(word)
        name, equals, file = word.partition("=")
        if equals and not path.exists():
            pairs = {name: Path(file)}
        elif path.is_dir():
            pairs = {file.name.removesuffix(SUFFIX): file for file in sorted(path.glob(f"*{SUFFIX}"))}
            if not pairs:
                raise UsageError(f"{word!r} holds no profiles (*{SUFFIX}); give another folder")
        else:
            pairs = {path.name.removesuffix(SUFFIX): path}
        for key, place in pairs.items():
            if not place.is_file():
                raise UsageError(f"the profile {str(place)!r} does not exist; make it with `blemish fit`")
            if key in files:
                raise UsageError(f"two profiles are called {key!r}: give NAME=FILE")
            files[key] = str(place.absolute())
    return files


def _detector_settings(detector: Detector, *, limits: bool = True) -> dict[str, Any]:
    settings = {
        **result_settings(detector.provenance),
        "object": detector.object_name if detector.engine.needs_object else None,
        "max_pixels": detector.max_pixels,
    }
    if not limits:
        for name in ("references", "references_fingerprint"):
            del settings[name]
        return settings
    own = {"threshold": detector.threshold, "mask": detector.mask_threshold}
    return {**settings, **own, "limits": detector.limits.fingerprint if detector.limits.scores else None}


def _fingerprint(file: str) -> str:
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise UsageError(f"the profile {file!r} cannot be read; check the path.") from error
