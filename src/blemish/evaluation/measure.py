"""From what was recorded of a category to its numbers."""

from __future__ import annotations

import inspect
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from blemish.datasets.masks import resize_mask
from blemish.datasets.samples import Sample
from blemish.errors import UsageError
from blemish.evaluation.examples import choose, save
from blemish.evaluation.record import Entry, Finished, Record, digest_of
from blemish.methods.base import Method
from blemish.metrics import PixelBootstrap, PixelMetrics, StreamedPixelMetrics, StreamingPixelMetrics, pixel_metrics

Aupro: TypeAlias = Literal["exact", "200"]

#: A category of more pixels is measured by a histogram, whose error bound is told; below, 4 bytes a pixel are held.
EXACT_PIXELS = 600_000_000

PIXEL = ("auroc", "ap", "f1_max", "f1_threshold", "iou", "aupro")
#: What a set-wide rule may need to know of each picture, by the names of its arguments.
PARTS = ("scores", "text_scores", "peaks")
NO_MASKS = "it is not known where the anomalies are: there are no masks"


@dataclass(frozen=True, kw_only=True)
class Options:
    """How numbers are computed.

    Attributes:
        aupro: "exact", or "200" for the approximation in 200 steps that the papers' code makes.
        fpr_limit: Up to which false-positive rate AUPRO is taken.
        seed: Of the bootstrap intervals.
        exact_pixels: Categories with more are measured by a histogram.
    """

    aupro: Aupro = "exact"
    fpr_limit: float = 0.3
    seed: int = 0
    exact_pixels: int = field(default_factory=lambda: EXACT_PIXELS)

    def __post_init__(self) -> None:
        if self.aupro not in get_args(Aupro):
            raise UsageError(f"AUPRO is computed {' or '.join(get_args(Aupro))}, not {self.aupro!r}")

    @property
    def label(self) -> str:
        """What AUPRO was computed how; numbers of another label are not taken over."""
        return f"{self.aupro} to {self.fpr_limit:g}"


class Masks:
    """The masks of a category at the size of the models' inputs, read once and kept as bits.

    As in the papers' code, a mask is resized like its picture and cut at one half. Several threads may ask.
    """

    def __init__(self) -> None:
        self._bits: dict[tuple[int, Sample], NDArray[np.uint8] | None] = {}
        self._one = threading.Lock()

    def __call__(self, sample: Sample, side: int) -> NDArray[np.bool_] | None:
        """(side, side) bool, or None for a picture without anomaly. Raises ImageError."""
        key = (side, sample)
        with self._one:  # who comes second waits for the first, who is making what both need
            if key not in self._bits:
                mask = self.once(sample, side)
                self._bits[key] = None if mask is None else np.packbits(mask)
            bits = self._bits[key]
        return None if bits is None else np.unpackbits(bits, count=side * side).reshape(side, side).astype(bool)

    @staticmethod
    def once(sample: Sample, side: int) -> NDArray[np.bool_] | None:
        """The same, and nothing is kept."""
        mask = resize_mask(sample.mask(), side) if sample.masks else None
        return mask if mask is not None and mask.any() else None


def no_pixels(reason: str) -> PixelMetrics:
    """Nothing but the reason for it."""
    return told_pixels(dict.fromkeys(PIXEL), dict.fromkeys(PIXEL, reason))


def told_pixels(values: Mapping[str, float | None], undefined: Mapping[str, str]) -> PixelMetrics:
    """Pixel metrics from recorded values, in which None stands for nan."""
    known = {metric: values.get(metric) for metric in PIXEL}
    numbers = {metric: math.nan if value is None else value for metric, value in known.items()}
    return PixelMetrics(**numbers, undefined=dict(undefined))


def judged(samples: Sequence[Sample]) -> list[Sample]:
    """The pictures of which it is known where they are anomalous, if any is; else none."""
    known = [sample for sample in samples if sample.masks is not None]
    return known if any(sample.masks for sample in known) else []


def measured(
    record: Record,
    name: str,
    method: Method | None,
    category: str,
    samples: Sequence[Sample],
    options: Options,
    masks: Masks,
    histogram: StreamingPixelMetrics | None = None,
) -> Finished:
    """Measure one method's category from the maps that are kept; several threads may do so, each for a method.

    Args:
        record: Holds a score of every picture, and a map of each unless there is a histogram.
        name: Of the method.
        method: For its set-wide rule; None takes over the set-wide scores of an earlier measurement.
        category: Its name.
        samples: Its pictures that were scored.
        options: How to measure.
        masks: Shared by the methods.
        histogram: Of a category that is too large to keep its maps.

    Raises:
        ImageError: A mask cannot be used.
        OutputError: A map cannot be read, or the examples not be written.
    """
    entries = {record.identity(sample): entry_of(record, name, sample) for sample in samples}
    labels = {record.identity(sample): sample.label for sample in samples}
    digest = digest_of(entries, labels)
    bootstrap = PixelBootstrap(seed=options.seed)
    found = _pixels(record, name, samples, options, masks, histogram, bootstrap)
    chosen: list[int] = []
    if histogram is None:
        chosen = sorted({i for indices in choose(*_arrays(entries, labels)).values() for i in indices})
        save(record, name, category, [samples[i] for i in chosen])
    before = record.finished.get((name, category))
    wide: Sequence[float] | None
    if method is not None:
        wide = _set_scores(method, list(entries.values()))
    else:
        wide = before.set_scores if before is not None and before.digest == digest else None
    return Finished(
        digest=digest,
        aupro=options.label,
        pixel={metric: _told(getattr(found, metric)) for metric in PIXEL},
        undefined=dict(found.undefined),
        error=_bound(found),
        set_scores=wide,
        examples=[record.identity(samples[i]) for i in chosen],
        intervals=_intervals(bootstrap, found, options),
    )


def entry_of(record: Record, name: str, sample: Sample) -> Entry:
    """What is known of a picture. Raises UsageError if nothing is."""
    entry = record.entry(name, sample)
    if entry is None:
        raise UsageError(f"{name} has not scored {sample.path}; run the evaluation without --recompute")
    return entry


def _arrays(entries: Mapping[str, Entry], labels: Mapping[str, int]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    return np.array(list(labels.values())), np.array([entry.score for entry in entries.values()])


def _pixels(
    record: Record,
    name: str,
    samples: Sequence[Sample],
    options: Options,
    masks: Masks,
    histogram: StreamingPixelMetrics | None,
    bootstrap: PixelBootstrap,
) -> PixelMetrics:
    """The metrics; the bootstrap gets the pictures of a category whose maps are held."""
    known = judged(samples)
    if not known:
        return no_pixels(NO_MASKS)
    if histogram is None:
        side = len(record.read_map(name, known[0]))
        if len(known) * side**2 <= options.exact_pixels:
            steps = None if options.aupro == "exact" else 200

            def maps() -> Iterator[NDArray[np.float32]]:
                for sample in known:
                    values = record.read_map(name, sample)
                    bootstrap.update(masks(sample, side), values)
                    yield values

            marked = (masks(sample, side) for sample in known)
            return pixel_metrics(marked, maps(), fpr_limit=options.fpr_limit, steps=steps)
        histogram = StreamingPixelMetrics()
        for sample in known:
            histogram.update(masks(sample, side), record.read_map(name, sample))
    streamed = histogram.compute(fpr_limit=options.fpr_limit)
    if options.aupro == "exact":
        return streamed
    reason = "the approximation in 200 steps needs all maps at once, which are too many here"
    values = {metric: getattr(streamed, metric) for metric in PIXEL} | {"aupro": math.nan}
    return StreamedPixelMetrics(**values, undefined={**streamed.undefined, "aupro": reason}, error=streamed.error)


def _intervals(bootstrap: PixelBootstrap, found: PixelMetrics, options: Options) -> dict[str, list[float]]:
    """Of the metrics that are exact and defined; the steps of "200" are another number, so it has none."""
    known = {"auroc", "aupro"} if options.aupro == "exact" else {"auroc"}
    made = bootstrap.intervals(fpr_limit=options.fpr_limit)
    ends = {"auroc": made.auroc, "aupro": made.aupro}
    return {metric: list(ends[metric]) for metric in known - set(found.undefined) if not math.isnan(ends[metric].low)}


def _bound(found: PixelMetrics) -> float:
    if not isinstance(found, StreamedPixelMetrics):
        return 0.0
    bounds = [bound for bound in vars(found.error).values() if not math.isnan(bound)]
    return max(bounds, default=0.0)


def _set_scores(method: Method, entries: Sequence[Entry]) -> list[float] | None:
    """The paper's scores over the whole category; None for a method without such a rule, or where it is undefined."""
    wanted = set_rule(method)
    if wanted is None or not entries:
        return None
    parts: dict[str, list[float | None]] = {
        "scores": [entry.score for entry in entries],
        "text_scores": [entry.text_score for entry in entries],
        "peaks": [entry.peak for entry in entries],
    }
    if any(None in parts[part] for part in wanted):
        return None
    rule: Any = getattr(method, "set_scores")  # noqa: B009 - not every method has it
    values: list[float] = rule(**{part: torch.tensor(parts[part], dtype=torch.float64) for part in wanted}).tolist()
    return values if all(map(math.isfinite, values)) else None


def _told(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def set_rule(method: Method) -> tuple[str, ...] | None:
    """What the method's set-wide rule wants to know of each picture, of `PARTS`; None for a method without one.

    Some papers score a picture only within its whole test set (min-max over a class). Such methods have
    `set_scores`, whose arguments without default are (n,) tensors by these names.
    """
    rule = getattr(method, "set_scores", None)
    if rule is None:
        return None
    wanted = [p.name for p in inspect.signature(rule).parameters.values() if p.default is p.empty]
    return tuple(wanted) if set(wanted) <= set(PARTS) else None
