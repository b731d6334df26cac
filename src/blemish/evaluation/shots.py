"""The few-shot protocol: a few good pictures, drawn several times, and what was promised against what was measured.

For each category and seed the good pictures are put in a random order, and the first k are the references. They come
from the train split where it has enough; else they are set aside from the good pictures of the test split, as many as
the largest k, so that all k are measured on the same pictures. Each row says which.

With two references or more a profile is fitted (`Detector.fit`): its threshold promises a false-alarm rate, and the row
says how many good test pictures are called anomalous. With one there is nothing to calibrate with, and no promise. Each
test picture goes through the backbone once for all k and seeds.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from blemish import datasets
from blemish.datasets import Sample
from blemish.detector import Detector
from blemish.errors import UsageError
from blemish.evaluation.measure import MaskNotes, input_map, read_mask, with_known_masks
from blemish.evaluation.protocol import Part, method_settings, picture_keys, run_parts
from blemish.evaluation.result import without_nan
from blemish.evaluation.tables import markdown_table, mean, mean_over_seeds, percent, write_protocol
from blemish.image_io import read_image
from blemish.metrics import StreamingPixelMetrics, image_metrics
from blemish.types import PathLike

SHOTS = (1, 2, 4, 8, 16)
SEEDS = 3
#: Probability of an interval, and that a promise which is kept exactly is called kept.
_LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class ShotRow:
    """One method on one category with one draw of k references.

    Attributes:
        method: Name of the method.
        category: Name of the category.
        shots: Number k of references.
        seed: Number of the draw.
        references: Split that they come from, "train" or "test"; those from test are not scored.
        pictures: Number of test pictures that were scored.
        anomalous: Number of anomalous ones among them.
        image_auroc: Image AUROC; nan with one label only.
        image_ap: Image AP; nan without anomalous pictures.
        pixel_auroc: Pixel AUROC at the size of the method's input, from a histogram; nan without masks.
        pixel_aupro: AUPRO up to 0.3, likewise.
        promise: Promised false-alarm rate; nan without a promise.
        alarms: Number of good test pictures that are called anomalous.
        good: Number of good test pictures.
        false_alarms: alarms / good; nan without a promise.
        false_alarms_low: Lower end of its 95 % interval (Clopper and Pearson).
        false_alarms_high: Upper end.
        kept: Whether the number of alarms is at most the 97.5 % quantile of the binomial distribution of `good` and
            `promise`. None without a promise.
        recall: Share of the anomalous pictures that are called anomalous.
        seg_f1: F1 over pixels of the masks at the profile's threshold (not F1-max); nan without masks.
    """

    method: str
    category: str
    shots: int
    seed: int
    references: str
    pictures: int
    anomalous: int
    image_auroc: float
    image_ap: float
    pixel_auroc: float
    pixel_aupro: float
    promise: float = math.nan
    alarms: int = 0
    good: int = 0
    false_alarms: float = math.nan
    false_alarms_low: float = math.nan
    false_alarms_high: float = math.nan
    kept: bool | None = None
    recall: float = math.nan
    seg_f1: float = math.nan

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dictionary for JSON, with None instead of nan."""
        return without_nan(asdict(self))


@dataclass(frozen=True)
class ShotResult:
    """The result of `evaluate_shots`.

    Attributes:
        rows: One row per method, category, number of references and seed.
        notes: What was left out, and why.
        failures: A sentence for each method and category that could not be completed.
    """

    rows: tuple[ShotRow, ...]
    notes: tuple[str, ...]
    failures: tuple[str, ...] = ()

    def means(self) -> tuple[list[str], list[list[str]]]:
        """Return head and body of the means over categories, with the standard deviation over seeds, in percent."""
        body = []
        for method, shots in dict.fromkeys((row.method, row.shots) for row in self.rows):
            rows = [row for row in self.rows if (row.method, row.shots) == (method, shots)]
            cells = [mean_over_seeds(rows, metric) for metric in ("image_auroc", "image_ap")]
            each = [mean([r for r in rows if r.category == c], "image_auroc") for c in _categories(rows)]
            # A category without anomalous pictures has no AUROC, and counts for its false alarms only.
            worst = min((value for value in each if not math.isnan(value)), default=math.nan)
            pixels = [mean_over_seeds(rows, metric) for metric in ("pixel_auroc", "pixel_aupro", "seg_f1")]
            body.append([method, str(shots), *cells, percent(worst), *pixels])
        head = ["method", "shots", "image AUROC", "image AP", "worst category", "pixel AUROC", "AUPRO", "SegF1"]
        return head, body

    def promises(self) -> tuple[list[str], list[list[str]]]:
        """Return head and body of promised against measured false alarms, seeds together, in percent."""
        body = []
        promised = [row for row in self.rows if row.kept is not None]
        for key in dict.fromkeys((row.method, row.category, row.shots) for row in promised):
            rows = [row for row in promised if (row.method, row.category, row.shots) == key]
            alarms, good = sum(row.alarms for row in rows), sum(row.good for row in rows)
            kept = sum(bool(row.kept) for row in rows)
            body.append(
                [
                    key[0],
                    key[1],
                    str(key[2]),
                    percent(mean(rows, "promise")),
                    percent(alarms / good) if good else "-",
                    f"{alarms} of {good}",
                    f"{kept} of {len(rows)}",
                    percent(mean(rows, "recall")),
                ]
            )
        head = ["method", "category", "shots", "promised", "measured", "alarms", "draws within", "recall"]
        return head, body

    def summary(self) -> str:
        """Return one sentence about the promises."""
        promised = [row for row in self.rows if row.kept is not None]
        if not promised:
            return "Nothing was promised: that takes two references or more."
        kept = sum(bool(row.kept) for row in promised)
        alarms, good = sum(row.alarms for row in promised), sum(row.good for row in promised)
        return (
            f"Promised false alarms {percent(mean(promised, 'promise'))} % on average, measured "
            f"{percent(alarms / max(good, 1))} %; in {kept} of {len(promised)} draws the number of alarms is within "
            "the 95 % binomial interval of the promise. Of one draw the rate can be higher: the promise is an average."
        )

    def write(self, folder: PathLike, facts: Mapping[str, Any]) -> None:
        """Write few_shot.csv, few_shot.json and few_shot.md. Raises OutputError."""
        parts = ["# Few-shot evaluation", self.summary(), markdown_table(*self.means())]
        parts += ["## Promise against measured false alarms", markdown_table(*self.promises())]
        write_protocol(folder, "few_shot", parts, ShotRow, self.rows, facts, (*self.notes, *self.failures))


def evaluate_shots(
    detectors: Mapping[str, Detector],
    data: PathLike,
    dataset: str = "folder",
    *,
    categories: Sequence[str] | None = None,
    split: str = "test",
    shots: Sequence[int] = SHOTS,
    seeds: int = SEEDS,
    false_alarms: float | None = None,
    out: PathLike | None = None,
    on_total: Callable[[int], object] = lambda total: None,
    on_progress: Callable[[], object] = lambda: None,
) -> ShotResult:
    """Measure few-shot methods with several numbers of references, each drawn several times.

    Args:
        detectors: Detectors by name; their methods take references of good pictures.
        data: Folder of the data set.
        dataset: Name of the data set.
        categories: Categories to evaluate; None for all.
        split: Split that is scored.
        shots: Numbers of references.
        seeds: Number of draws.
        false_alarms: Promised false-alarm rate; None, and for fewer pictures than it takes, the smallest that so many
            pictures can promise.
        out: Folder in which rows are kept as they are finished, so that the same call goes on after an interruption:
            all rows of a method on a category at once. None keeps nothing.
        on_total: Called once, with the number of calls of `on_progress`.
        on_progress: Called for each test picture of each method.

    Raises:
        UsageError: A method takes no references of good pictures, or numbers are out of range.
        OutputError: The folder cannot be written to.
    """
    if not shots or min(shots) < 1 or seeds < 1:
        raise UsageError("there must be at least one reference and at least one seed")
    for name, detector in detectors.items():
        if not detector.torch_engine.method.info.few_shot:
            raise UsageError(f"{name} takes no references of good pictures, so there is nothing to draw")
    test = datasets.read(dataset, data, categories=categories, split=split)
    train = _train(dataset, data, categories)
    parts: list[Part[ShotRow]] = []
    notes: list[str] = []
    for category in test.categories:
        samples = test.of(category)
        draws, possible, note = _draw(samples, train.get(category, []), sorted(set(shots)), seeds)
        if note:
            notes.append(f"{category}: {note}")
        for name, detector in detectors.items():
            parts.append(_part(name, detector, category, samples, draws, possible, false_alarms))
    on_total(sum(part.steps for part in parts))
    outcome = run_parts("few_shot", ShotRow, parts, out, on_progress)
    return ShotResult(outcome.rows, tuple(notes), outcome.failures)


def _part(
    name: str,
    detector: Detector,
    category: str,
    samples: Sequence[Sample],
    draws: Sequence[_Draw],
    shots: Sequence[int],
    false_alarms: float | None,
) -> Part[ShotRow]:
    """Return the rows of one method on one category: each seed with each number of references."""
    cases = [(seed, draw, k) for seed, draw in enumerate(draws) for k in shots]

    def compute(numbers: Sequence[int], on_step: Callable[[], object]) -> Iterator[ShotRow]:
        fitted = [
            _Fitted(detector, draw, k, seed, false_alarms, samples)
            for seed, draw, k in (cases[number] for number in numbers)
        ]
        _score(detector, samples, fitted, on_step)
        yield from (fit.row(name, category) for fit in fitted)

    common = {"name": name, "category": category, "false_alarms": false_alarms, **method_settings(detector)}
    scored = [picture_keys([sample for sample in samples if sample not in draw.aside]) for draw in draws]
    settings = [
        {
            **common,
            "shots": k,
            "seed": seed,
            "split": draw.split,
            "references": picture_keys(draw.order[:k]),
            "scored": scored[seed],
        }
        for seed, draw, k in cases
    ]
    return Part(name, category, settings, len(samples), compute)


@dataclass(frozen=True)
class _Draw:
    """Good pictures in a random order, and where they come from."""

    order: Sequence[Sample]
    split: str
    aside: frozenset[Sample]
    """Test pictures that are not scored."""


def _train(dataset: str, data: PathLike, categories: Sequence[str] | None) -> dict[str, list[Sample]]:
    """Return the good pictures of the train split by category; nothing without a train split."""
    try:
        train = datasets.read(dataset, data, categories=categories, split="train")
    except UsageError:
        return {}
    return {category: [sample for sample in train.of(category) if not sample.label] for category in train.categories}


def _draw(
    samples: Sequence[Sample], train: Sequence[Sample], shots: Sequence[int], seeds: int
) -> tuple[list[_Draw], list[int], str]:
    """Return a draw per seed, the numbers of references that are possible, and what had to be left out."""
    good = [sample for sample in samples if not sample.label]
    if len(train) >= shots[-1]:
        orders = [random.Random(seed).sample(list(train), len(train)) for seed in range(seeds)]
        return [_Draw(order, "train", frozenset()) for order in orders], list(shots), ""
    # At least as many good pictures are left to be scored as are set aside.
    possible = [k for k in shots if k <= len(good) // 2]
    missing = [str(k) for k in shots if k not in possible]
    note = f"too few good pictures for {', '.join(missing)} references" if missing else ""
    draws = []
    for seed in range(seeds if possible else 0):
        order = random.Random(seed).sample(good, len(good))
        draws.append(_Draw(order, "test", frozenset(order[: possible[-1]])))
    return draws, possible, note


def _fit(detector: Detector, paths: Sequence[Path], false_alarms: float | None) -> Detector:
    """Return the detector with a profile that keeps the promise, or the smallest one that so many pictures can keep."""
    try:
        return detector.fit(paths, false_alarms=false_alarms)
    except UsageError:
        if false_alarms is None:
            raise
        return detector.fit(paths)


class _Fitted:
    """A method with k references of one draw, and the numbers of the test pictures so far."""

    def __init__(
        self,
        detector: Detector,
        draw: _Draw,
        shots: int,
        seed: int,
        false_alarms: float | None,
        samples: Sequence[Sample],
    ) -> None:
        self.draw, self.shots, self.seed = draw, shots, seed
        paths = [sample.path for sample in draw.order[:shots]]
        detector = detector.replaced(
            memory=None, object_name=samples[0].object_name, threshold=None, mask_threshold=None, tiling=None
        )
        self.promise = self.threshold = self.pixel = math.nan
        if shots > 1:
            fitted = _fit(detector, paths, false_alarms)
            assert fitted.profile is not None
            limits, promise = fitted.profile.limits, fitted.profile.false_alarms
            low, high = fitted.engine.map_range(fitted.memory)
            self.promise = math.nan if promise is None else promise
            self.threshold = math.nan if limits.threshold is None else limits.threshold
            self.pixel = math.nan if limits.mask_threshold is None else low + limits.mask_threshold * (high - low)
        else:
            fitted = detector.with_references(paths)
        self.memory = fitted.memory
        self.labels: list[int] = []
        self.scores: list[float] = []
        self.pixels = StreamingPixelMetrics()
        self.masked = frozenset(with_known_masks(samples))
        self.counts = np.zeros(3, dtype=np.int64)  # true positives, predicted, positives of pixels

    def add(
        self, sample: Sample, score: float, anomaly_map: NDArray[np.float32], mask: NDArray[np.bool_] | None
    ) -> None:
        self.labels.append(sample.label)
        self.scores.append(score)
        if sample in self.masked:
            self.pixels.update(mask, anomaly_map)
            if not math.isnan(self.pixel):
                predicted = anomaly_map >= self.pixel
                hits = 0 if mask is None else int((predicted & mask).sum())
                self.counts += [hits, int(predicted.sum()), 0 if mask is None else int(mask.sum())]

    def row(self, method: str, category: str) -> ShotRow:
        labels, scores = np.array(self.labels, dtype=np.int64), np.array(self.scores)
        image = image_metrics(labels, scores)
        pixel = self.pixels.compute() if self.masked else None
        promised: dict[str, Any] = {}
        if not math.isnan(self.promise) and not math.isnan(self.threshold):
            called = scores >= self.threshold
            alarms, good = int(called[labels == 0].sum()), int((labels == 0).sum())
            low, high = _binomial_interval(alarms, good)
            hits, predicted, positives = self.counts.tolist()
            promised = {
                "promise": self.promise,
                "alarms": alarms,
                "good": good,
                "false_alarms": alarms / good if good else math.nan,
                "false_alarms_low": low,
                "false_alarms_high": high,
                "kept": alarms <= int(stats.binom.ppf((1 + _LEVEL) / 2, good, self.promise)),
                "recall": float(called[labels == 1].mean()) if labels.any() else math.nan,
                "seg_f1": 2 * hits / (predicted + positives) if self.masked and positives else math.nan,
            }
        return ShotRow(
            method=method,
            category=category,
            shots=self.shots,
            seed=self.seed,
            references=self.draw.split,
            pictures=labels.size,
            anomalous=int(labels.sum()),
            image_auroc=image.auroc,
            image_ap=image.ap,
            pixel_auroc=math.nan if pixel is None else pixel.auroc,
            pixel_aupro=math.nan if pixel is None else pixel.aupro,
            **promised,
        )


def _score(
    detector: Detector, samples: Sequence[Sample], fitted: Sequence[_Fitted], on_progress: Callable[[], object]
) -> None:
    """Score each test picture with the references of every draw that has not set it aside."""
    engine, notes = detector.torch_engine, MaskNotes()
    for sample in samples:
        users = [fit for fit in fitted if sample not in fit.draw.aside]
        if users:
            image = read_image(sample.path, max_pixels=detector.max_pixels, value_range=detector.value_range).image
            features = engine.encode(engine.preprocess(image), engine.request(users[0].memory))
            text = engine.text([sample.object_name])
            mask = None
            for number, fit in enumerate(users):
                prediction = engine.score(features, text, fit.memory)
                anomaly_map = input_map(engine, prediction.map[0]).numpy()
                if number == 0:
                    mask = read_mask(sample, len(anomaly_map), notes)
                fit.add(sample, float(prediction.score[0]), anomaly_map, mask)
        on_progress()


def _binomial_interval(count: int, total: int) -> tuple[float, float]:
    """Return the interval of Clopper and Pearson for a share; nan without pictures."""
    if not total:
        return math.nan, math.nan
    interval = stats.binomtest(count, total).proportion_ci(_LEVEL)
    return float(interval.low), float(interval.high)


def _categories(rows: Sequence[ShotRow]) -> Iterator[str]:
    yield from dict.fromkeys(row.category for row in rows)
