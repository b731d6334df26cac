"""Metrics over the pixels of all images together, from one anomaly map and one mask per image."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from itertools import pairwise, zip_longest
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from blemish.metrics.checks import (
    NO_NEGATIVES,
    NO_POSITIVES,
    Bools,
    Floats,
    MetricInputError,
    as_binary,
    as_scores,
    check_fpr_limit,
    warn_undefined,
)
from blemish.metrics.image import ImageMetrics
from blemish.metrics.ranking import Keys, Ranking, from_keys, levels, rank_regions, summarise, to_keys

Maps = ArrayLike | Iterable[ArrayLike]
Masks = ArrayLike | Iterable[ArrayLike | None]

_VCP_EPSILON = 1e-8
_NAMES = ("auroc", "ap", "f1_max", "f1_threshold", "iou", "aupro")
_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=np.int8)
_MISSING: Any = object()


@dataclass(frozen=True)
class PixelMetrics:
    """Metrics over all pixels of all images; fractions in [0, 1].

    Attributes:
        auroc: Area under the ROC curve; a tie counts half.
        ap: Average precision, the sum of (R_n - R_{n-1}) P_n over distinct values, without interpolation.
        f1_max: Largest F1 over map values t, predicting map >= t.
        f1_threshold: Lowest map value t that reaches `f1_max`.
        iou: Intersection over union of the masks and {map >= f1_threshold}.
        aupro: Area under per-region overlap (Bergmann et al., MVTec AD) against false-positive rate, up to a limit
            and divided by it. Overlap is the covered share of a region, averaged over all regions of all images
            with equal weight; regions are 8-connected (pixels that touch at a corner belong together).
        undefined: Reason for each metric that is nan.
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
    masks: Masks, maps: Maps, *, fpr_limit: float = 0.3, steps: int | None = None, vcp: bool = False
) -> PixelMetrics:
    """Compute every pixel-level metric exactly: each distinct map value is a threshold.

    `masks` and `maps` may each be a stacked (N, H, W) array, a sequence, or an iterator that is read once; an (H, W)
    array is one image. Beyond the arguments, memory is 4 bytes per normal pixel and up to 20 per anomalous pixel
    (8 and about 40 if a map is float64).

    Args:
        masks: One (H, W) array of exactly 0/1 per image, any real dtype; None is an image without anomaly.
        maps: One (H, W) array of finite numbers per image, higher is more anomalous; sizes may differ.
        fpr_limit: Integration limit of AUPRO in (0, 1].
        steps: None for exact AUPRO; a number (200) for the approximation of the papers, see `aupro_200`.
        vcp: Compute F1 and IoU as VCP-CLIP does: 1e-8 in the denominator of F1, and the IoU of {map > f1_threshold}.
            VCP-CLIP also scales the maps of a class to [0, 1] first; do that beforehand if its thresholds matter.

    Returns:
        The metrics. All are nan without anomalous pixels; `auroc` and `aupro` are nan without normal ones.
        `undefined` gives the reasons.

    Raises:
        MetricInputError: Maps do not fit their masks, masks are not 0/1, maps are not finite, there is no pixel, or
            an option is out of range.
    """
    limit = check_fpr_limit(fpr_limit)
    if steps is not None:
        _check_steps(steps)
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


def aupro(masks: Masks, maps: Maps, *, fpr_limit: float = 0.3) -> float:
    """Return the exact area under the per-region overlap curve, `PixelMetrics.aupro`.

    The curve starts at (0, 0) and has a point at every distinct map value, joined by straight lines. It is cut at
    `fpr_limit` by interpolation, and the area is divided by `fpr_limit`. Arguments and errors are those of
    `pixel_metrics`. Without anomalous or without normal pixels the result is nan, with an `UndefinedMetricWarning`.
    """
    limit = check_fpr_limit(fpr_limit)
    ranking = rank_pixels(masks, maps)
    positives, negatives = ranking.positives.size, ranking.negatives.size
    result = summarise(levels(ranking), positives, negatives, fpr_limit=limit).aupro
    if math.isnan(result):
        warn_undefined("AUPRO", undefined_reasons(positives, negatives)["aupro"])
    return result


def aupro_200(masks: Masks, maps: Maps, *, fpr_limit: float = 0.3, steps: int = 200) -> float:
    """Return AUPRO as the papers' code approximates it; only for comparison with published numbers.

    `steps` thresholds are spaced evenly between the lowest and the highest map value, and map > threshold is
    predicted. Points with a false-positive rate below `fpr_limit` are kept, their rates are stretched to [0, 1], and
    the area under them is the result. Nothing is interpolated at either end, so maps with few distinct values, or
    with a few very high ones, can end up far from `aupro`. float16 maps are converted to float32. Arguments and
    errors are those of `pixel_metrics`.

    The result is nan, with an `UndefinedMetricWarning`, where `aupro` is nan, for constant maps, and if fewer than
    two different rates remain (for example for a perfect 0/1 map).
    """
    limit = check_fpr_limit(fpr_limit)
    _check_steps(steps)
    ranking = rank_pixels(masks, maps)
    undefined = undefined_reasons(ranking.positives.size, ranking.negatives.size)
    if undefined:
        warn_undefined("AUPRO", undefined["aupro"])
        return math.nan
    result, reason = _stepped_aupro(ranking, limit, steps)
    if reason:
        warn_undefined("AUPRO in steps", reason)
    return result


@dataclass(frozen=True)
class MaskMetrics:
    """Metrics of binary masks, made with a threshold that was fixed beforehand; fractions in [0, 1].

    Attributes:
        seg_f1: 2 TP / (2 TP + FP + FN) over all pixels of all images (MVTec AD 2); nan without anomalous pixels. It is
            not F1-max, whose threshold is the best one for the masks that it is measured with.
        class_f1: The same over images: one is predicted anomalous if any pixel of it is; nan without anomalous images.
        recall: Share of the anomalous images that are predicted so; nan without anomalous images.
        false_alarms: Share of the normal images that are predicted anomalous; nan without normal images.
    """

    seg_f1: float
    class_f1: float
    recall: float
    false_alarms: float


def mask_metrics(masks: Masks, maps: Maps, threshold: float) -> MaskMetrics:
    """Compute the metrics of {map >= threshold}.

    Args:
        masks: As in `pixel_metrics`.
        maps: As in `pixel_metrics`; or predicted masks of 0 and 1, with a threshold of 1.
        threshold: Map value, chosen without looking at `masks`.

    Raises:
        MetricInputError: As `pixel_metrics`, or the threshold is nan.
    """
    if math.isnan(threshold):
        raise MetricInputError("threshold must be a number, not nan.")
    pixels, images = np.zeros((2, 2), dtype=np.int64), np.zeros((2, 2), dtype=np.int64)  # [label, predicted]
    for mask, scores in checked_pairs(masks, maps):
        predicted = scores >= threshold
        hits = 0 if mask is None else int((predicted & mask).sum())
        positives, alarms = (0 if mask is None else int(mask.sum())), int(predicted.sum())
        pixels += [[scores.size - positives - alarms + hits, alarms - hits], [positives - hits, hits]]
        images[int(mask is not None), int(alarms > 0)] += 1
    if not images.sum():
        raise MetricInputError("there is nothing to measure: no image has a pixel.")

    def ratio(above: int, below: int) -> float:
        return above / below if below else math.nan

    def f1(table: NDArray[np.int64]) -> float:
        (_, fp), (fn, tp) = table.tolist()
        return ratio(2 * tp, 2 * tp + fp + fn) if tp + fn else math.nan

    return MaskMetrics(
        seg_f1=f1(pixels),
        class_f1=f1(images),
        recall=ratio(int(images[1, 1]), int(images[1].sum())),
        false_alarms=ratio(int(images[0, 1]), int(images[0].sum())),
    )


def class_mean(results: Mapping[str, Metrics]) -> Metrics:
    """Return the unweighted mean over classes of unrounded values, as papers summarise a data set.

    Args:
        results: `ImageMetrics` or `PixelMetrics` by class name, all of one type.

    Returns:
        The mean of each metric (also of `f1_threshold`, which is then not a usable threshold). A metric that is nan
        in some class is nan in the mean, and `undefined` names the classes: leaving them out silently would change
        the number.

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
    """Return which pixel metrics are undefined with these pixel counts, and why."""
    if positives == 0:
        return dict.fromkeys(_NAMES, NO_POSITIVES)
    return {} if negatives else dict.fromkeys(("auroc", "aupro"), NO_NEGATIVES)


def checked_pair(mask: ArrayLike | None, scores: ArrayLike, which: str = "") -> tuple[Bools | None, Floats]:
    """Check one image; `which` completes the messages, as in "the map of image 3".

    Returns:
        (H, W) mask, or None if it has no anomalous pixel; (H, W) map.

    Raises:
        MetricInputError: The map is not 2-D or not finite, the mask is not 0/1, or their shapes differ.
    """
    values = as_scores(scores, f"the map{which}")
    if values.ndim != 2:
        raise MetricInputError(f"the map{which} must be (height, width), but has shape {values.shape}.")
    if mask is None:
        return None, values
    flags = as_binary(mask, f"the mask{which}")
    if flags.shape != values.shape:
        raise MetricInputError(
            f"the mask{which} must be as large as its map, but their shapes are {flags.shape} and {values.shape}."
        )
    return (flags if flags.any() else None), values


def label_regions(mask: Bools) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Label the 8-connected regions of a mask with at least one pixel set.

    Returns:
        (P,) region number from 0 of each set pixel in row-major order, and (R,) pixels per region.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    # Only the box around the defects is labelled: most of an image is normal.
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    labelled, _ = ndimage.label(box, structure=_EIGHT_NEIGHBOURS)
    numbers: NDArray[np.int32] = labelled[box].astype(np.int32) - np.int32(1)
    return numbers, np.bincount(numbers).astype(np.int64)


def rank_pixels(masks: Masks, maps: Maps) -> Ranking:
    """Rank all pixels of all images, with the region of each anomalous pixel.

    Raises:
        MetricInputError: As `checked_pair`, the counts of masks and maps differ, or there is no pixel.
    """
    negatives, positives = _KeyBuffer(_pixel_count(maps)), _KeyBuffer()
    regions: list[NDArray[np.int32]] = []
    areas: list[NDArray[np.int64]] = []
    region_count = 0
    for mask, scores in checked_pairs(masks, maps):
        keys = to_keys(scores)
        if mask is None:
            negatives.add(keys.ravel())
            continue
        negatives.add(keys[~mask])
        positives.add(keys[mask])
        numbers, sizes = label_regions(mask)
        regions.append(numbers + np.int32(region_count))
        areas.append(sizes)
        region_count += sizes.size
    if negatives.size + positives.size == 0:
        raise MetricInputError("there is nothing to measure: no image has a pixel.")
    low, high = negatives.keys(), positives.keys()
    if low.dtype != high.dtype:
        low, high = _widened(low), _widened(high)
    none = np.empty(0, dtype=np.int64)
    return rank_regions(high, np.concatenate([none.astype(np.int32), *regions]), low, np.concatenate([none, *areas]))


def checked_pairs(masks: Masks, maps: Maps) -> Iterator[tuple[Bools | None, Floats]]:
    """Yield the (mask, map) of each image; the mask is None without an anomalous pixel. Raises as `checked_pair`."""
    for index, (mask, scores) in enumerate(
        zip_longest(_one_by_one(masks, "masks"), _one_by_one(maps, "maps"), fillvalue=_MISSING)
    ):
        if mask is _MISSING or scores is _MISSING:
            fewer = "masks" if mask is _MISSING else "maps"
            raise MetricInputError(f"masks and maps must be equally many, but there are only {index} {fewer}.")
        yield checked_pair(mask, scores, f" of image {index}")


def _one_by_one(arrays: Any, name: str) -> Iterator[Any]:
    if isinstance(arrays, np.ndarray) and arrays.ndim == 2:
        return iter((arrays,))
    try:
        return iter(arrays)
    except TypeError as error:
        raise MetricInputError(f"{name} must be one array per image, not {type(arrays).__name__}.") from error


def _pixel_count(maps: Any) -> int:
    """Return the number of pixels to expect, or 0 if it cannot be known before the maps are read."""
    if isinstance(maps, np.ndarray):
        return maps.size
    if isinstance(maps, list | tuple) and all(isinstance(scores, np.ndarray) for scores in maps):
        return sum(scores.size for scores in maps)
    return 0


def _widened(keys: Keys) -> Keys:
    return keys if keys.dtype == np.int64 else to_keys(from_keys(keys).astype(np.float64))


class _KeyBuffer:
    """Keys of many images, gathered in one array that is never copied as a whole to be read.

    Memory that is reserved but never written costs nothing, so an expected total is reserved at once.
    """

    def __init__(self, expected: int = 0) -> None:
        self._array: Keys = np.empty(max(expected, 1 << 16), dtype=np.int32)
        self.size = 0

    def add(self, keys: Keys) -> None:
        if keys.dtype != self._array.dtype:
            # One map is float64, another float32: all become float64, which preserves every value.
            keys = _widened(keys)
            if self._array.dtype != np.int64:
                narrow, self._array = self._array, np.empty(self._array.size, dtype=np.int64)
                self._array[: self.size] = _widened(narrow[: self.size])
        end = self.size + keys.size
        if end > self._array.size:
            old = self.keys()
            self._array = np.empty(max(end, 2 * self._array.size), dtype=self._array.dtype)
            self._array[: self.size] = old
        self._array[self.size : end] = keys
        self.size = end

    def keys(self) -> Keys:
        return self._array[: self.size]


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise MetricInputError(f"steps must be at least 1, not {steps}.")


def _stepped_aupro(ranking: Ranking, limit: float, steps: int) -> tuple[float, str]:
    """Return the approximation of `aupro_200`, and the reason if it is nan."""
    positives, negatives = ranking.positives, ranking.negatives
    ends = from_keys(np.array([min(positives[0], negatives[0]), max(positives[-1], negatives[-1])], positives.dtype))
    if ends[0] == ends[1]:
        return math.nan, "the maps are constant"
    if float(ends[1]) / 4 - float(ends[0]) / 4 > float(np.finfo(ends.dtype).max) / 4:
        return math.nan, f"the range of the maps is too wide for {ends.dtype}"
    floors = to_keys(_round_down(_thresholds(ends[0], ends[1], steps), ends.dtype))
    # map > threshold is map > the largest representable value that is not above the threshold.
    rates = (negatives.size - np.searchsorted(negatives, floors, side="right")) / negatives.size
    cuts = [*np.searchsorted(positives, floors, side="right").tolist(), positives.size]
    gains = [float(ranking.shares(start, end).sum()) for start, end in pairwise(cuts)]
    overlap = np.cumsum(gains[::-1])[::-1]
    below = rates < limit
    rates, overlap = rates[below][::-1], overlap[below][::-1]
    if rates.size == 0 or rates[0] == rates[-1]:
        return math.nan, f"fewer than two different false-positive rates lie below {limit}"
    rates = (rates - rates[0]) / (rates[-1] - rates[0])
    return float((np.diff(rates) * (overlap[1:] + overlap[:-1]) / 2).sum()), ""


def _thresholds(low: np.floating[Any], high: np.floating[Any], steps: int) -> NDArray[np.float64]:
    """Return thresholds in the references' arithmetic: only the step is rounded to the maps' precision."""
    step = (high - low) / low.dtype.type(steps)
    count = math.ceil((high - low) / step) if step > 0 else 1
    rounded_step = float(low + step) - float(low)
    multiples: NDArray[np.float64] = np.arange(count, dtype=np.float64)
    return np.add(multiples * rounded_step, float(low), dtype=np.float64)


def _round_down(values: NDArray[np.float64], dtype: np.dtype[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    rounded = values.astype(dtype)
    below: NDArray[np.floating[Any]] = np.where(rounded > values, np.nextafter(rounded, dtype.type(-np.inf)), rounded)
    return below
