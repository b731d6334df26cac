"""The points of curves and the heights of histograms, from scores; averaged over categories like the mean row."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

#: Places along the horizontal axis at which curves are averaged.
PLACES = 401


@dataclass(frozen=True)
class Curve:
    """(x, y) of a line, both in [0, 1]."""

    x: Floats
    y: Floats


def roc(labels: Labels, scores: Floats) -> Curve:
    """True-positive rate over false-positive rate, a point at every distinct score, from (0, 0) to (1, 1)."""
    tp, fp = _counts(labels, scores)
    positives, negatives = max(int(labels.sum()), 1), max(int((labels == 0).sum()), 1)
    return Curve(np.concatenate([[0.0], fp / negatives]), np.concatenate([[0.0], tp / positives]))


def precision_recall(labels: Labels, scores: Floats) -> Curve:
    """Precision over recall as average precision sums it: from one recall to the next the precision of the latter."""
    tp, fp = _counts(labels, scores)
    gains = np.diff(tp, prepend=0) > 0
    recall, precision = tp[gains] / max(int(labels.sum()), 1), (tp / (tp + fp))[gains]
    return Curve(np.repeat(np.concatenate([[0.0], recall]), 2)[1:-1], np.repeat(precision, 2))


def mean_curve(pairs: Iterable[tuple[Labels, Floats]], curve: Callable[[Labels, Floats], Curve]) -> Curve | None:
    """The mean height of a curve over categories, so that its area is the mean of their areas.

    None unless every category has both labels.
    """
    places = np.linspace(0.0, 1.0, PLACES)
    heights = []
    single: Curve | None = None
    for labels, scores in pairs:
        if labels.size == 0 or labels.min() == labels.max():
            return None
        single = curve(labels, scores)
        # Upright steps lean over by nothing that can be seen, so that each place has one height.
        lean = single.x + np.arange(single.x.size) * 1e-12
        height = np.interp(places, lean, single.y)
        height[-1] = single.y[-1]  # which leaned out of sight
        heights.append(height)
    if len(heights) == 1:
        return single
    return Curve(places, np.mean(heights, axis=0)) if heights else None


def found_at(labels: Labels, scores: Floats, share: float) -> float:
    """The largest share of the anomalous that a threshold marks while it marks at most `share` of the normal."""
    curve = roc(labels, scores)
    return float(curve.y[curve.x <= share].max())


def alarms_for(labels: Labels, scores: Floats, share: float) -> float:
    """The least share of the normal that a threshold marks while it marks at least `share` of the anomalous."""
    curve = roc(labels, scores)
    return float(curve.x[curve.y >= share].min())


def shares(values: Floats, low: float, high: float, bins: int) -> Floats:
    """The share of the values in each of `bins` equal bins of [low, high], (bins,)."""
    counts, _ = np.histogram(values, bins=bins, range=(low, high if high > low else low + 1.0))
    return counts / max(values.size, 1)


def _counts(labels: Labels, scores: Floats) -> tuple[Labels, Labels]:
    """True and false positives at every distinct score, from the highest down."""
    order = np.argsort(-scores, kind="stable")
    ranked, flags = scores[order], labels[order]
    last = np.append(np.flatnonzero(np.diff(ranked)), ranked.size - 1)
    tp = np.cumsum(flags)[last]
    return tp, last + 1 - tp
