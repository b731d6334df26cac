"""Rows from recorded scores and measured categories; no model is needed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from blemish.datasets.samples import Sample
from blemish.evaluation.measure import NO_MASKS, PIXEL, Options, entry_of, no_pixels, told_pixels
from blemish.evaluation.record import Finished, Record
from blemish.evaluation.result import MEAN, Row, Rule
from blemish.metrics import (
    ImageMetrics,
    PixelMetrics,
    class_mean,
    image_metrics,
)

SET_WIDE = "a picture's place in its set has no bearing on its pixels; see the method's other row"
#: Of the table that resamples are counted in.
_CELLS = 1 << 20
#: Of bootstrap resamples.
RESAMPLES = 1000
#: The metrics that have intervals.
_IMAGE, _PIXEL = ("image_auroc", "image_ap"), ("pixel_auroc", "pixel_aupro")


_NO_IMAGES = ImageMetrics(
    math.nan,
    math.nan,
    math.nan,
    math.nan,
    dict.fromkeys(("auroc", "ap", "f1_max", "f1_threshold"), "no picture could be scored"),
)


#: Of a category or a mean: low and high by metric.
_Intervals: TypeAlias = dict[str, tuple[float, float]]


class _Part:
    """One method's numbers on one category, with the resampled metrics that the mean's intervals are made of."""

    def __init__(
        self,
        labels: NDArray[np.int64],
        scores: NDArray[np.float64],
        found: Finished | None,
        seed: int,
        failed: int,
        missing: str = "it was not measured",
    ) -> None:
        self.pictures, self.anomalous, self.failed = labels.size, int(labels.sum()), failed
        self.image = image_metrics(labels, scores) if labels.size else _NO_IMAGES
        self.pixel = no_pixels(missing) if found is None else told_pixels(found.pixel, found.undefined)
        self.masked = self.pixel.undefined.get("auroc") not in (NO_MASKS, SET_WIDE)
        self.error = 0.0 if found is None else found.error
        defined = not math.isnan(self.image.auroc)
        self.draws = resampled(labels, scores, RESAMPLES, seed) if defined else np.empty((2, 0))
        self.intervals: _Intervals = dict(zip(_IMAGE, map(_interval, self.draws), strict=True))
        known = {} if found is None else found.intervals
        for metric in _PIXEL:
            low, high = known.get(metric.removeprefix("pixel_"), (math.nan, math.nan))
            self.intervals[metric] = low, high


def rows_of(
    record: Record,
    dataset: str,
    categories: Mapping[str, Sequence[Sample]],
    methods: Iterable[str],
    options: Options,
    failed: Mapping[tuple[str, str], int],
) -> list[Row]:
    """The rows of every method: categories, then their mean; set-wide scores where they make a difference.

    Args:
        record: Scores and measured categories.
        dataset: Its name.
        categories: The pictures of each.
        methods: Their names.
        options: How to measure.
        failed: By (method, category): pictures without a score.
    """
    rows = []
    for name in methods:
        rules: dict[Rule, dict[str, _Part]] = {"picture": {}, "set-wide": {}}
        for category, samples in categories.items():
            there = [sample for sample in samples if record.entry(name, sample) is not None]
            labels = np.array([sample.label for sample in there], dtype=np.int64)
            scores = np.array([entry_of(record, name, sample).score for sample in there], dtype=np.float64)
            found = record.finished.get((name, category))
            missing = failed.get((name, category), 0)
            rules["picture"][category] = _Part(labels, scores, found, options.seed, missing)
            if found is not None and found.set_scores is not None and len(found.set_scores) == labels.size:
                wide = np.array(found.set_scores)
                rules["set-wide"][category] = _Part(labels, wide, None, options.seed, missing, SET_WIDE)
        rows += _table(name, dataset, "picture", rules["picture"])
        if len(rules["set-wide"]) == len(categories) and _differ(rules["picture"], rules["set-wide"]):
            rows += _table(name, dataset, "set-wide", rules["set-wide"])
    return rows


def _table(name: str, dataset: str, rule: Rule, parts: Mapping[str, _Part]) -> list[Row]:
    rows = [_row(name, dataset, rule, category, part) for category, part in parts.items()]
    image = class_mean({category: part.image for category, part in parts.items()})
    # A category that comes without masks is no part of the pixel means, and the row says of how many they are.
    masked = {category: part.pixel for category, part in parts.items() if part.masked}
    pixel = class_mean(masked or {category: part.pixel for category, part in parts.items()})
    intervals = _mean_intervals(list(parts.values()), [part for part in parts.values() if part.masked], pixel)
    rows.append(
        Row(
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
            **_numbers(image, pixel, intervals),
            undefined=_reasons(image, pixel),
        )
    )
    return rows


def _row(name: str, dataset: str, rule: Rule, category: str, part: _Part) -> Row:
    return Row(
        method=name,
        scores=rule,
        dataset=dataset,
        category=category,
        mean=False,
        pictures=part.pictures,
        anomalous=part.anomalous,
        failed=part.failed,
        pixel_categories=int(part.masked),
        pixel_error=part.error,
        **_numbers(part.image, part.pixel, part.intervals),
        undefined=_reasons(part.image, part.pixel),
    )


def _numbers(image: ImageMetrics, pixel: PixelMetrics, intervals: _Intervals) -> dict[str, float]:
    values = {f"image_{metric}": getattr(image, metric) for metric in ("auroc", "ap", "f1_max", "f1_threshold")}
    values |= {f"{metric}_low": low for metric, (low, _) in intervals.items()}
    values |= {f"{metric}_high": high for metric, (_, high) in intervals.items()}
    return values | {f"pixel_{metric}": getattr(pixel, metric) for metric in PIXEL}


def _reasons(image: ImageMetrics, pixel: PixelMetrics) -> dict[str, str]:
    reasons = {f"image_{metric}": reason for metric, reason in image.undefined.items()}
    return reasons | {f"pixel_{metric}": reason for metric, reason in pixel.undefined.items()}


def _mean_intervals(parts: Sequence[_Part], masked: Sequence[_Part], pixel: PixelMetrics) -> _Intervals:
    """Intervals of the means; nan if one of the categories has none."""
    ends: _Intervals = dict.fromkeys((*_IMAGE, *_PIXEL), (math.nan, math.nan))
    if all(part.draws.size for part in parts):
        means = np.mean([part.draws for part in parts], axis=0)
        ends |= dict(zip(_IMAGE, map(_interval, means), strict=True))
    for metric in _PIXEL if masked else ():
        mean, name = getattr(pixel, metric.removeprefix("pixel_")), metric.removeprefix("pixel_")
        values = [(getattr(part.pixel, name), *part.intervals[metric]) for part in masked]
        below = math.hypot(*(value - low for value, low, _ in values)) / len(values)
        above = math.hypot(*(high - value for value, _, high in values)) / len(values)
        ends[metric] = mean - below, mean + above
    return ends


def _interval(draws: NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95 % of resampled values, those that are defined; nan where none is."""
    known = draws[~np.isnan(draws)]
    if not known.size:
        return math.nan, math.nan
    low, high = np.quantile(known, (0.025, 0.975))
    return float(low), float(high)


def resampled(labels: NDArray[np.int64], scores: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """AUROC and AP of pictures drawn with replacement: what `metrics.bootstrap_interval` draws, many at a time.

    Returns:
        (2, resamples): AUROC, then AP; nan where a resample does not define it.
    """
    distinct, level = np.unique(scores, return_inverse=True)
    code, width = 2 * level + labels, 2 * distinct.size
    generator = np.random.default_rng(seed)
    found = np.empty((2, resamples))
    step = max(1, _CELLS // width)
    for first in range(0, resamples, step):
        rows = min(step, resamples - first)
        chosen = [code[generator.integers(labels.size, size=labels.size)] + row * width for row in range(rows)]
        counts = np.bincount(np.concatenate(chosen), minlength=rows * width).reshape(rows, distinct.size, 2)
        normal, anomalous = counts[..., 0], counts[..., 1]
        positives = anomalous.sum(axis=1)
        # Twice the pairs in the right order, a tie counting one of the two: whole numbers, so nothing is rounded.
        pairs = (anomalous * (2 * normal.cumsum(axis=1) - normal)).sum(axis=1)
        possible = 2 * normal.sum(axis=1) * positives
        # From the highest score down: each gain in recall times the precision there.
        hits = anomalous[:, ::-1].cumsum(axis=1)
        marked = np.maximum(hits + normal[:, ::-1].cumsum(axis=1), 1)
        gained = (anomalous[:, ::-1] * (hits / marked)).sum(axis=1)
        for line, above, below in ((0, pairs, possible), (1, gained, positives)):
            values = np.divide(above, below, out=np.full(rows, np.nan), where=below > 0)
            found[line, first : first + rows] = values
    return found


def _differ(one: Mapping[str, _Part], other: Mapping[str, _Part]) -> bool:
    """Whether the two rules rank pictures differently; a stretch that keeps their order changes no metric."""

    def told(part: _Part) -> list[float]:
        return [part.image.auroc, part.image.ap, part.image.f1_max]

    return not all(np.allclose(told(one[c]), told(other[c]), rtol=0, atol=1e-9, equal_nan=True) for c in one)
