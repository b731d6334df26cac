"""Bootstrap intervals: how much a metric depends on which images happened to be in the test set.

Images are drawn with replacement, not pixels: pixels of one image are not independent, and drawing them would make
intervals far too narrow. All functions draw the same images for the same seed.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from blemish.metrics.checks import (
    Floats,
    MetricInputError,
    UndefinedMetricWarning,
    as_binary,
    as_scores,
    check_bootstrap,
    check_fpr_limit,
    warn_undefined,
)
from blemish.metrics.image import auroc
from blemish.metrics.pixel import checked_pair, label_regions

_Numbers = NDArray[np.float64]

_CELLS = 1 << 20
"""Cells of the count table of one chunk of resamples in `bootstrap_image_metrics`."""
_BINS = 512
"""Score bins per class in `PixelBootstrap`; their edges are quantiles of the scores."""
_CHUNK = 32
"""Resamples per chunk in `PixelBootstrap`: their curves together fit into the processor's cache."""


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


class PixelIntervals(NamedTuple):
    """Confidence intervals of pixel metrics; both ends are nan where a metric is undefined."""

    auroc: Interval
    aupro: Interval


def percentile_interval(values: ArrayLike, low: float = 0.025, high: float = 0.975) -> Interval:
    """Return the interval between two quantiles of resampled values.

    Args:
        values: Resampled values, any shape; nan is left out.
        low: Quantile of the lower end, in [0, 1].
        high: Quantile of the upper end, in [0, 1].

    Returns:
        The interval, by default of 95 % coverage; both ends are nan if every value is nan.
    """
    resamples = np.asarray(values, dtype=np.float64)
    defined = resamples[~np.isnan(resamples)]
    if not defined.size:
        return Interval(math.nan, math.nan)
    ends = np.quantile(defined, (low, high))
    return Interval(float(ends[0]), float(ends[1]))


def bootstrap_interval(
    labels: ArrayLike,
    scores: ArrayLike,
    metric: Callable[[ArrayLike, ArrayLike], float] = auroc,
    n: int = 1000,
    seed: int = 0,
    *,
    level: float = 0.95,
) -> Interval:
    """Compute the percentile bootstrap interval of any metric over images drawn with replacement.

    `bootstrap_image_metrics` is much faster for image AUROC and AP, `PixelBootstrap` for pixel AUROC and AUPRO.

    Args:
        labels: (M, ...) array, one row per image: 0/1 labels, or masks for a pixel metric.
        scores: (M, ...) array, one row per image.
        metric: Function of (labels, scores) to a float, such as `auroc`, `average_precision` or `aupro`.
        n: Number of resamples.
        seed: Seed of the random draws; equal seeds give equal intervals.
        level: Coverage in (0, 1).

    Returns:
        The interval. Resamples in which the metric is undefined (nan) are left out; if all are, both ends are nan,
        with an `UndefinedMetricWarning`.

    Raises:
        MetricInputError: Lengths differ, there is no image, `n` < 1, `level` is not in (0, 1), or `metric` raises it.
    """
    rows, values = np.asarray(labels), np.asarray(scores)
    if rows.ndim == 0 or values.ndim == 0 or rows.shape[0] != values.shape[0] or rows.shape[0] == 0:
        raise MetricInputError(
            f"labels and scores need one row per image, but have shapes {rows.shape} and {values.shape}."
        )
    check_bootstrap(n, level)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        resamples = [metric(rows[chosen], values[chosen]) for chosen in _draws(rows.shape[0], n, seed)]
    interval = percentile_interval(resamples, *_quantiles(level))
    if math.isnan(interval.low):
        warn_undefined("the bootstrap interval", "the metric is undefined in every resample")
    return interval


def bootstrap_image_metrics(labels: ArrayLike, scores: ArrayLike, n: int = 1000, seed: int = 0) -> NDArray[np.float64]:
    """Compute image AUROC and AP of `n` resamples at once: those that `bootstrap_interval` computes one by one.

    Args:
        labels: (M,) 0 (normal) or 1 (anomalous).
        scores: (M,) finite real numbers.
        n: Number of resamples.
        seed: Seed of the random draws.

    Returns:
        (2, n): AUROC, then AP; nan where a resample does not define it. `percentile_interval` of a row is the
        interval of that metric, and of the mean of several data sets' rows the interval of their mean.

    Raises:
        MetricInputError: Shapes differ, there is no image, labels are not 0/1, scores are not finite, or `n` < 1.
    """
    flags, values = as_binary(labels, "labels"), as_scores(scores, "scores")
    if flags.ndim != 1 or flags.shape != values.shape or not flags.size:
        raise MetricInputError(f"labels and scores must both be (M,), not {flags.shape} and {values.shape}.")
    check_bootstrap(n, 0.5)
    distinct, rank = np.unique(values, return_inverse=True)
    code, width = 2 * rank + flags, 2 * distinct.size
    draws = _draws(flags.size, n, seed)
    result = np.empty((2, n))
    chunk = max(1, _CELLS // width)
    for first in range(0, n, chunk):
        rows = min(chunk, n - first)
        cells = np.concatenate([code[next(draws)] + row * width for row in range(rows)])
        counts = np.bincount(cells, minlength=rows * width).reshape(rows, distinct.size, 2)
        normal, anomalous = counts[..., 0], counts[..., 1]
        positives = anomalous.sum(axis=1)
        # Twice the pairs in the right order, a tie counts one: integers, so nothing is rounded.
        pairs = (anomalous * (2 * normal.cumsum(axis=1) - normal)).sum(axis=1)
        all_pairs = 2 * normal.sum(axis=1) * positives
        # From the highest score down: each gain in recall times the precision there.
        tp = anomalous[:, ::-1].cumsum(axis=1)
        predicted = np.maximum(tp + normal[:, ::-1].cumsum(axis=1), 1)
        gained = (anomalous[:, ::-1] * (tp / predicted)).sum(axis=1)
        for metric, above, below in ((0, pairs, all_pairs), (1, gained, positives)):
            ratio = np.divide(above, below, out=np.full(rows, np.nan), where=below > 0)
            result[metric, first : first + rows] = ratio
    return result


@dataclass(frozen=True)
class Difference:
    """How much better one method is than another on the same images.

    Attributes:
        value: Metric of the first minus that of the second.
        low: Lower end of its bootstrap interval.
        high: Upper end.
        p_value: Two-sided: twice the share of resamples in which the sign of the difference is the other one, or 0.
    """

    value: float
    low: float
    high: float
    p_value: float


def paired_difference(value: float, resamples: ArrayLike, *, level: float = 0.95) -> Difference:
    """Return a difference with its interval, from resampled differences.

    Args:
        value: The difference on all images.
        resamples: (n,) differences of resamples, in each of which both methods have the same images; nan is left out.
        level: Coverage in (0, 1).
    """
    differences = np.asarray(resamples, dtype=np.float64)
    defined = differences[~np.isnan(differences)]
    interval = percentile_interval(defined, *_quantiles(level))
    if not defined.size:
        return Difference(value, interval.low, interval.high, math.nan)
    # One is added to both counts, so that no finite number of resamples gives a probability of 0.
    tail = (1 + min(int((defined <= 0).sum()), int((defined >= 0).sum()))) / (defined.size + 1)
    return Difference(value, interval.low, interval.high, min(2 * tail, 1.0))


def paired_bootstrap(
    labels: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    metric: Callable[[ArrayLike, ArrayLike], float] = auroc,
    n: int = 1000,
    seed: int = 0,
    *,
    level: float = 0.95,
) -> Difference:
    """Compare two methods on the same images: both are resampled together, so what images share cancels out.

    Args:
        labels: As in `bootstrap_interval`.
        first: (M, ...) scores of the first method.
        second: (M, ...) scores of the second.
        metric: As in `bootstrap_interval`.
        n: Number of resamples.
        seed: Seed of the random draws.
        level: Coverage in (0, 1).

    Raises:
        MetricInputError: As `bootstrap_interval`.
    """
    rows, ours, theirs = np.asarray(labels), np.asarray(first), np.asarray(second)
    if 0 in (rows.ndim, ours.ndim, theirs.ndim) or not rows.shape[0] == ours.shape[0] == theirs.shape[0] > 0:
        raise MetricInputError(
            "labels and both methods' scores need one row per image, "
            f"but have shapes {rows.shape}, {ours.shape} and {theirs.shape}."
        )
    check_bootstrap(n, level)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        resamples = [
            metric(rows[chosen], ours[chosen]) - metric(rows[chosen], theirs[chosen])
            for chosen in _draws(rows.shape[0], n, seed)
        ]
    return paired_difference(metric(rows, ours) - metric(rows, theirs), resamples, level=level)


class PixelBootstrap:
    """Bootstrap intervals of pixel AUROC and AUPRO, from images that are added one by one.

    The contribution of each image to the curves is counted once, in bins of scores; a resample is then a weighted sum
    of counts, and a thousand resamples cost less than one exact metric.

    Args:
        pixels: Maximum number of pixels kept of each image's normal area and of each anomalous region. More are
            sampled at random, which moves an interval over a hundred images by about a thousandth.
        seed: Seed of that sampling and of the resamples; equal seeds give equal intervals.
    """

    def __init__(self, pixels: int = 4096, seed: int = 0) -> None:
        self._max_pixels, self._seed = pixels, seed
        self._rng = np.random.default_rng(seed)
        self._normal: list[_Numbers] = []  # per image, scores of the sampled normal pixels
        self._factor: list[float] = []  # per image, the number of pixels that each of them represents
        self._anomalous: list[_Numbers] = []  # per image, (3, P): score, represented pixels, share of its region
        self._regions: list[int] = []  # per image, the number of regions

    def update(self, mask: ArrayLike | None, scores: ArrayLike) -> None:
        """Add one image.

        Args:
            mask: (H, W) of exactly 0/1, or None for an image without anomaly.
            scores: (H, W) anomaly map of finite numbers.

        Raises:
            MetricInputError: As `pixel_metrics`; nothing has been added then.
        """
        flags, values = checked_pair(mask, scores)
        normal = values.ravel() if flags is None else values[~flags]
        sampled = self._sample(normal)
        self._normal.append(sampled.astype(np.float64))
        self._factor.append(normal.size / max(sampled.size, 1))
        if flags is None:
            self._anomalous.append(np.empty((3, 0)))
            self._regions.append(0)
            return
        numbers, areas = label_regions(flags)
        hit, area = values[flags], areas[numbers]
        small = area <= self._max_pixels
        parts = [np.stack([hit[small], np.ones(small.sum()), 1 / area[small]])]
        for region in np.flatnonzero(areas > self._max_pixels):
            sampled = self._sample(hit[numbers == region])
            weights = np.full(sampled.size, areas[region] / sampled.size)
            parts.append(np.stack([sampled, weights, np.full(sampled.size, 1 / sampled.size)]))
        self._anomalous.append(np.concatenate(parts, axis=1))
        self._regions.append(areas.size)

    def intervals(self, n: int = 1000, *, level: float = 0.95, fpr_limit: float = 0.3) -> PixelIntervals:
        """Compute percentile intervals of pixel AUROC and AUPRO over the images added so far.

        Args:
            n: Number of resamples.
            level: Coverage in (0, 1).
            fpr_limit: Integration limit of AUPRO in (0, 1].

        Returns:
            The intervals. Resamples without an anomalous (or without a normal) pixel are left out.

        Raises:
            MetricInputError: An option is out of range.
        """
        limit = check_fpr_limit(fpr_limit)
        check_bootstrap(n, level)
        if not sum(self._regions) or not any(part.size for part in self._normal):
            return PixelIntervals(Interval(math.nan, math.nan), Interval(math.nan, math.nan))
        normal, anomalous, covered = self._histograms()
        images = len(self._regions)
        draws = np.stack([np.bincount(chosen, minlength=images) for chosen in _draws(images, n, self._seed)])
        times = draws.astype(np.float64)
        regions = times @ np.array(self._regions)
        auroc, aupro = np.empty(n), np.empty(n)
        with np.errstate(divide="ignore", invalid="ignore"):
            for part in (slice(first, first + _CHUNK) for first in range(0, n, _CHUNK)):
                # From the highest bin down; every row is a curve from 0 to 1.
                fpr = _rates(times[part] @ normal)
                tpr = _rates(times[part] @ anomalous)
                overlap = (times[part] @ covered)[:, ::-1].cumsum(axis=1) / regions[part, None]
                auroc[part] = _area(fpr, tpr, 1.0)
                aupro[part] = _area(fpr, overlap, limit) / limit
        low, high = _quantiles(level)
        return PixelIntervals(percentile_interval(auroc, low, high), percentile_interval(aupro, low, high))

    def _sample(self, values: Floats) -> Floats:
        if values.size <= self._max_pixels:
            return values
        return values[self._rng.integers(values.size, size=self._max_pixels)]

    def _histograms(self) -> tuple[_Numbers, _Numbers, _Numbers]:
        """Return per image and score bin, (images, bins): normal pixels, anomalous pixels, shares of regions."""
        normal, anomalous = np.concatenate(self._normal), np.concatenate(self._anomalous, axis=1)
        quantiles = np.linspace(0, 1, _BINS)
        edges = np.unique(np.concatenate([np.quantile(scores, quantiles) for scores in (normal, anomalous[0])]))
        images, bins = len(self._regions), edges.size + 1

        def histogram(sizes: list[int], scores: _Numbers, weights: _Numbers) -> _Numbers:
            row = np.repeat(np.arange(images), sizes)
            cells = row * bins + np.searchsorted(edges, scores, side="right")
            counts = np.bincount(cells, weights, minlength=images * bins).astype(np.float64)
            return counts.reshape(images, bins)

        sizes = [part.size for part in self._normal]
        hits = [part.shape[1] for part in self._anomalous]
        return (
            histogram(sizes, normal, np.repeat(self._factor, sizes)),
            histogram(hits, anomalous[0], anomalous[1]),
            histogram(hits, anomalous[0], anomalous[2]),
        )


def _draws(images: int, n: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield the (images,) indices of each of `n` resamples."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        yield rng.integers(images, size=images)


def _quantiles(level: float) -> tuple[float, float]:
    return (1 - level) / 2, (1 + level) / 2


def _rates(counts: _Numbers) -> _Numbers:
    """Return the share of each row's sum in a bin or above it, from the highest bin down; nan for an empty row."""
    summed: _Numbers = counts[:, ::-1].cumsum(axis=1)
    return summed / summed[:, -1:]


def _area(x: _Numbers, y: _Numbers, limit: float) -> _Numbers:
    """Return the area under straight lines through (0, 0) and the points of each row, up to x = limit: (rows,)."""
    x0, y0 = (np.concatenate([np.zeros((len(line), 1)), line[:, :-1]], axis=1) for line in (x, y))
    end = np.minimum(x, limit)
    width = np.maximum(end - x0, 0.0)
    steep = np.divide(y - y0, x - x0, out=np.zeros_like(x), where=x > x0)
    area: _Numbers = (width * (y0 + steep * width / 2)).sum(axis=1)
    return np.where(np.isnan(x[:, -1]) | np.isnan(y[:, -1]), np.nan, area)
