"""How far pixel metrics can be trusted: bootstrap intervals over pictures.

Pictures are drawn with replacement, not pixels: those of one picture belong together, and to take them for independent
would make intervals far too narrow. What a picture adds to the curves is counted once, in bins of scores, so that a
resample is a weighted sum of counts, and a thousand of them cost less than one exact metric.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from blemish.metrics.checks import Floats, MetricInputError, checked_limit
from blemish.metrics.image import Interval
from blemish.metrics.pixels import checked_pair, label_regions

_Numbers = NDArray[np.float64]

#: Bins per label; their edges are quantiles of the scores.
_BINS = 512
#: Resamples at a time: their curves together stay near the processor.
_TOGETHER = 32


class PixelIntervals(NamedTuple):
    """Confidence intervals of pixel metrics; both ends are nan where a metric is undefined."""

    auroc: Interval
    aupro: Interval


class PixelBootstrap:
    """Gathers pictures one by one, and resamples them.

    Args:
        pixels: Of a picture's normal area, and of each anomalous region, at most so many pixels are kept, drawn at
            random, which moves an interval over a hundred pictures by about a thousandth.
        seed: Of that draw, and of the resamples; equal seeds give equal intervals.
    """

    def __init__(self, pixels: int = 4096, seed: int = 0) -> None:
        self._most, self._seed = pixels, seed
        self._dice = np.random.default_rng(seed)
        self._normal: list[_Numbers] = []
        self._factor: list[float] = []  # how many pixels each kept one of `_normal` stands for
        self._anomalous: list[_Numbers] = []  # (3, n): score, pixels it stands for, share of its region
        self._regions: list[int] = []

    def update(self, mask: ArrayLike | None, scores: ArrayLike) -> None:
        """Add one picture.

        Args:
            mask: (H, W) of exactly 0/1, or None for a picture without anomaly.
            scores: (H, W) map of finite numbers.

        Raises:
            MetricInputError: as `pixel_metrics`; nothing has been added then.
        """
        flags, values = checked_pair(mask, scores)
        normal = values.ravel() if flags is None else values[~flags]
        kept = self._thinned(normal)
        self._normal.append(kept.astype(np.float64))
        self._factor.append(normal.size / max(kept.size, 1))
        if flags is None:
            self._anomalous.append(np.empty((3, 0)))
            self._regions.append(0)
            return
        numbers, areas = label_regions(flags)
        hit, area = values[flags], areas[numbers]
        small = area <= self._most
        parts = [np.stack([hit[small], np.ones(small.sum()), 1 / area[small]])]
        for region in np.flatnonzero(areas > self._most):
            some = self._thinned(hit[numbers == region])
            parts.append(
                np.stack([some, np.full(some.size, areas[region] / some.size), np.full(some.size, 1 / some.size)])
            )
        self._anomalous.append(np.concatenate(parts, axis=1))
        self._regions.append(areas.size)

    def intervals(self, n: int = 1000, *, level: float = 0.95, fpr_limit: float = 0.3) -> PixelIntervals:
        """Percentile intervals of pixel AUROC and AUPRO over the pictures so far.

        Args:
            n: how many resamples.
            level: coverage in (0, 1).
            fpr_limit: integration limit of AUPRO in (0, 1].

        Returns:
            The intervals. Resamples without an anomalous (or without a normal) pixel are left out.

        Raises:
            MetricInputError: an option is out of range.
        """
        limit = checked_limit(fpr_limit)
        if n < 1 or not 0.0 < level < 1.0:
            raise MetricInputError(f"n must be at least 1 and level between 0 and 1, not {n} and {level}.")
        if not sum(self._regions) or not any(part.size for part in self._normal):
            return PixelIntervals(Interval(math.nan, math.nan), Interval(math.nan, math.nan))
        normal, anomalous, covered = self._counted()
        pictures = len(self._regions)
        generator = np.random.default_rng(self._seed)
        drawn = np.stack(
            [np.bincount(generator.integers(pictures, size=pictures), minlength=pictures) for _ in range(n)]
        )
        times = drawn.astype(np.float64)
        regions = times @ np.array(self._regions)
        auroc, aupro = np.empty(n), np.empty(n)
        with np.errstate(divide="ignore", invalid="ignore"):
            for part in (slice(first, first + _TOGETHER) for first in range(0, n, _TOGETHER)):
                # From the highest bin down, every row a curve from 0 to 1.
                false = _rising(times[part] @ normal)
                true = _rising(times[part] @ anomalous)
                overlap = (times[part] @ covered)[:, ::-1].cumsum(axis=1) / regions[part, None]
                auroc[part] = _area(false, true, 1.0)
                aupro[part] = _area(false, overlap, limit) / limit
        return PixelIntervals(_middle(auroc, level), _middle(aupro, level))

    def _thinned(self, values: Floats) -> Floats:
        if values.size <= self._most:
            return values
        return values[self._dice.integers(values.size, size=self._most)]

    def _counted(self) -> tuple[_Numbers, _Numbers, _Numbers]:
        """What each picture has in each bin, (pictures, bins): normal and anomalous pixels, shares of regions."""
        normal, anomalous = np.concatenate(self._normal), np.concatenate(self._anomalous, axis=1)
        places = np.linspace(0, 1, _BINS)
        edges = np.unique(np.concatenate([np.quantile(scores, places) for scores in (normal, anomalous[0])]))
        pictures, bins = len(self._regions), edges.size + 1

        def counted(sizes: list[int], scores: _Numbers, weights: _Numbers) -> _Numbers:
            row = np.repeat(np.arange(pictures), sizes)
            cells = row * bins + np.searchsorted(edges, scores, side="right")
            found = np.bincount(cells, weights, minlength=pictures * bins).astype(np.float64)
            return found.reshape(pictures, bins)

        sizes = [part.size for part in self._normal]
        hits = [part.shape[1] for part in self._anomalous]
        return (
            counted(sizes, normal, np.repeat(self._factor, sizes)),
            counted(hits, anomalous[0], anomalous[1]),
            counted(hits, anomalous[0], anomalous[2]),
        )


def _rising(counts: _Numbers) -> _Numbers:
    """The share of each row's sum that lies in a bin or above it, from the highest bin down; nan for an empty row."""
    summed: _Numbers = counts[:, ::-1].cumsum(axis=1)
    return summed / summed[:, -1:]


def _area(x: _Numbers, y: _Numbers, limit: float) -> _Numbers:
    """The area under straight lines through (0, 0) and the points of each row, up to x = limit: (rows,)."""
    x0, y0 = (np.concatenate([np.zeros((len(line), 1)), line[:, :-1]], axis=1) for line in (x, y))
    end = np.minimum(x, limit)
    width = np.maximum(end - x0, 0.0)
    steep = np.divide(y - y0, x - x0, out=np.zeros_like(x), where=x > x0)
    area: _Numbers = (width * (y0 + steep * width / 2)).sum(axis=1)
    return np.where(np.isnan(x[:, -1]) | np.isnan(y[:, -1]), np.nan, area)


def _middle(values: _Numbers, level: float) -> Interval:
    known = values[~np.isnan(values)]
    if not known.size:
        return Interval(math.nan, math.nan)
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))
