"""Metrics and curves of one score per image, or of any flat set of scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from blemish.metrics.checks import (
    NO_NEGATIVES,
    NO_POSITIVES,
    Bools,
    Floats,
    MetricInputError,
    as_binary,
    as_scores,
    warn_undefined,
)
from blemish.metrics.ranking import Summary, levels, rank, summarise


@dataclass(frozen=True)
class ImageMetrics:
    """Metrics of one score per image; fractions in [0, 1].

    Attributes:
        auroc: Area under the ROC curve; a tie counts half.
        ap: Average precision, the sum of (R_n - R_{n-1}) P_n over distinct scores, without interpolation.
        f1_max: Largest F1 over thresholds t, predicting score >= t.
        f1_threshold: Lowest score t that reaches `f1_max`.
        undefined: Reason for each metric that is nan.
    """

    auroc: float
    ap: float
    f1_max: float
    f1_threshold: float
    undefined: Mapping[str, str] = field(default_factory=dict)


class F1Max(NamedTuple):
    """Largest F1, and the lowest threshold t that reaches it when score >= t is predicted."""

    value: float
    threshold: float


class Curve(NamedTuple):
    """Points of a line from left to right, (K,) float64 each, both coordinates in [0, 1]."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]


def image_metrics(labels: ArrayLike, scores: ArrayLike) -> ImageMetrics:
    """Compute every image-level metric.

    Args:
        labels: 0 (normal) or 1 (anomalous), any shape.
        scores: Finite real numbers of the same shape, higher is more anomalous.

    Returns:
        The metrics. All are nan without anomalous images; `auroc` is nan without normal ones. `undefined` gives the
        reasons.

    Raises:
        MetricInputError: Shapes differ, there is no image, labels are not 0/1, or scores are not finite.
    """
    flags, values = _checked(labels, scores)
    summary = _summary(flags, values)
    undefined: dict[str, str] = {}
    if not flags.any():
        undefined = dict.fromkeys(("auroc", "ap", "f1_max", "f1_threshold"), NO_POSITIVES)
    elif flags.all():
        undefined = {"auroc": NO_NEGATIVES}
    return ImageMetrics(summary.auroc, summary.ap, summary.f1_max, summary.f1_threshold, undefined)


def auroc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the area under the ROC curve: the chance that a positive outranks a negative, ties counting half.

    Arguments and errors are those of `image_metrics`. With only one class the result is nan, with an
    `UndefinedMetricWarning`.
    """
    flags, values = _checked(labels, scores)
    result = _summary(flags, values).auroc
    if math.isnan(result):
        warn_undefined("AUROC", NO_NEGATIVES if flags.any() else NO_POSITIVES)
    return result


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the average precision: the sum over distinct scores of (R_n - R_{n-1}) P_n, without interpolation.

    Arguments and errors are those of `image_metrics`. Without positives the result is nan, with an
    `UndefinedMetricWarning` (scikit-learn returns 0); without negatives it is 1.
    """
    flags, values = _checked(labels, scores)
    result = _summary(flags, values).ap
    if math.isnan(result):
        warn_undefined("average precision", NO_POSITIVES)
    return result


def f1_max(labels: ArrayLike, scores: ArrayLike, *, epsilon: float = 0.0) -> F1Max:
    """Return the largest F1 over thresholds t, predicting score >= t, and the lowest t that reaches it.

    Args:
        labels: As in `image_metrics`.
        scores: As in `image_metrics`.
        epsilon: Added to the denominator of F1 = 2PR / (P + R); 0 for F1 itself, 1e-8 for VCP-CLIP's variant.

    Returns:
        F1 and threshold; both are nan without positives, with an `UndefinedMetricWarning`.

    Raises:
        MetricInputError: As `image_metrics`.
    """
    flags, values = _checked(labels, scores)
    summary = _summary(flags, values, epsilon)
    if math.isnan(summary.f1_max):
        warn_undefined("F1-max", NO_POSITIVES)
    return F1Max(summary.f1_max, summary.f1_threshold)


def roc_curve(labels: ArrayLike, scores: ArrayLike) -> Curve:
    """Return true-positive rate (y) over false-positive rate (x), from (0, 0) to (1, 1).

    There is one point per distinct score. Arguments and errors are those of `image_metrics`; the rate of a class
    without images is 0.
    """
    flags, values = _checked(labels, scores)
    tp, fp = _cumulative_counts(flags, values)
    x, y = fp / max(int((~flags).sum()), 1), tp / max(int(flags.sum()), 1)
    return Curve(np.concatenate([[0.0], x]), np.concatenate([[0.0], y]))


def precision_recall_curve(labels: ArrayLike, scores: ArrayLike) -> Curve:
    """Return precision (y) over recall (x) as steps whose area is the average precision.

    Between two recalls the precision is that of the higher recall. Arguments and errors are those of
    `image_metrics`; there are no points without positives.
    """
    flags, values = _checked(labels, scores)
    tp, fp = _cumulative_counts(flags, values)
    gains = np.diff(tp, prepend=0) > 0
    recall, precision = tp[gains] / max(int(flags.sum()), 1), (tp / (tp + fp))[gains]
    return Curve(np.repeat(np.concatenate([[0.0], recall]), 2)[1:-1], np.repeat(precision, 2))


def tpr_at_fpr(labels: ArrayLike, scores: ArrayLike, max_fpr: float) -> float:
    """Return the largest true-positive rate of a threshold whose false-positive rate is at most `max_fpr`."""
    curve = roc_curve(labels, scores)
    return float(curve.y[curve.x <= max_fpr].max())


def fpr_at_tpr(labels: ArrayLike, scores: ArrayLike, min_tpr: float) -> float:
    """Return the smallest false-positive rate of a threshold whose true-positive rate is at least `min_tpr`.

    The result is nan without positives.
    """
    curve = roc_curve(labels, scores)
    reached = curve.x[curve.y >= min_tpr]
    return float(reached.min()) if reached.size else math.nan


def pg(labels: ArrayLike, scores: ArrayLike, percent: float = 2.0) -> float:
    """Return PGn: the share of normal images that can be sorted out if at most n % of the anomalous ones slip through.

    It is the largest true-negative rate of a threshold whose false-negative rate is at most n % (PG2: n = 2; Baitieva
    et al., CVPR workshops 2025). Anomalib interpolates the threshold between two scores instead; here it is exact.

    Args:
        labels: As in `image_metrics`.
        scores: As in `image_metrics`.
        percent: n, in [0, 100].

    Returns:
        The share; nan with only one class, with an `UndefinedMetricWarning`.

    Raises:
        MetricInputError: As `image_metrics`, or `percent` is out of range.
    """
    flags, values = _checked_presorting(labels, scores, percent)
    if flags.all() or not flags.any():
        warn_undefined("PGn", NO_NEGATIVES if flags.any() else NO_POSITIVES)
        return math.nan
    misses = math.floor(percent / 100 * int(flags.sum()) + 1e-9)
    anomalous = np.sort(values[flags])
    # The highest threshold that misses no more: all images below it are sorted out.
    return 1.0 if misses == anomalous.size else float((values[~flags] < anomalous[misses]).mean())


def pb(labels: ArrayLike, scores: ArrayLike, percent: float = 2.0) -> float:
    """Return PBn: the share of anomalous images that are sorted out if at most n % of the normal ones go with them.

    It is the largest true-positive rate of a threshold whose false-positive rate is at most n %. Arguments, undefined
    cases and errors are those of `pg`.
    """
    flags, values = _checked_presorting(labels, scores, percent)
    if flags.all() or not flags.any():
        warn_undefined("PBn", NO_NEGATIVES if flags.any() else NO_POSITIVES)
        return math.nan
    alarms = math.floor(percent / 100 * int((~flags).sum()) + 1e-9)
    normal = np.sort(values[~flags])[::-1]
    return 1.0 if alarms == normal.size else float((values[flags] > normal[alarms]).mean())


def _checked_presorting(labels: ArrayLike, scores: ArrayLike, percent: float) -> tuple[Bools, Floats]:
    if not 0.0 <= percent <= 100.0:
        raise MetricInputError(f"percent must be from 0 to 100, not {percent}.")
    return _checked(labels, scores)


def _checked(labels: ArrayLike, scores: ArrayLike) -> tuple[Bools, Floats]:
    flags, values = as_binary(labels, "labels"), as_scores(scores, "scores")
    if flags.shape != values.shape:
        raise MetricInputError(f"labels and scores must have one shape, not {flags.shape} and {values.shape}.")
    if flags.size == 0:
        raise MetricInputError("there is nothing to measure: labels and scores are empty.")
    return flags, values


def _summary(flags: Bools, values: Floats, f1_epsilon: float = 0.0) -> Summary:
    ranking = rank(flags, values)
    return summarise(levels(ranking), ranking.positives.size, ranking.negatives.size, f1_epsilon=f1_epsilon)


def _cumulative_counts(flags: Bools, values: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return true and false positives at every distinct score, from the highest down."""
    order = np.argsort(-values, axis=None, kind="stable")
    ranked, hits = values.ravel()[order], flags.ravel()[order]
    last = np.append(np.flatnonzero(np.diff(ranked)), ranked.size - 1)
    tp = np.cumsum(hits)[last]
    return tp, last + 1 - tp
