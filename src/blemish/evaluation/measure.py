"""From the scores and maps of a category to its pixel metrics, set-wide scores and examples."""

from __future__ import annotations

import contextlib
import inspect
import math
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from blemish.calibration import mebin, mebin_range
from blemish.datasets.masks import (
    count_vanished,
    examine_masks,
    image_size,
    remark_sentences,
    resize_mask,
    short_names,
)
from blemish.datasets.samples import Sample
from blemish.engine import TorchEngine
from blemish.errors import ImageError, UsageError
from blemish.evaluation.folder import CategoryResult, EvaluationFolder, ImageScore
from blemish.evaluation.options import MASK_METRICS, MetricOptions
from blemish.methods.base import Method
from blemish.metrics import (
    PixelBootstrap,
    PixelMetrics,
    StreamedPixelMetrics,
    StreamingPixelMetrics,
    UndefinedMetricWarning,
    aupimo,
    aupro,
    mask_metrics,
    pixel_metrics,
)
from blemish.tiling import resize

PIXEL_METRICS = ("auroc", "ap", "f1_max", "f1_threshold", "iou", "aupro")
NO_MASKS = "there are no masks, so it is unknown where the anomalies are"
_NO_MAPS = "the maps were not kept; run the evaluation with maps kept"

Kind: TypeAlias = Literal["true positive", "false negative", "false positive", "true negative"]
KINDS: tuple[Kind, ...] = get_args(Kind)
#: The second false-positive rate up to which AUPRO is integrated, as in MVTec LOCO and MVTec AD 2.
STRICT_FPR_LIMIT = 0.05
#: Examples of each kind.
NUM_EXAMPLES = 4
#: Longer side of the examples' maps in pixels.
EXAMPLE_SIDE = 128
#: What a rule for set-wide scores may need of each image, by the names of its arguments.
_SET_SCORE_INPUTS = ("scores", "text_scores", "peaks")


@dataclass
class MaskNotes:
    """What was noticed about the masks of a category."""

    remarks: dict[str, dict[Path, None]] = field(default_factory=dict)
    """Files by remark: see `examine_masks`."""
    regions: dict[int, dict[Path, tuple[int, int]]] = field(default_factory=dict)
    """By side of the maps, for each picture: anomalous regions that vanish from the reduced mask, and all."""

    def sentences(self, side: int) -> list[str]:
        """Return the notes that concern maps of one side."""
        lines = remark_sentences(self.remarks)
        counts = self.regions.get(side, {})
        gone = {path: number for path, (number, _) in counts.items() if number}
        if gone:
            total = sum(number for _, number in counts.values())
            lines.append(
                f"{sum(gone.values()):,} of {total:,} anomalous regions are too small or too thin for maps of {side} x "
                f"{side} pixels and vanish from the pixel metrics; full masks would count them: {short_names([*gone])}"
            )
        return lines


class MaskCache:
    """Masks of a category, read once and kept as bits, and what was noticed about them. Thread-safe.

    As in the papers' code, a mask is resized like its image to the size of the map and thresholded at one half.

    Args:
        full: Keep the masks in their images' own size; maps are enlarged instead.
    """

    def __init__(self, full: bool = False) -> None:
        self.full, self.notes = full, MaskNotes()
        self._bits: dict[tuple[int, Sample], tuple[NDArray[np.uint8], tuple[int, int]] | None] = {}
        self._lock = threading.Lock()

    def __call__(self, sample: Sample, side: int) -> NDArray[np.bool_] | None:
        """Return the mask, (side, side) or of the image's size; None for one without anomaly. Raises ImageError."""
        key = (0 if self.full else side, sample)
        with self._lock:  # also while reading, since other threads need the same mask
            if key not in self._bits:
                mask = self.read(sample, side)
                self._bits[key] = None if mask is None else (np.packbits(mask), (mask.shape[0], mask.shape[1]))
            kept = self._bits[key]
        if kept is None:
            return None
        bits, shape = kept
        return np.unpackbits(bits, count=shape[0] * shape[1]).reshape(shape).astype(bool)

    def read(self, sample: Sample, side: int) -> NDArray[np.bool_] | None:
        """Return the same as a call, without keeping it."""
        return read_mask(sample, None if self.full else side, self.notes)

    def fit(self, sample: Sample, anomaly_map: NDArray[np.float32], side: int) -> NDArray[np.float32]:
        """Return the map in the size of the mask of a call with `side`. Raises ImageError."""
        # A map that an earlier run kept for full masks may have the size of its picture.
        width, height = image_size(sample.path) if self.full else (side, side)
        if anomaly_map.shape == (height, width):
            return anomaly_map
        enlarged: NDArray[np.float32] = resize(torch.from_numpy(anomaly_map), height, width).numpy()
        return enlarged


def read_mask(sample: Sample, side: int | None, notes: MaskNotes) -> NDArray[np.bool_] | None:
    """Return the mask, (side, side) or of the image's size for None; None for an image without anomaly.

    Raises:
        ImageError: A mask cannot be used.
    """
    if not sample.masks:
        return None
    mask, remarks = examine_masks(sample.masks, sample.path, image_size(sample.path))
    for path, remark in remarks:
        notes.remarks.setdefault(remark, {})[path] = None
    if side is not None:
        full, mask = mask, resize_mask(mask, side)
        notes.regions.setdefault(side, {})[sample.path] = count_vanished(full, mask)
    return mask if mask.any() else None


def input_map(engine: TorchEngine, anomaly_map: torch.Tensor) -> torch.Tensor:
    """Return a map (H, W) at the side of the method's input, at which masks are compared with it."""
    if anomaly_map.shape == (engine.size, engine.size):
        return anomaly_map
    return engine.finish_map(anomaly_map, engine.size, engine.size)


def with_known_masks(samples: Sequence[Sample]) -> list[Sample]:
    """Return the images whose masks are known; none unless one of them has an anomaly marked."""
    masked = [sample for sample in samples if sample.masks is not None]
    return masked if any(sample.masks for sample in masked) else []


def count_pixels(samples: Sequence[Sample], side: int, options: MetricOptions) -> int:
    """Return how many pixels are measured: those of the maps, or those of the images themselves for full masks."""
    if options.masks == "map":
        return len(samples) * side**2
    total = 0
    for sample in samples:
        with contextlib.suppress(ImageError):  # it will fail where it is read
            total += math.prod(image_size(sample.path))
    return total


def to_pixel_metrics(values: Mapping[str, float | None], undefined: Mapping[str, str]) -> PixelMetrics:
    """Return pixel metrics from stored values, in which None is nan."""
    numbers = {metric: math.nan if (v := values.get(metric)) is None else v for metric in PIXEL_METRICS}
    return PixelMetrics(**numbers, undefined=dict(undefined))


def undefined_pixel_metrics(reason: str) -> PixelMetrics:
    """Return pixel metrics that are all undefined."""
    return to_pixel_metrics({}, dict.fromkeys(PIXEL_METRICS, reason))


def measure_category(
    folder: EvaluationFolder,
    name: str,
    method: Method | None,
    category: str,
    samples: Sequence[Sample],
    options: MetricOptions,
    masks: MaskCache,
    histogram: StreamingPixelMetrics | None = None,
    map_range: tuple[float, float] = (0.0, 1.0),
) -> CategoryResult:
    """Measure one category of one method. Threads may measure several methods at once.

    Args:
        folder: Has a score of every image and, without `histogram`, a map of every image.
        name: Name of the method.
        method: The method, for its set-wide scores; None to keep those of the stored result.
        category: Name of the category.
        samples: Images of the category that were scored.
        options: How to measure.
        masks: Shared by the methods.
        histogram: Pixels of a category that is too large to keep its maps.
        map_range: Range of the method's maps, of which `MetricOptions.mask_threshold` is a fraction.

    Raises:
        ImageError: A mask cannot be used.
        OutputError: A map cannot be read, or the examples cannot be written.
    """
    labels, scores = labels_and_scores(folder, name, samples)
    digest = folder.digest(name, samples)
    bootstrap = PixelBootstrap(seed=options.seed)
    metrics = _pixel_metrics(folder, name, samples, options, masks, histogram, bootstrap)
    if histogram is not None and method is not None:
        side = method.computation.size
    else:
        side = len(folder.read_map(name, samples[0]))
    extra, reasons = _extra_metrics(folder, name, samples, options, masks, histogram, map_range)
    examples: list[int] = []
    if histogram is None:
        examples = sorted({i for indices in choose_examples(labels, scores).values() for i in indices})
        if examples:
            folder.write_examples(name, category, [_shrink(folder.read_map(name, samples[i])) for i in examples])
    stored = folder.results.get((name, category))
    set_scores: Sequence[float] | None = None
    if method is not None:
        set_scores = _set_scores(method, [_require_score(folder, name, sample) for sample in samples])
    elif stored is not None and stored.digest == digest:
        set_scores = stored.set_scores
    return CategoryResult(
        digest=digest,
        aupro=options.variant,
        pixel={m: None if math.isnan(v := getattr(metrics, m)) else float(v) for m in PIXEL_METRICS},
        undefined={**metrics.undefined, **reasons},
        error=_error_bound(metrics),
        set_scores=set_scores,
        examples=[folder.identity(samples[i]) for i in examples],
        intervals=_intervals(bootstrap, metrics, options),
        mask_notes=masks.notes.sentences(side),
        extra={m: None if math.isnan(v) else float(v) for m, v in extra.items()},
    )


def remeasure_category(
    folder: EvaluationFolder,
    name: str,
    category: str,
    samples: Sequence[Sample],
    options: MetricOptions,
    masks: MaskCache,
    map_range: tuple[float, float] = (0.0, 1.0),
) -> None:
    """Update `folder.results` for one category of one method, without the model.

    Without the maps of all images the stored pixel metrics stay. Those of another variant become undefined: AUPRO, or
    all of them if the masks had another size.

    Raises:
        ImageError: A mask cannot be used.
        OutputError: A map cannot be read, or the folder cannot be written to.
    """
    if all(folder.map_path(name, sample).is_file() for sample in samples):
        result = measure_category(folder, name, None, category, samples, options, masks, map_range=map_range)
        folder.add_result(name, category, result)
        return
    stored = folder.results.get((name, category))
    # What follows changes the results in memory only: the folder keeps what was measured.
    if stored is None or stored.digest != folder.digest(name, samples):
        undefined = dict.fromkeys(PIXEL_METRICS, _NO_MAPS)
        folder.results[name, category] = CategoryResult("", options.variant, {}, undefined, 0.0, None, ())
    elif stored.aupro != options.variant:
        gone: tuple[str, ...] = () if options.has_aupro_of(stored.aupro) else ("aupro",)
        gone = gone if options.has_masks_of(stored.aupro) else PIXEL_METRICS
        pixel_extra = [m for m in _pixel_extra(options) if m not in stored.extra or m in MASK_METRICS]
        missing = pixel_extra if gone != PIXEL_METRICS else _pixel_extra(options)
        folder.results[name, category] = replace(
            stored,
            pixel={**stored.pixel, **dict.fromkeys(gone)},
            extra={**stored.extra, **dict.fromkeys(missing)},
            undefined={**dict.fromkeys((*gone, *missing), _NO_MAPS), **stored.undefined},
            intervals={metric: ends for metric, ends in stored.intervals.items() if metric not in gone},
        )


def labels_and_scores(
    folder: EvaluationFolder, name: str, samples: Sequence[Sample]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return labels and scores of a method's images, (n,) each; images without a score are left out."""
    scored = [(sample.label, score.score) for sample in samples if (score := folder.score(name, sample)) is not None]
    labels = np.array([label for label, _ in scored], dtype=np.int64)
    return labels, np.array([score for _, score in scored], dtype=np.float64)


def rank_error(labels: NDArray[np.int64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far each image is on the wrong side of the other label, (n,) in [0, 1].

    For an anomalous image it is the share of normal images with a score at least as high, for a normal image the share
    of anomalous images with a score at most as high; 0 without images of the other label. Scores of different
    categories have no common scale, so an image is compared within its own category.
    """
    normal, anomalous = np.sort(scores[labels == 0]), np.sort(scores[labels == 1])
    above = (normal.size - np.searchsorted(normal, scores, side="left")) / max(normal.size, 1)
    below = np.searchsorted(anomalous, scores, side="right") / max(anomalous.size, 1)
    return np.where(labels == 1, above, below)


def choose_examples(
    labels: NDArray[np.int64], scores: NDArray[np.float64], count: int = NUM_EXAMPLES
) -> dict[Kind, list[int]]:
    """Return indices of the clearest examples of each kind in one category; ties go by score, then by order."""
    error = rank_error(labels, scores)
    examples: dict[Kind, list[int]] = {}
    for kind in KINDS:
        by_score = -scores if kind in ("true positive", "false positive") else scores
        by_error = -error if kind.startswith("false") else error
        order = np.lexsort((by_score, by_error))
        label = int(kind in ("true positive", "false negative"))
        examples[kind] = order[labels[order] == label][:count].tolist()
    return examples


def set_score_inputs(method: Method) -> tuple[str, ...] | None:
    """Return what the method's `set_scores` needs of each image; None for a method without set-wide scores.

    Some papers score an image only within its whole test set (min-max over a category). Their methods have
    `set_scores`, whose arguments without default are (n,) tensors named as in `_SET_SCORE_INPUTS`.
    """
    rule = getattr(method, "set_scores", None)
    if rule is None:
        return None
    inputs = [p.name for p in inspect.signature(rule).parameters.values() if p.default is p.empty]
    return tuple(inputs) if set(inputs) <= set(_SET_SCORE_INPUTS) else None


def _require_score(folder: EvaluationFolder, name: str, sample: Sample) -> ImageScore:
    score = folder.score(name, sample)
    if score is None:
        raise UsageError(f"{name} has not scored {sample.path}; run the evaluation again")
    return score


def _pixel_metrics(
    folder: EvaluationFolder,
    name: str,
    samples: Sequence[Sample],
    options: MetricOptions,
    masks: MaskCache,
    histogram: StreamingPixelMetrics | None,
    bootstrap: PixelBootstrap,
) -> PixelMetrics:
    """Return the metrics; images of a category whose maps fit into memory are added to the bootstrap."""
    masked = with_known_masks(samples)
    if not masked:
        return undefined_pixel_metrics(NO_MASKS)
    if histogram is None:
        side = len(folder.read_map(name, masked[0]))
        if count_pixels(masked, side, options) <= options.max_exact_pixels:

            def maps() -> Iterator[NDArray[np.float32]]:
                for sample in masked:
                    anomaly_map = masks.fit(sample, folder.read_map(name, sample), side)
                    bootstrap.update(masks(sample, side), anomaly_map)
                    yield anomaly_map

            steps = None if options.aupro == "exact" else 200
            truth = (masks(sample, side) for sample in masked)
            return pixel_metrics(truth, maps(), fpr_limit=options.fpr_limit, steps=steps)
        histogram = StreamingPixelMetrics()
        for sample in masked:
            histogram.update(masks.read(sample, side), masks.fit(sample, folder.read_map(name, sample), side))
    streamed = histogram.compute(fpr_limit=options.fpr_limit)
    if options.aupro == "exact":
        return streamed
    reason = "the approximation in 200 steps needs all maps at once, and there are too many"
    return replace(streamed, aupro=math.nan, undefined={**streamed.undefined, "aupro": reason})


def _pixel_extra(options: MetricOptions) -> list[str]:
    """Return the names of the further metrics that need maps and masks."""
    return [metric for metric in options.extra if not metric.startswith("image_")]


def _extra_metrics(
    folder: EvaluationFolder,
    name: str,
    samples: Sequence[Sample],
    options: MetricOptions,
    masks: MaskCache,
    histogram: StreamingPixelMetrics | None,
    map_range: tuple[float, float],
) -> tuple[dict[str, float], dict[str, str]]:
    """Return the further metrics of `_pixel_extra`, and the reason for each that is nan."""
    names = _pixel_extra(options)
    masked = with_known_masks(samples)
    if not names or not masked:
        return dict.fromkeys(names, math.nan), dict.fromkeys(names, NO_MASKS)
    if histogram is not None:
        values = dict.fromkeys(names, math.nan)
        if options.more:
            values["pixel_aupro_05"] = histogram.compute(fpr_limit=STRICT_FPR_LIMIT).aupro
        return values, {m: "the maps are too large to keep" for m, value in values.items() if math.isnan(value)}
    side = len(folder.read_map(name, masked[0]))
    if count_pixels(masked, side, options) > options.max_exact_pixels:
        return dict.fromkeys(names, math.nan), dict.fromkeys(names, "there are too many pixels to measure at once")

    def pairs() -> tuple[Iterator[NDArray[np.bool_] | None], Iterator[NDArray[np.float32]]]:
        return (masks(sample, side) for sample in masked), (
            masks.fit(sample, folder.read_map(name, sample), side) for sample in masked
        )

    values, reasons = {}, {}
    if options.more:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UndefinedMetricWarning)
            values["pixel_aupro_05"] = aupro(*pairs(), fpr_limit=STRICT_FPR_LIMIT)
        if math.isnan(values["pixel_aupro_05"]):
            reasons["pixel_aupro_05"] = "there are no normal pixels"
        areas = aupimo(*pairs())
        values["pixel_aupimo"] = float(np.nanmean(areas)) if not np.isnan(areas).all() else math.nan
        if math.isnan(values["pixel_aupimo"]):
            reasons["pixel_aupimo"] = "AUPIMO needs normal pictures with 100,000 pixels or more in total"
    if options.mask_threshold is not None:
        low, high = map_range
        if isinstance(options.mask_threshold, str):
            # The rule knows no labels, so it searches the maps of all pictures that were scored.
            search = mebin_range(folder.read_map(name, sample) for sample in samples)
            truth, maps = pairs()
            predicted = ((values > mebin(values, search)).astype(np.float32) for values in maps)
            metrics = mask_metrics(truth, predicted, 1.0)
        else:
            metrics = mask_metrics(*pairs(), low + options.mask_threshold * (high - low))
        for metric, value in vars(metrics).items():
            values[f"mask_{metric}"] = value
            if math.isnan(value):
                reasons[f"mask_{metric}"] = "there are no normal pictures"
    return values, reasons


def _intervals(bootstrap: PixelBootstrap, metrics: PixelMetrics, options: MetricOptions) -> dict[str, list[float]]:
    """Return the intervals of metrics that are exact and defined; the approximated AUPRO is another number."""
    names = {"auroc", "aupro"} if options.aupro == "exact" else {"auroc"}
    intervals = bootstrap.intervals(fpr_limit=options.fpr_limit)._asdict()
    return {
        name: list(intervals[name]) for name in names - set(metrics.undefined) if not math.isnan(intervals[name].low)
    }


def _error_bound(metrics: PixelMetrics) -> float:
    if not isinstance(metrics, StreamedPixelMetrics):
        return 0.0
    return max((bound for bound in vars(metrics.error).values() if not math.isnan(bound)), default=0.0)


def _set_scores(method: Method, scores: Sequence[ImageScore]) -> list[float] | None:
    """Return the scores by the paper's rule for whole sets; None without such a rule or where it is undefined."""
    inputs = set_score_inputs(method)
    if inputs is None or not scores:
        return None
    values: dict[str, list[float | None]] = {
        "scores": [score.score for score in scores],
        "text_scores": [score.text_score for score in scores],
        "peaks": [score.peak for score in scores],
    }
    if any(None in values[name] for name in inputs):
        return None
    rule: Any = getattr(method, "set_scores")  # noqa: B009 - only some methods have it
    result: list[float] = rule(**{name: torch.tensor(values[name], dtype=torch.float64) for name in inputs}).tolist()
    return result if all(map(math.isfinite, result)) else None


def _shrink(anomaly_map: NDArray[np.float32]) -> NDArray[np.float32]:
    side = min(EXAMPLE_SIDE, len(anomaly_map))
    small: NDArray[np.float32] = functional.adaptive_avg_pool2d(torch.from_numpy(anomaly_map)[None, None], side)[
        0, 0
    ].numpy()
    return small
