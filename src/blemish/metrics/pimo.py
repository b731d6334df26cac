"""AUPIMO: how much of each defect is found at false-positive rates that an inspection can live with."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from blemish.metrics.checks import Floats, MetricInputError
from blemish.metrics.pixel import Maps, Masks, checked_pairs

PIMO_BOUNDS = (1e-5, 1e-4)
"""False-positive rates between which the paper integrates."""


def aupimo(masks: Masks, maps: Maps, *, bounds: tuple[float, float] = PIMO_BOUNDS) -> NDArray[np.float64]:
    """Compute the area under the per-image overlap curve of each anomalous image (Bertoldo et al., BMVC 2024).

    The false-positive rate F(t) of a threshold is the mean over the *normal* images of their share of pixels >= t. The
    curve of an anomalous image is the share of its mask with map >= t against F(t), and its area is taken over log F
    between the bounds, divided by their distance:

        AUPIMO = 1 / log(U / L) * integral from log L to log U of recall(F) d log F.

    A pixel with value v is found at every rate F >= F(v), so it adds the part of the range right of log F(v), and the
    area is the mean over the mask's pixels: exact, without thresholds in steps.

    Args:
        masks: As in `pixel_metrics`; images without an anomalous pixel are the normal ones.
        maps: As in `pixel_metrics`.
        bounds: L and U, 0 < L < U <= 1.

    Returns:
        (N,) area of each image in [0, 1]; nan for normal images, and for all images without a normal one or where the
        normal images have fewer than 1 / L pixels and cannot resolve L.

    Raises:
        MetricInputError: As `pixel_metrics`, or the bounds are out of range.
    """
    low, high = bounds
    if not 0.0 < low < high <= 1.0:
        raise MetricInputError(f"bounds must be two rates with 0 < low < high <= 1, not {bounds}.")
    normal: list[Floats] = []
    hits: list[Floats | None] = []  # per image, the map inside its mask
    for mask, scores in checked_pairs(masks, maps):
        hits.append(None if mask is None else scores[mask])
        if mask is None:
            normal.append(scores.ravel())
    result = np.full(len(hits), math.nan)
    if sum(part.size for part in normal) * low < 1:
        return result
    values = np.concatenate(normal)
    weights = np.concatenate([np.full(part.size, 1 / (part.size * len(normal))) for part in normal])
    order = np.argsort(values, kind="stable")
    values, above = values[order], np.append(np.cumsum(weights[order][::-1])[::-1], 0.0)
    for index, inside in enumerate(hits):
        if inside is not None:
            rate = above[np.searchsorted(values, inside, side="left")]
            with np.errstate(divide="ignore"):  # a pixel above all normal ones has the rate 0 and counts fully
                result[index] = np.clip(np.log(high / rate) / math.log(high / low), 0.0, 1.0).mean()
    return result
