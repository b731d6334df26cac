"""What would help after a plain ranking: one line."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

#: Pictures that are looked at.
_SAMPLE = 8
#: Side of the thumbnails that are compared.
_SIDE = 16
#: Pictures of one thing in one pose have this correlation of their thumbnails, or more; surfaces share their colours.
_LIKE_THUMBNAILS, _LIKE_COLOURS = 0.6, 0.7
#: Pictures that `musc` needs to compare.
_ENOUGH = 8


def advice(paths: Sequence[str]) -> str:
    """Return a line for somebody who has only ranked pictures.

    Args:
        paths: The pictures that were scored.
    """
    good = "pictures of flawless parts give verdicts: blemish fit GOOD --out part.profile, then --profile part.profile"
    if len(paths) >= _ENOUGH and look_alike(paths):
        return f"What would help: these pictures look alike, so --method musc can compare them; and {good}."
    return f"What would help: {good}."


def look_alike(paths: Sequence[str]) -> bool:
    """Return whether pictures seem to show the same kind of thing in the same way, from a few of them."""
    from blemish.errors import ImageError
    from blemish.image_io import read_image

    step = max(1, len(paths) // _SAMPLE)
    thumbnails: list[npt.NDArray[np.float64]] = []
    colours: list[npt.NDArray[np.float64]] = []
    shapes = set()
    for path in paths[::step][:_SAMPLE]:
        try:
            image = read_image(path).image.convert("RGB")
        except ImageError:
            continue
        shapes.add(round(image.width / image.height, 1))
        small = np.asarray(image.resize((_SIDE, _SIDE)), np.float64)
        thumbnails.append(small.mean(2).ravel())
        counts = np.histogramdd(small.reshape(-1, 3), bins=4, range=[(0, 256)] * 3)[0].ravel()
        colours.append(counts / counts.sum())
    if len(thumbnails) < 2 or len(shapes) > 1:
        return False
    pairs = np.triu_indices(len(thumbnails), 1)
    stacked = np.stack(thumbnails)
    centred = stacked - stacked.mean(1, keepdims=True)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9)
    alike = float(np.median((unit @ unit.T)[pairs]))
    shared = float(np.median([np.minimum(colours[a], colours[b]).sum() for a, b in zip(*pairs, strict=True)]))
    return alike >= _LIKE_THUMBNAILS or shared >= _LIKE_COLOURS
