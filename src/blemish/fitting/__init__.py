"""From good pictures to a profile: memory, thresholds with a promise, scale of heatmaps; and changes of a profile."""

from __future__ import annotations

from blemish.fitting.changes import add_known_defects, add_pictures, remove_known_defects, remove_pictures
from blemish.fitting.schemes import fit_profile, made_with

__all__ = [
    "add_known_defects",
    "add_pictures",
    "fit_profile",
    "made_with",
    "remove_known_defects",
    "remove_pictures",
]
