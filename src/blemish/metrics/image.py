"""Metrics of one score per picture (or of any flat set of scores)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from blemish.metrics.checks import (
    NO_NEGATIVES,
    NO_POSITIVES,
    Bools,
    Floats,
    MetricInputError,
    UndefinedMetricWarning,
    as_binary,
    as_scores,
    warn_undefined,
)
from blemish.metrics.curves import Summary, summarise
from blemish.metrics.ranking import levels, rank


@dataclass(frozen=True)
class ImageMetrics:
    """How well one score per picture tells anomalous from normal; fractions in [0, 1].

    Attributes:
        auroc: area under the ROC curve; a tie counts half.
        ap: average precision, sum of (R_n - R_{n-1}) P_n over distinct scores, without interpolation.
        f1_max: largest F1 over thresholds t, predicting score >= t.
        f1_threshold: the lowest score t that reaches it.
        undefined: for each metric that is nan, the reason.
    """

    auroc: float
    ap: float
    f1_max: float
    f1_threshold: float
    undefined: Mapping[str, str] = field(default_factory=dict)


class F1Max(NamedTuple):
    """The largest F1 and the lowest threshold t that reaches it, predicting score >= t."""

    value: float
    threshold: float


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


def image_metrics(labels: ArrayLike, scores: ArrayLike) -> ImageMetrics:
    """Compute every image-level metric.

    Args:
        labels: 0 (normal) or 1 (anomalous), any shape.
        scores: finite real numbers of the same shape, higher is more anomalous.

    Returns:
        The metrics. All are nan without anomalous pictures; `auroc` is nan without normal ones. `undefined` says why.

    Raises:
        MetricInputError: shapes differ, nothing is given, labels are not 0/1, or scores are not finite.
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
    """Area under the ROC curve: the chance that a positive outranks a negative, ties counting half.

    Arguments and errors as for `image_metrics`. With only one class the result is nan, with an
    `UndefinedMetricWarning` that says why.
    """
    flags, values = _checked(labels, scores)
    result = _summary(flags, values).auroc
    if math.isnan(result):
        warn_undefined("AUROC", NO_NEGATIVES if flags.any() else NO_POSITIVES)
    return result


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Average precision: the sum over distinct scores of (R_n - R_{n-1}) P_n, ties grouped, no interpolation.

    Arguments and errors as for `image_metrics`. Without positives the result is nan, with an
    `UndefinedMetricWarning` (scikit-learn returns 0 there); without negatives it is 1.
    """
    flags, values = _checked(labels, scores)
    result = _summary(flags, values).ap
    if math.isnan(result):
        warn_undefined("average precision", NO_POSITIVES)
    return result


def f1_max(labels: ArrayLike, scores: ArrayLike, *, epsilon: float = 0.0) -> F1Max:
    """The largest F1 = 2PR / (P + R + epsilon) over distinct scores t, predicting score >= t, and its threshold.

    Among equal maxima the lowest t is given. `epsilon` is 0 for F1 itself and 1e-8 for VCP-CLIP's variant.
    Arguments and errors otherwise as for `image_metrics`. Without positives both are nan, with an
    `UndefinedMetricWarning`.
    """
    flags, values = _checked(labels, scores)
    summary = _summary(flags, values, epsilon)
    if math.isnan(summary.f1_max):
        warn_undefined("F1-max", NO_POSITIVES)
    return F1Max(summary.f1_max, summary.f1_threshold)


def bootstrap_interval(
    labels: ArrayLike,
    scores: ArrayLike,
    metric: Callable[[ArrayLike, ArrayLike], float] = auroc,
    n: int = 1000,
    seed: int = 0,
    *,
    level: float = 0.95,
) -> Interval:
    """Percentile bootstrap interval of a metric over pictures drawn with replacement.

    Args:
        labels: (M, ...) array, one row per picture: 0/1 labels, or masks for a pixel metric.
        scores: (M, ...) array, one row per picture.
        metric: function of (labels, scores) to a float, such as `auroc`, `average_precision` or `aupro`.
        n: how many resamples.
        seed: of the random draws; equal seeds give equal intervals.
        level: coverage in (0, 1).

    Returns:
        The interval. Resamples in which the metric is undefined (nan) are left out; if all are, both ends are nan,
        with an `UndefinedMetricWarning`.

    Raises:
        MetricInputError: lengths differ, nothing is given, `n` < 1, `level` not in (0, 1), or whatever `metric` raises.
    """
    rows, values = np.asarray(labels), np.asarray(scores)
    if rows.ndim == 0 or values.ndim == 0 or rows.shape[0] != values.shape[0] or rows.shape[0] == 0:
        raise MetricInputError(
            f"labels and scores need one row per picture, but have shapes {rows.shape} and {values.shape}."
        )
    if n < 1 or not 0.0 < level < 1.0:
        raise MetricInputError(f"n must be at least 1 and level between 0 and 1, not {n} and {level}.")
    generator = np.random.default_rng(seed)
    drawn = np.empty(n)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        for index in range(n):
            chosen = generator.integers(rows.shape[0], size=rows.shape[0])
            drawn[index] = metric(rows[chosen], values[chosen])
    drawn = drawn[~np.isnan(drawn)]
    if drawn.size == 0:
        warn_undefined("the bootstrap interval", "the metric is undefined in every resample")
        return Interval(math.nan, math.nan)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


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
