"""Pixel metrics in constant memory: a histogram of scores, with bounds on the error that the bins cause.

A score belongs to the bin of its leading bits (sign, exponent, start of the fraction), so no range has to be known
beforehand and the bins preserve the order of scores. The metrics are those of maps whose values within a bin are equal.
A bin only hides the order inside it; the best and the worst order bound the error of each metric. The bounds are
computed from the histogram itself and hold for the very data that were added, whatever their distribution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from blemish.metrics.checks import MetricInputError, check_fpr_limit
from blemish.metrics.pixel import PixelMetrics, checked_pair, label_regions, undefined_reasons
from blemish.metrics.ranking import Counts, Keys, Levels, Shares, from_keys, summarise, to_keys

_ROUNDING = 1e-12
"""Part of every bound that covers the rounding of sums in float64."""


@dataclass(frozen=True)
class PixelErrors:
    """Upper bounds of the absolute error of each streamed metric; nan where the metric is undefined.

    The streamed `f1_max` is reached at the streamed `f1_threshold`, so it is never above the exact value. The
    streamed `iou` is exact for that threshold; its bound is for the IoU at the exact best threshold.
    """

    auroc: float
    ap: float
    f1_max: float
    iou: float
    aupro: float


@dataclass(frozen=True)
class StreamedPixelMetrics(PixelMetrics):
    """`PixelMetrics` from a histogram; `error` bounds the distance to the exact values."""

    error: PixelErrors = field(default_factory=lambda: PixelErrors(*[math.nan] * 5))


class StreamingPixelMetrics:
    """Pixel metrics of images that are added one by one, in memory that does not grow.

    Use one object per class. Objects can be pickled, and `merge` joins those of several processes.

    Args:
        bits: Leading bits of a float32 score that select its bin, 10 to 24. Scores whose relative difference exceeds
            2**(9 - bits) are always in different bins: 0.012 % at the default of 22. Memory is at most 24 bytes x
            2**bits (100 MB), and less if scores span few powers of two.

    Raises:
        MetricInputError: `bits` is out of range.
    """

    def __init__(self, bits: int = 22) -> None:
        if not 10 <= bits <= 24:
            raise MetricInputError(f"bits must be from 10 to 24, not {bits}.")
        self.bits = bits
        self.regions = 0
        self._negatives: Counts = np.zeros(1 << bits, dtype=np.int64)
        self._positives: Counts = np.zeros(1 << bits, dtype=np.int64)
        self._covered: Shares = np.zeros(1 << bits, dtype=np.float64)

    def update(self, mask: ArrayLike | None, scores: ArrayLike) -> None:
        """Add one image.

        Args:
            mask: (H, W) of exactly 0/1, or None for an image without anomaly.
            scores: (H, W) anomaly map of finite numbers; float64 is rounded to float32, and `f1_threshold` refers to
                the rounded values.

        Raises:
            MetricInputError: As `pixel_metrics`; nothing has been added then.
        """
        flags, values = checked_pair(mask, scores)
        if values.dtype != np.float32:
            with np.errstate(over="ignore"):
                flags, values = checked_pair(flags, values.astype(np.float32))
        bins = (to_keys(values) >> (32 - self.bits)) + (1 << (self.bits - 1))
        if flags is None:
            _count(self._negatives, bins.ravel())
            return
        numbers, areas = label_regions(flags)
        hit = bins[flags]
        _count(self._negatives, bins[~flags])
        _count(self._positives, hit)
        _count(self._covered, hit, np.reciprocal(areas.astype(np.float64))[numbers])
        self.regions += areas.size

    def merge(self, other: StreamingPixelMetrics) -> None:
        """Add all images that were added to `other`.

        Raises:
            MetricInputError: The two differ in `bits`.
        """
        if other.bits != self.bits:
            raise MetricInputError(f"histograms of {self.bits} and {other.bits} bits cannot be merged.")
        self._negatives += other._negatives
        self._positives += other._positives
        self._covered += other._covered
        self.regions += other.regions

    def compute(self, *, fpr_limit: float = 0.3) -> StreamedPixelMetrics:
        """Compute the metrics of all images so far, with error bounds; more images may be added afterwards.

        Definitions, undefined cases and `fpr_limit` are those of `pixel_metrics`; `f1_threshold` is the lower edge of
        a bin, and {map >= f1_threshold} has exactly the `f1_max` and `iou` that are returned.

        Raises:
            MetricInputError: No pixel has been added, or `fpr_limit` is out of range.
        """
        limit = check_fpr_limit(fpr_limit)
        positives, negatives = int(self._positives.sum()), int(self._negatives.sum())
        if positives + negatives == 0:
            raise MetricInputError("there is nothing to measure: no pixel has been added.")
        undefined = undefined_reasons(positives, negatives)
        level = self._levels()
        blocks = [level] if positives else []
        summary = summarise(blocks, positives, negatives, fpr_limit=limit)
        return StreamedPixelMetrics(
            auroc=summary.auroc,
            ap=summary.ap,
            f1_max=summary.f1_max,
            f1_threshold=summary.f1_threshold,
            iou=summary.iou,
            aupro=summary.aupro,
            undefined=undefined,
            error=_bounds(level, positives, negatives, limit, summary.f1_max),
        )

    def _levels(self) -> Levels:
        """Return one level per bin with a positive, from the highest bin down."""
        filled = np.flatnonzero(self._positives)[::-1]
        edges: Keys = ((filled - (1 << (self.bits - 1))) << (32 - self.bits)).astype(np.int32)
        fp = self._negatives[::-1].cumsum()[::-1][filled]
        overlap = np.cumsum(self._covered[filled]) / max(self.regions, 1)
        overlap[-1:] = 1.0  # every region is covered: the sum differs from 1 only by rounding
        return Levels(
            scores=from_keys(edges),
            tp=self._positives[filled].cumsum(),
            fp=fp,
            fp_above=fp - self._negatives[filled],
            pro=np.minimum(overlap, 1.0),
        )


def _count(histogram: NDArray[np.int64] | Shares, bins: Keys, weights: Shares | None = None) -> None:
    """Add to a histogram in place, touching only the range that `bins` span."""
    if bins.size:
        low = int(bins.min())
        counts = np.bincount(bins - low, weights)
        histogram[low : low + counts.size] += counts


def _bounds(level: Levels, positives: int, negatives: int, limit: float, f1_max: float) -> PixelErrors:
    """Return the error bounds of the metrics that `summarise` computes from one level per bin."""
    if positives == 0:
        return PixelErrors(*[math.nan] * 5)
    gained = np.diff(level.tp, prepend=0)
    tied = level.fp - level.fp_above

    # AUROC: every pair inside a bin counts half; its true contribution is between 0 and 1.
    auroc = float((gained * tied).sum()) / (2 * positives * negatives) if negatives else math.nan

    # AP: the estimate takes the precision at the end of each bin. In the worst order all negatives of the bin come
    # first, then its g positives one by one: the sum of (tp + i) / (tp + i + fp) for i = 1..g. In the best order its
    # positives come first, tied.
    before = level.tp - gained
    start = before + level.fp
    # Sum of 1 / (start + i): exact for one term, bounded by the integral over the cells around the terms otherwise.
    spread = np.where(gained == 1, 1 / (start + 1), np.log1p(gained / (start + 0.5)))
    worst = np.maximum(gained - level.fp * spread, 0.0)
    best = gained * (level.tp / (level.tp + level.fp_above))
    estimate = gained * (level.tp / (level.tp + level.fp))
    ap = max(float((best - estimate).sum()), float((estimate - worst).sum())) / positives

    # F1 and IoU: in the best order a bin's positives come before its negatives.
    highest = float((2 * level.tp / (level.tp + level.fp_above + positives)).max())
    f1 = highest - f1_max

    # AUPRO: the true curve stays inside the rectangle that a bin spans; the estimate is its diagonal.
    cap = limit * negatives
    width = np.minimum(level.fp, cap) - np.minimum(level.fp_above, cap)
    under = width / (2 * np.maximum(tied, 1))
    box = width * np.diff(level.pro, prepend=0.0)
    above, below = float((box * (1 - under)).sum()), float((box * under).sum())
    return PixelErrors(
        auroc=auroc + _ROUNDING,
        ap=ap + _ROUNDING,
        f1_max=f1 + _ROUNDING,
        iou=_iou(highest) - _iou(f1_max) + _ROUNDING,
        aupro=max(above, below) / cap + _ROUNDING if negatives else math.nan,
    )


def _iou(f1: float) -> float:
    return f1 / (2 - f1)
