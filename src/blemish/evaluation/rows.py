"""Rows of numbers from stored scores and measured categories; no model is needed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from blemish.datasets.samples import Sample
from blemish.evaluation.folder import CategoryResult, EvaluationFolder
from blemish.evaluation.measure import (
    NO_MASKS,
    PIXEL_METRICS,
    labels_and_scores,
    to_pixel_metrics,
    undefined_pixel_metrics,
)
from blemish.evaluation.options import MetricOptions
from blemish.evaluation.result import MEAN, MethodDifference, Row, Rule
from blemish.metrics import (
    ImageMetrics,
    Interval,
    PixelMetrics,
    bootstrap_image_metrics,
    class_mean,
    image_metrics,
    paired_difference,
    pb,
    percentile_interval,
    pg,
)

_SET_WIDE = "set-wide scores do not change pixel metrics; see the method's other row"
_IMAGE_METRICS = ("auroc", "ap", "f1_max", "f1_threshold")
_NO_IMAGES = ImageMetrics(
    math.nan, math.nan, math.nan, math.nan, dict.fromkeys(_IMAGE_METRICS, "no picture could be scored")
)
_UNKNOWN = Interval(math.nan, math.nan)


class _CategoryNumbers:
    """One method's numbers on one category, and the resampled metrics that the mean's intervals are made of."""

    def __init__(
        self,
        labels: NDArray[np.int64],
        scores: NDArray[np.float64],
        result: CategoryResult | None,
        options: MetricOptions,
        failed: int,
        missing: str = "it was not measured",
    ) -> None:
        self.pictures, self.anomalous, self.failed = labels.size, int(labels.sum()), failed
        self.image = image_metrics(labels, scores) if labels.size else _NO_IMAGES
        self.pixel = undefined_pixel_metrics(missing)
        if result is not None:
            self.pixel = to_pixel_metrics(result.pixel, result.undefined)
        self.has_masks = self.pixel.undefined.get("auroc") not in (NO_MASKS, _SET_WIDE)
        self.error = 0.0 if result is None else result.error
        is_defined = not math.isnan(self.image.auroc)
        self.resamples = bootstrap_image_metrics(labels, scores, seed=options.seed) if is_defined else np.empty((2, 0))
        stored = {} if result is None else result.intervals
        self.intervals = _image_intervals(self.resamples) | {
            f"pixel_{metric}": Interval(*stored.get(metric, _UNKNOWN)) for metric in ("auroc", "aupro")
        }
        known = {} if result is None else result.extra
        self.extra = {metric: math.nan if (v := known.get(metric)) is None else v for metric in options.extra}
        self.reasons = {} if result is None else {m: r for m, r in result.undefined.items() if m in self.extra}
        if options.more and is_defined:
            self.extra |= {"image_pg2": pg(labels, scores), "image_pb2": pb(labels, scores)}


def make_rows(
    folder: EvaluationFolder,
    dataset: str,
    categories: Mapping[str, Sequence[Sample]],
    methods: Iterable[str],
    options: MetricOptions,
    failed: Mapping[tuple[str, str], int],
) -> list[Row]:
    """Return the rows of every method: its categories, then their mean; set-wide scores where they rank differently.

    Args:
        folder: Scores and measured categories.
        dataset: Name of the data set.
        categories: Images of each category.
        methods: Names of the methods.
        options: How metrics are computed.
        failed: Number of images without a score, by (method, category).
    """
    rows = []
    for name in methods:
        by_image: dict[str, _CategoryNumbers] = {}
        set_wide: dict[str, _CategoryNumbers] = {}
        for category, samples in categories.items():
            labels, scores = labels_and_scores(folder, name, samples)
            result, missing = folder.results.get((name, category)), failed.get((name, category), 0)
            by_image[category] = _CategoryNumbers(labels, scores, result, options, missing)
            if result is not None and result.set_scores is not None and len(result.set_scores) == labels.size:
                set_scores = np.array(result.set_scores)
                set_wide[category] = _CategoryNumbers(labels, set_scores, None, options, missing, _SET_WIDE)
        rows += _method_rows(name, dataset, "picture", by_image)
        if len(set_wide) == len(categories) and _rank_differently(by_image, set_wide):
            rows += _method_rows(name, dataset, "set-wide", set_wide)
    return rows


def method_differences(
    folder: EvaluationFolder,
    categories: Mapping[str, Sequence[Sample]],
    methods: Sequence[str],
    seed: int,
) -> tuple[MethodDifference, ...]:
    """Return how much the best method is ahead of each other one: differences of means, on the same resamples.

    A method is compared over the categories of which every image was scored by both.
    """
    numbers: dict[str, dict[str, tuple[ImageMetrics, NDArray[np.float64]]]] = {}
    for name in methods:
        numbers[name] = {}
        for category, samples in categories.items():
            labels, scores = labels_and_scores(folder, name, samples)
            if labels.size == len(samples) and 0 < labels.sum() < labels.size:
                resamples = bootstrap_image_metrics(labels, scores, seed=seed)
                numbers[name][category] = image_metrics(labels, scores), resamples

    def mean(name: str, metric: str, shared: Iterable[str]) -> float:
        return float(np.mean([getattr(numbers[name][category][0], metric) for category in shared]))

    differences = []
    for row, metric in enumerate(("auroc", "ap")):
        measured = [name for name in methods if numbers[name]]
        if len(measured) < 2:
            continue
        best = max(measured, key=lambda name: mean(name, metric, numbers[name]))
        for name in measured:
            shared = [category for category in numbers[best] if category in numbers[name]]
            if name == best or not shared:
                continue
            value = mean(best, metric, shared) - mean(name, metric, shared)
            resamples = np.mean([numbers[best][c][1][row] - numbers[name][c][1][row] for c in shared], axis=0)
            difference = paired_difference(value, resamples)
            differences.append(
                MethodDifference(
                    metric=f"image_{metric}", first=best, second=name, categories=len(shared), **vars(difference)
                )
            )
    return tuple(differences)


def _method_rows(name: str, dataset: str, rule: Rule, parts: Mapping[str, _CategoryNumbers]) -> list[Row]:
    rows = [
        Row(
            method=name,
            scores=rule,
            dataset=dataset,
            category=category,
            mean=False,
            pictures=part.pictures,
            anomalous=part.anomalous,
            failed=part.failed,
            pixel_categories=int(part.has_masks),
            pixel_error=part.error,
            **_numbers(part.image, part.pixel, part.intervals),
            undefined={**_reasons(part.image, part.pixel), **part.reasons},
            extra=part.extra,
        )
        for category, part in parts.items()
    ]
    image = class_mean({category: part.image for category, part in parts.items()})
    # Pixel means leave out categories without masks; the row gives the number of those that have some.
    masked = {category: part.pixel for category, part in parts.items() if part.has_masks}
    pixel = class_mean(masked or {category: part.pixel for category, part in parts.items()})
    mean = Row(
        method=name,
        scores=rule,
        dataset=dataset,
        category=MEAN,
        mean=True,
        pictures=sum(part.pictures for part in parts.values()),
        anomalous=sum(part.anomalous for part in parts.values()),
        failed=sum(part.failed for part in parts.values()),
        pixel_categories=len(masked),
        pixel_error=math.fsum(part.error for part in parts.values()) / max(len(masked), 1),
        **_numbers(image, pixel, _mean_intervals(list(parts.values()), pixel)),
        undefined=_reasons(image, pixel),
        extra=_mean_extra(list(parts.values())),
    )
    return [*rows, mean]


def _mean_extra(parts: Sequence[_CategoryNumbers]) -> dict[str, float]:
    """Return means of the further metrics, of pixels over the categories with masks; nan where one is nan."""
    masked = [part for part in parts if part.has_masks] or parts
    means = {}
    for metric in parts[0].extra if parts else ():
        values = [part.extra[metric] for part in (parts if metric.startswith("image_") else masked)]
        means[metric] = math.fsum(values) / len(values)
    return means


def _numbers(image: ImageMetrics, pixel: PixelMetrics, intervals: Mapping[str, Interval]) -> dict[str, float]:
    values = {f"image_{metric}": getattr(image, metric) for metric in _IMAGE_METRICS}
    values |= {f"{metric}_low": interval.low for metric, interval in intervals.items()}
    values |= {f"{metric}_high": interval.high for metric, interval in intervals.items()}
    return values | {f"pixel_{metric}": getattr(pixel, metric) for metric in PIXEL_METRICS}


def _reasons(image: ImageMetrics, pixel: PixelMetrics) -> dict[str, str]:
    reasons = {f"image_{metric}": reason for metric, reason in image.undefined.items()}
    own = {metric: reason for metric, reason in pixel.undefined.items() if metric in PIXEL_METRICS}
    return reasons | {f"pixel_{metric}": reason for metric, reason in own.items()}


def _image_intervals(resamples: NDArray[np.float64]) -> dict[str, Interval]:
    """Return the intervals of resampled AUROC and AP, (2, n)."""
    return {f"image_{metric}": percentile_interval(row) for metric, row in zip(("auroc", "ap"), resamples, strict=True)}


def _mean_intervals(parts: Sequence[_CategoryNumbers], pixel: PixelMetrics) -> dict[str, Interval]:
    """Return intervals of the means; nan where a category has none."""
    intervals = dict.fromkeys(("image_auroc", "image_ap", "pixel_auroc", "pixel_aupro"), _UNKNOWN)
    if all(part.resamples.size for part in parts):
        intervals |= _image_intervals(np.mean([part.resamples for part in parts], axis=0))
    masked = [part for part in parts if part.has_masks]
    for metric in ("auroc", "aupro") if masked else ():
        mean, name = getattr(pixel, metric), f"pixel_{metric}"
        values = [(getattr(part.pixel, metric), *part.intervals[name]) for part in masked]
        below = math.hypot(*(value - low for value, low, _ in values)) / len(values)
        above = math.hypot(*(high - value for value, _, high in values)) / len(values)
        intervals[name] = Interval(mean - below, mean + above)
    return intervals


def _rank_differently(first: Mapping[str, _CategoryNumbers], second: Mapping[str, _CategoryNumbers]) -> bool:
    """Return whether two kinds of scores give different metrics; rescaled scores do not."""

    def metrics(part: _CategoryNumbers) -> list[float]:
        return [part.image.auroc, part.image.ap, part.image.f1_max]

    return not all(np.allclose(metrics(first[c]), metrics(second[c]), rtol=0, atol=1e-9, equal_nan=True) for c in first)
