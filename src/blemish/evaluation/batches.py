"""The batch protocol: how a method that compares a set with itself fares as more and more of the set is defective.

For each category, share of defects and seed, a set of test pictures is drawn with that share and scored as one set. All
sets of a category have equally many pictures. Metrics are those of the pictures of the set, so the rows of a category
differ in nothing but the share.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from blemish import datasets
from blemish.datasets import Sample
from blemish.detector import Detector
from blemish.errors import UsageError
from blemish.evaluation.measure import MaskNotes, input_map, read_mask, with_known_masks
from blemish.evaluation.protocol import Part, method_settings, picture_keys, run_parts
from blemish.evaluation.result import without_nan
from blemish.evaluation.tables import markdown_table, mean_over_seeds, write_protocol
from blemish.image_io import read_image
from blemish.metrics import StreamingPixelMetrics, image_metrics
from blemish.types import PathLike

SHARES = (0.1, 0.2, 0.4, 0.6)
#: Most pictures of a set.
MAX_PICTURES = 60


@dataclass(frozen=True, kw_only=True)
class BatchRow:
    """One method on one set of a category.

    Attributes:
        method: Name of the method.
        category: Name of the category.
        share: Share of defects that was asked for.
        seed: Number of the draw.
        pictures: Number of pictures of the set.
        anomalous: Number of anomalous ones among them.
        image_auroc: Image AUROC.
        image_ap: Image AP; it rises with the share for any ranking.
        pixel_auroc: Pixel AUROC at the size of the method's input, from a histogram; nan without masks.
        pixel_aupro: AUPRO up to 0.3, likewise.
    """

    method: str
    category: str
    share: float
    seed: int
    pictures: int
    anomalous: int
    image_auroc: float
    image_ap: float
    pixel_auroc: float
    pixel_aupro: float

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dictionary for JSON, with None instead of nan."""
        return without_nan(asdict(self))


@dataclass(frozen=True)
class BatchResult:
    """The result of `evaluate_batches`.

    Attributes:
        rows: One row per method, category, share and seed.
        notes: What was left out, and why.
        failures: A sentence for each method and category that could not be completed.
    """

    rows: tuple[BatchRow, ...]
    notes: tuple[str, ...]
    failures: tuple[str, ...] = ()

    def means(self) -> tuple[list[str], list[list[str]]]:
        """Return head and body of the means over categories, with the standard deviation over seeds, in percent."""
        body = []
        for method, share in dict.fromkeys((row.method, row.share) for row in self.rows):
            rows = [row for row in self.rows if (row.method, row.share) == (method, share)]
            metrics = ("image_auroc", "image_ap", "pixel_auroc", "pixel_aupro")
            body.append([method, f"{100 * share:g}", *(mean_over_seeds(rows, metric) for metric in metrics)])
        return ["method", "defects", "image AUROC", "image AP", "pixel AUROC", "AUPRO"], body

    def write(self, folder: PathLike, facts: Mapping[str, Any]) -> None:
        """Write batches.csv, batches.json and batches.md. Raises OutputError."""
        parts = ["# Sets with a varied share of defects", markdown_table(*self.means())]
        write_protocol(folder, "batches", parts, BatchRow, self.rows, facts, (*self.notes, *self.failures))


def evaluate_batches(
    detectors: Mapping[str, Detector],
    data: PathLike,
    dataset: str = "folder",
    *,
    categories: Sequence[str] | None = None,
    split: str = "test",
    shares: Sequence[float] = SHARES,
    seeds: int = 3,
    pictures: int = MAX_PICTURES,
    out: PathLike | None = None,
    on_total: Callable[[int], object] = lambda total: None,
    on_progress: Callable[[], object] = lambda: None,
) -> BatchResult:
    """Measure methods that compare the pictures of a set, on sets with several shares of defects.

    Args:
        detectors: Detectors by name; their methods are transductive.
        data: Folder of the data set.
        dataset: Name of the data set.
        categories: Categories to evaluate; None for all.
        split: Split that sets are drawn from.
        shares: Shares of defects, each in (0, 1).
        seeds: Number of sets of each share.
        pictures: Most pictures of a set.
        out: Folder in which rows are kept as they are finished, so that the same call goes on after an interruption.
            None keeps nothing.
        on_total: Called once, with the number of calls of `on_progress`.
        on_progress: Called for each set that was scored.

    Raises:
        UsageError: A method does not compare the pictures of a set, or numbers are out of range.
        OutputError: The folder cannot be written to.
    """
    if not shares or not all(0.0 < share < 1.0 for share in shares) or seeds < 1 or pictures < 2:
        raise UsageError("there must be shares of defects above 0 and below 1, one seed and two pictures at least")
    for name, detector in detectors.items():
        if not detector.torch_engine.method.info.transductive:
            raise UsageError(f"{name} does not compare the pictures of a set with each other")
    test = datasets.read(dataset, data, categories=categories, split=split)
    parts: list[Part[BatchRow]] = []
    notes: list[str] = []
    for category in test.categories:
        sets = draw_sets(test.of(category), shares, seeds, pictures)
        if not sets:
            notes.append(f"{category}: too few good or too few anomalous pictures for these shares")
        for name, detector in detectors.items():
            parts.append(_part(name, detector, category, sets))
    on_total(sum(part.steps for part in parts))
    outcome = run_parts("batches", BatchRow, parts, out, on_progress)
    return BatchResult(outcome.rows, tuple(notes), outcome.failures)


def _part(
    name: str, detector: Detector, category: str, sets: Mapping[tuple[float, int], Sequence[Sample]]
) -> Part[BatchRow]:
    """Return the rows of one method on one category: each set."""
    cases = list(sets.items())

    def compute(numbers: Sequence[int], on_step: Callable[[], object]) -> Iterator[BatchRow]:
        for (share, seed), samples in (cases[number] for number in numbers):
            row = _row(name, detector, category, share, seed, samples)
            on_step()
            yield row

    common = {"name": name, "category": category, **method_settings(detector)}
    settings = [
        {**common, "share": share, "seed": seed, "scored": picture_keys(samples)} for (share, seed), samples in cases
    ]
    return Part(name, category, settings, len(cases), compute)


def draw_sets(
    samples: Sequence[Sample], shares: Sequence[float], seeds: int, pictures: int
) -> dict[tuple[float, int], list[Sample]]:
    """Return a set for each share and seed, all of one size; nothing if a set would lack one of the labels.

    The sets of a seed are nested as far as they can be: a larger share replaces good pictures by anomalous ones.
    """
    good = [sample for sample in samples if not sample.label]
    bad = [sample for sample in samples if sample.label]
    size = min(
        pictures,
        *(int(len(good) / (1 - share) + 1e-9) for share in shares),
        *(int(len(bad) / share + 1e-9) for share in shares),
    )
    counts = {share: round(share * size) for share in shares}
    if not all(0 < count < size and count <= len(bad) and size - count <= len(good) for count in counts.values()):
        return {}
    sets: dict[tuple[float, int], list[Sample]] = {}
    for seed in range(seeds):
        rng = random.Random(seed)
        first, second = rng.sample(good, len(good)), rng.sample(bad, len(bad))
        for share, count in counts.items():
            chosen = {*first[: size - count], *second[:count]}
            sets[share, seed] = [sample for sample in samples if sample in chosen]
    return sets


def _row(name: str, detector: Detector, category: str, share: float, seed: int, samples: Sequence[Sample]) -> BatchRow:
    """Score one set."""
    memory = detector.with_set([sample.path for sample in samples]).memory
    engine, notes = detector.torch_engine, MaskNotes()
    masked = frozenset(with_known_masks(samples))
    pixels = StreamingPixelMetrics()
    scores = []
    for sample in samples:
        pixel_values = engine.preprocess(
            read_image(sample.path, max_pixels=detector.max_pixels, value_range=detector.value_range).image
        )
        prediction = engine.run(pixel_values, sample.object_name, memory).prediction
        scores.append(float(prediction.score[0]))
        if sample in masked:
            anomaly_map = input_map(engine, prediction.map[0]).numpy()
            pixels.update(read_mask(sample, len(anomaly_map), notes), anomaly_map)
    labels = np.array([sample.label for sample in samples])
    image = image_metrics(labels, np.array(scores))
    pixel = pixels.compute() if masked else None
    return BatchRow(
        method=name,
        category=category,
        share=share,
        seed=seed,
        pictures=len(samples),
        anomalous=int(labels.sum()),
        image_auroc=image.auroc,
        image_ap=image.ap,
        pixel_auroc=math.nan if pixel is None else pixel.auroc,
        pixel_aupro=math.nan if pixel is None else pixel.aupro,
    )
