"""Metrics over the pixels of all pictures together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from blemish.metrics.checks import NO_NEGATIVES, NO_POSITIVES, MetricInputError, checked_limit, warn_undefined
from blemish.metrics.curves import summarise
from blemish.metrics.image import ImageMetrics
from blemish.metrics.pixels import MaybeMasks, Pictures, rank_pixels
from blemish.metrics.ranking import Ranking, from_keys, levels, to_keys

_VCP_EPSILON = 1e-8
_NAMES = ("auroc", "ap", "f1_max", "f1_threshold", "iou", "aupro")


@dataclass(frozen=True)
class PixelMetrics:
    """How well maps tell anomalous pixels from normal ones; all pixels pooled, fractions in [0, 1].

    Attributes:
        auroc: area under the ROC curve; a tie counts half.
        ap: average precision, sum of (R_n - R_{n-1}) P_n over distinct values, without interpolation.
        f1_max: largest F1 over map values t, predicting map >= t.
        f1_threshold: the lowest map value t that reaches it.
        iou: intersection over union of masks and {map >= f1_threshold}.
        aupro: area under per-region overlap against false-positive rate, up to the limit and divided by it.
            Overlap is the covered share of a region, averaged over all regions of all pictures alike; regions are
            8-connected (pixels that touch at a corner belong together).
        undefined: for each metric that is nan, the reason.
    """

    auroc: float
    ap: float
    f1_max: float
    f1_threshold: float
    iou: float
    aupro: float
    undefined: Mapping[str, str] = field(default_factory=dict)


Metrics = TypeVar("Metrics", ImageMetrics, PixelMetrics)


def pixel_metrics(
    masks: MaybeMasks, maps: Pictures, *, fpr_limit: float = 0.3, steps: int | None = None, vcp: bool = False
) -> PixelMetrics:
    """Compute every pixel-level metric, exactly: each distinct map value is a threshold.

    Args:
        masks: one (H, W) array of exactly 0/1 per picture, any real dtype; None stands for a picture without anomaly.
        maps: one (H, W) array of finite numbers per picture, higher is more anomalous; sizes may differ between
            pictures. Both may be a stacked (N, H, W) array, a sequence, or an iterator that is read once; an (H, W)
            array is one picture. Beyond the arguments this holds 4 bytes per normal pixel and up to 20 per anomalous
            one (8 and about 40 if a map is float64).
        fpr_limit: integration limit of AUPRO in (0, 1].
        steps: None for exact AUPRO; a number (200) for the approximation in papers, see `aupro_200`.
        vcp: F1 and IoU as VCP-CLIP has them: 1e-8 in the denominator of F1, and IoU of {map > f1_threshold}, which
            leaves out the pixels at the threshold. It scales the maps of a class to [0, 1] first; do so beforehand
            if its thresholds matter.

    Returns:
        The metrics. All are nan without anomalous pixels; `auroc` and `aupro` are nan without normal ones.
        `undefined` says why.

    Raises:
        MetricInputError: pictures do not fit their masks, masks are not 0/1, maps are not finite, nothing is given,
            or an option is out of range.
    """
    limit = checked_limit(fpr_limit)
    if steps is not None:
        _checked_steps(steps)
    ranking = rank_pixels(masks, maps)
    positives, negatives = ranking.positives.size, ranking.negatives.size
    summary = summarise(levels(ranking), positives, negatives, fpr_limit=limit, f1_epsilon=_VCP_EPSILON if vcp else 0.0)
    undefined = undefined_reasons(positives, negatives)
    area = summary.aupro
    if steps is not None and not undefined:
        area, reason = _stepped_aupro(ranking, limit, steps)
        if reason:
            undefined = {"aupro": reason}
    return PixelMetrics(
        auroc=summary.auroc,
        ap=summary.ap,
        f1_max=summary.f1_max,
        f1_threshold=summary.f1_threshold,
        iou=summary.iou_above if vcp else summary.iou,
        aupro=area,
        undefined=undefined,
    )


def aupro(masks: MaybeMasks, maps: Pictures, *, fpr_limit: float = 0.3) -> float:
    """Exact area under the per-region overlap curve, as `PixelMetrics.aupro`.

    The curve starts at (0, 0), has a point at every distinct map value and straight lines between; it is cut at
    `fpr_limit` by interpolation and the area is divided by `fpr_limit`. Arguments and errors as for `pixel_metrics`.
    Without anomalous or without normal pixels the result is nan, with an `UndefinedMetricWarning`.
    """
    limit = checked_limit(fpr_limit)
    ranking = rank_pixels(masks, maps)
    positives, negatives = ranking.positives.size, ranking.negatives.size
    result = summarise(levels(ranking), positives, negatives, fpr_limit=limit).aupro
    if math.isnan(result):
        warn_undefined("AUPRO", undefined_reasons(positives, negatives)["aupro"])
    return result


def aupro_200(masks: MaybeMasks, maps: Pictures, *, fpr_limit: float = 0.3, steps: int = 200) -> float:
    """AUPRO as the papers' code approximates it; for comparison with published numbers only.

    `steps` thresholds are spaced evenly between the lowest and the highest map value, prediction is map > threshold,
    points with false-positive rate below `fpr_limit` are kept, their rates are stretched to [0, 1], and the area
    under them is the result. Nothing is interpolated at either end, so maps with few distinct values, or a few very
    high ones, can end up far from `aupro`. float16 maps are taken as float32. Arguments and errors as for
    `pixel_metrics`.

    nan, with an `UndefinedMetricWarning`, where `aupro` is, for a constant map, and where fewer than two different
    rates remain (a perfect 0/1 map, for example).
    """
    limit = checked_limit(fpr_limit)
    _checked_steps(steps)
    ranking = rank_pixels(masks, maps)
    undefined = undefined_reasons(ranking.positives.size, ranking.negatives.size)
    if undefined:
        warn_undefined("AUPRO", undefined["aupro"])
        return math.nan
    result, reason = _stepped_aupro(ranking, limit, steps)
    if reason:
        warn_undefined("AUPRO in steps", reason)
    return result


def class_mean(results: Mapping[str, Metrics]) -> Metrics:
    """The unweighted mean over classes, from unrounded values: how papers summarise a dataset.

    Args:
        results: class name to its `ImageMetrics` or its `PixelMetrics`, all of one kind.

    Returns:
        The mean of each metric (of `f1_threshold` too, which is no threshold to use). A metric that is nan in some
        class is nan in the mean, and `undefined` names the classes: leaving them out unsaid would change the number.

    Raises:
        MetricInputError: `results` is empty.
    """
    if not results:
        raise MetricInputError("there is nothing to average: no class is given.")
    kind = type(next(iter(results.values())))
    means: dict[str, float] = {}
    undefined: dict[str, str] = {}
    for name in (entry.name for entry in fields(kind) if entry.name not in {"undefined", "error"}):
        means[name] = math.fsum(getattr(result, name) for result in results.values()) / len(results)
        reasons = [
            f"{label}: {result.undefined[name]}" for label, result in results.items() if name in result.undefined
        ]
        if reasons:
            undefined[name] = "; ".join(reasons)
    return kind(**means, undefined=undefined)


def undefined_reasons(positives: int, negatives: int) -> dict[str, str]:
    """Which pixel metrics are undefined with these counts, and why."""
    if positives == 0:
        return dict.fromkeys(_NAMES, NO_POSITIVES)
    return {} if negatives else dict.fromkeys(("auroc", "aupro"), NO_NEGATIVES)


def _checked_steps(steps: int) -> None:
    if steps < 1:
        raise MetricInputError(f"steps must be at least 1, not {steps}.")


def _stepped_aupro(ranking: Ranking, limit: float, steps: int) -> tuple[float, str]:
    """The approximation of `aupro_200`, and why it is nan if it is."""
    positives, negatives = ranking.positives, ranking.negatives
    ends = from_keys(np.array([min(positives[0], negatives[0]), max(positives[-1], negatives[-1])], positives.dtype))
    if ends[0] == ends[1]:
        return math.nan, "the maps are constant"
    if float(ends[1]) / 4 - float(ends[0]) / 4 > float(np.finfo(ends.dtype).max) / 4:
        return math.nan, f"the range of the maps is too wide for {ends.dtype}"
    floors = to_keys(_not_above(_grid(ends[0], ends[1], steps), ends.dtype))
    # map > threshold is map > the largest representable value that is not above the threshold.
    rates = (negatives.size - np.searchsorted(negatives, floors, side="right")) / negatives.size
    cuts = [*np.searchsorted(positives, floors, side="right").tolist(), positives.size]
    gains = [float(ranking.shares(start, end).sum()) for start, end in pairwise(cuts)]
    overlap = np.cumsum(gains[::-1])[::-1]
    kept = rates < limit
    rates, overlap = rates[kept][::-1], overlap[kept][::-1]
    if rates.size == 0 or rates[0] == rates[-1]:
        return math.nan, f"fewer than two different false-positive rates lie below {limit}"
    rates = (rates - rates[0]) / (rates[-1] - rates[0])
    return float((np.diff(rates) * (overlap[1:] + overlap[:-1]) / 2).sum()), ""


def _grid(low: np.floating[Any], high: np.floating[Any], steps: int) -> NDArray[np.float64]:
    """Thresholds in the references' arithmetic: the step rounded to the maps' precision, the multiples not."""
    step = (high - low) / low.dtype.type(steps)
    count = math.ceil((high - low) / step) if step > 0 else 1
    taken = float(low + step) - float(low)
    multiples: NDArray[np.float64] = np.arange(count, dtype=np.float64)
    return np.add(multiples * taken, float(low), dtype=np.float64)


def _not_above(values: NDArray[np.float64], dtype: np.dtype[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    rounded = values.astype(dtype)
    below: NDArray[np.floating[Any]] = np.where(rounded > values, np.nextafter(rounded, dtype.type(-np.inf)), rounded)
    return below
