"""Rows from recorded scores and measured categories; no model is needed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

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


_NO_IMAGES = ImageMetrics(
    math.nan,
    math.nan,
    math.nan,
    math.nan,
    dict.fromkeys(("auroc", "ap", "f1_max", "f1_threshold"), "no picture could be scored"),
)


class _Part:
    """One method's numbers on one category, with the resampled AUROCs that the mean's interval is made of."""

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
        self.draws = resampled_auroc(labels, scores, RESAMPLES, seed) if defined else np.empty(0)
        self.low, self.high = _interval(self.draws)


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
    low, high = _mean_interval(list(parts.values()))
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
            image_auroc_low=low,
            image_auroc_high=high,
            pixel_categories=len(masked),
            pixel_error=math.fsum(part.error for part in parts.values()) / max(len(masked), 1),
            **_numbers(image, pixel),
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
        image_auroc_low=part.low,
        image_auroc_high=part.high,
        pixel_categories=int(part.masked),
        pixel_error=part.error,
        **_numbers(part.image, part.pixel),
        undefined=_reasons(part.image, part.pixel),
    )


def _numbers(image: ImageMetrics, pixel: PixelMetrics) -> dict[str, float]:
    values = {f"image_{metric}": getattr(image, metric) for metric in ("auroc", "ap", "f1_max", "f1_threshold")}
    return values | {f"pixel_{metric}": getattr(pixel, metric) for metric in PIXEL}


def _reasons(image: ImageMetrics, pixel: PixelMetrics) -> dict[str, str]:
    reasons = {f"image_{metric}": reason for metric, reason in image.undefined.items()}
    return reasons | {f"pixel_{metric}": reason for metric, reason in pixel.undefined.items()}


def _mean_interval(parts: Sequence[_Part]) -> tuple[float, float]:
    """Percentiles of the mean over categories, each resampled on its own; nan if one of them has none."""
    if any(not part.draws.size for part in parts):
        return math.nan, math.nan
    return _interval(np.mean([part.draws for part in parts], axis=0))


def _interval(draws: NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95 % of resampled values, those that are defined; nan where none is."""
    known = draws[~np.isnan(draws)]
    if not known.size:
        return math.nan, math.nan
    low, high = np.quantile(known, (0.025, 0.975))
    return float(low), float(high)


def resampled_auroc(
    labels: NDArray[np.int64], scores: NDArray[np.float64], resamples: int, seed: int
) -> NDArray[np.float64]:
    """AUROC of pictures drawn with replacement: what `metrics.bootstrap_interval` draws, many resamples at a time.

    Returns:
        (resamples,); nan where a resample has one label only.
    """
    distinct, level = np.unique(scores, return_inverse=True)
    code, width = 2 * level + labels, 2 * distinct.size
    generator = np.random.default_rng(seed)
    found = np.empty(resamples)
    step = max(1, _CELLS // width)
    for first in range(0, resamples, step):
        rows = min(step, resamples - first)
        chosen = [code[generator.integers(labels.size, size=labels.size)] + row * width for row in range(rows)]
        counts = np.bincount(np.concatenate(chosen), minlength=rows * width).reshape(rows, distinct.size, 2)
        normal, anomalous = counts[..., 0], counts[..., 1]
        # Twice the pairs in the right order, a tie counting one of the two: whole numbers, so nothing is rounded.
        pairs = (anomalous * (2 * normal.cumsum(axis=1) - normal)).sum(axis=1)
        possible = 2 * normal.sum(axis=1) * anomalous.sum(axis=1)
        found[first : first + rows] = np.divide(pairs, possible, out=np.full(rows, np.nan), where=possible > 0)
    return found


def _differ(one: Mapping[str, _Part], other: Mapping[str, _Part]) -> bool:
    """Whether the two rules rank pictures differently; a stretch that keeps their order changes no metric."""

    def told(part: _Part) -> list[float]:
        return [part.image.auroc, part.image.ap, part.image.f1_max]

    return not all(np.allclose(told(one[c]), told(other[c]), rtol=0, atol=1e-9, equal_nan=True) for c in one)
