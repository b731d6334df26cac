"""Whose published weights a file holds, told by the names at its top."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blemish.errors import WeightsError
from blemish.methods.catalogue import CATALOGUE

#: Method -> the names at the top of its authors' files; a method stands before those whose names its files hold too.
LAYOUTS: dict[str, tuple[str, ...]] = {
    "anomalyclip": ("prompt_learner",),
    "vcp-clip": ("trainable_linearlayer", "New_Lan_Embed", "Zero_try"),
    "clip-ad-sdp-plus": ("linear_layers",),
    "april-gan": ("trainable_linearlayer",),
}


def method_of(state: Mapping[str, Any]) -> str | None:
    """The method whose authors publish files like this one; None if it is like none of them."""
    return next((name for name, keys in LAYOUTS.items() if set(keys) <= state.keys()), None)


def require_method(state: Mapping[str, Any], method: str) -> None:
    """Raises WeightsError, naming what it is instead, unless the file is like those published for the method."""
    found = method_of(state)
    if found == method:
        return
    title = CATALOGUE[method].title
    if found is not None:
        other = CATALOGUE[found].title if found in CATALOGUE else found
        raise WeightsError(f"these are weights of {other}, not of {title}: load them into {found}")
    wanted = " and ".join(repr(key) for key in LAYOUTS[method])
    raise WeightsError(f"these are no weights of {title}: they have no {wanted}")
