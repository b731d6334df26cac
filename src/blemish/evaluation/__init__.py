"""Many methods over a data set in as few backbone passes as there are different computations.

    result = blemish.evaluate("data/mvtec", "mvtec", methods=["clip", "anomalyclip"], out="runs/mvtec")
    result.rows           # per category and the mean, every metric
    result.to_pandas()

With a folder every score is on disk as soon as it is made: the same call goes on where it was stopped, and `recompute`
makes all numbers anew without the model.
"""

from __future__ import annotations

import os
import random
import shlex
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import blemish
from blemish import datasets
from blemish.clip import Backbone, load_backbone
from blemish.datasets import Dataset, Sample
from blemish.detector import Detector
from blemish.errors import UsageError
from blemish.evaluation import tables
from blemish.evaluation.again import measured_again
from blemish.evaluation.measure import Aupro, Options
from blemish.evaluation.record import Record, read_run
from blemish.evaluation.result import MEAN, METRICS, Comparison, Evaluation, Failure, Row
from blemish.evaluation.run import Run
from blemish.loading import load
from blemish.methods import info, list_methods
from blemish.types import Precision

if TYPE_CHECKING:
    PathLike = str | os.PathLike[str]

__all__ = [
    "METRICS",
    "Comparison",
    "Evaluation",
    "Failure",
    "Row",
    "Run",
    "detectors_of",
    "draw",
    "evaluate",
    "prepared",
    "recompute",
]


def evaluate(
    data: PathLike,
    dataset: str = "folder",
    *,
    categories: Sequence[str] | None = None,
    methods: Sequence[str] = ("anomalyclip",),
    backbone: PathLike | Backbone = "builtin",
    weights: Mapping[str, PathLike] | None = None,
    out: PathLike | None = None,
    limit: int | None = None,
    seed: int = 0,
    maps: bool = False,
    aupro: Aupro = "exact",
    report: bool = False,
    split: str = "test",
    batch_size: int = 8,
    device: str = "auto",
    precision: Precision = "auto",
) -> Evaluation:
    """Score a labelled data set with several methods, and measure how well they do.

    Args:
        data: Where the data set lies, as it is distributed.
        dataset: Its name, one of `blemish.datasets.names()`; "folder" for MVTec-like folders of one's own.
        categories: Only these; None = all that are there.
        methods: Names from `blemish methods`; ["all"] takes those that have weights for the backbone.
        backbone: As in `blemish.load`; all methods share it.
        weights: By method, what it learnt, where that is not what is shipped for it.
        out: Folder for scores, tables and report. None keeps nothing but the result.
        limit: At most so many pictures of each category, drawn at random with the labels in proportion.
        seed: Of that draw, and of the bootstrap.
        maps: Keep all anomaly maps in `out` (float32), so that pixel metrics can be recomputed without the model.
        aupro: "exact", or "200" for the papers' approximation in 200 steps.
        report: Write `report.html` into `out`.
        split: Of the data set.
        batch_size: Pictures that go through the model together.
        device: As in `blemish.load`.
        precision: As in `blemish.load`.

    Raises:
        UsageError: Unknown names, options that do not go together, missing weights.
        WeightsError: A checkpoint that cannot be used.
        OutputError: `out` cannot be written to.
    """
    if out is None and (maps or report):
        raise UsageError("maps and a report need a folder to be written to: give out")
    with prepared(
        data,
        dataset,
        categories=categories,
        methods=methods,
        backbone=backbone,
        weights=weights,
        out=out,
        limit=limit,
        seed=seed,
        maps=maps,
        aupro=aupro,
        split=split,
        batch_size=batch_size,
        device=device,
        precision=precision,
    ) as run:
        result = run.execute()
        if out is None:
            return replace(result, folder=None)
        tables.write(result, run.record.folder)
        if report:
            from blemish.report import write_report

            write_report(result, run.record, run.dataset)
        return result


@contextmanager
def prepared(
    data: PathLike,
    dataset: str = "folder",
    *,
    categories: Sequence[str] | None = None,
    methods: Sequence[str] = ("anomalyclip",),
    backbone: PathLike | Backbone = "builtin",
    weights: Mapping[str, PathLike] | None = None,
    out: PathLike | None = None,
    limit: int | None = None,
    seed: int = 0,
    maps: bool = False,
    aupro: Aupro = "exact",
    split: str = "test",
    batch_size: int = 8,
    device: str = "auto",
    precision: Precision = "auto",
) -> Iterator[Run]:
    """What `evaluate` is about to do, with everything loaded; arguments and errors are the same."""
    options = Options(aupro=aupro, seed=seed)
    if batch_size < 1:
        raise UsageError(f"batch_size is at least 1, not {batch_size}")
    wanted = _known(methods)
    stray = sorted(set(weights or {}) - set(wanted))
    if stray:
        raise UsageError(f"weights are given for {', '.join(stray)}, which is not among the methods to be evaluated")
    samples = draw(datasets.read(dataset, data, categories=categories, split=split), limit, seed)
    tower = backbone if isinstance(backbone, Backbone) else load_backbone(os.fspath(backbone))
    detectors, left_out = detectors_of(methods, tower, weights=weights, device=device, precision=precision)
    facts = {
        "command": _command(),
        "data": os.fspath(data),
        **_facts_of(samples, limit),
        "asked_categories": None if categories is None else list(categories),
        "limit": limit,
        "seed": seed,
        "aupro": options.label,
        "backbone": tower.name,
        "backbone_fingerprint": tower.fingerprint,
        "left_out": left_out,
        "version": blemish.__version__,
        "made": datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="blemish-")) if out is None else out
        record = stack.enter_context(Record(Path(folder), samples.root))
        yield Run(samples, detectors, record, options, facts, keep_maps=maps, batch_size=batch_size)


def detectors_of(
    methods: Sequence[str],
    backbone: Backbone,
    *,
    weights: Mapping[str, PathLike] | None = None,
    device: str = "auto",
    precision: Precision = "auto",
) -> tuple[dict[str, Detector], dict[str, str]]:
    """A detector for each method, all on one backbone.

    Args:
        methods: As in `evaluate`, and so are the others.
        backbone: Shared by all.
        weights: See `evaluate`.
        device: See `evaluate`.
        precision: See `evaluate`.

    Returns:
        The detectors by method; and, where "all" was asked for, why which methods are left out.

    Raises:
        UsageError: Unknown methods, missing weights, or no method is left.
    """
    detectors: dict[str, Detector] = {}
    left_out: dict[str, str] = {}
    for name in _known(methods):
        learnt = (weights or {}).get(name)
        try:
            detectors[name] = load(name, backbone=backbone, weights=learnt, device=device, precision=precision)
        except UsageError as error:  # whoever asks for "all" wants those that are there
            if list(methods) != ["all"] or name in (weights or {}):
                raise
            left_out[name] = str(error)
    if not detectors:
        raise UsageError("; ".join(left_out.values()))
    return detectors, left_out


def recompute(
    out: PathLike,
    *,
    data: PathLike | None = None,
    methods: Sequence[str] | None = None,
    aupro: Aupro | None = None,
    report: bool = False,
) -> Evaluation:
    """Make all numbers of an evaluation anew from its folder, without the model.

    Image metrics come from the kept scores. Pixel metrics come from the maps where they were kept (`maps=True`), else
    they are taken over as they were measured.

    Args:
        out: The folder of an evaluation.
        data: Where the data set lies now, if it was moved.
        methods: Only these; None = all of the evaluation.
        aupro: As in `evaluate`; None = as before. Another one needs the maps.
        report: Write `report.html` into `out`.

    Raises:
        UsageError: There is no evaluation, or the scores of a picture are missing.
    """
    folder = Path(out)
    facts = read_run(folder)
    made: dict[str, Any] = facts["methods"]
    wanted = list(made) if methods is None else list(dict.fromkeys(methods))
    if unknown := sorted(set(wanted) - set(made)):
        raise UsageError(f"{folder} holds no scores of {', '.join(unknown)}; it has {', '.join(made)}")
    place = facts["data"] if data is None else os.fspath(data)
    samples = draw(
        datasets.read(facts["dataset"], place, categories=facts["asked_categories"], split=facts["split"]),
        facts["limit"],
        facts["seed"],
    )
    chosen: Aupro = aupro or facts["aupro"].partition(" ")[0]
    options = Options(aupro=chosen, seed=facts["seed"])
    facts = {**facts, "methods": {name: made[name] for name in wanted}, "aupro": options.label}
    with Record(folder, samples.root) as record:
        result = measured_again(record, samples, wanted, options, facts)
        tables.write(result, folder)
        if report:
            from blemish.report import write_report

            write_report(result, record, samples)
    return result


def draw(dataset: Dataset, limit: int | None, seed: int) -> Dataset:
    """At most `limit` pictures of each category, by chance but with the labels in proportion; order is kept.

    Raises:
        UsageError: The limit is too small to rank anything.
    """
    if limit is None:
        return dataset
    if limit < 2:
        raise UsageError(f"--limit takes at least 2 pictures of each category, not {limit}")
    kept: list[Sample] = []
    for category in dataset.categories:
        samples = dataset.of(category)
        if len(samples) <= limit:
            kept += samples
            continue
        dice = random.Random(f"{seed} {category}")
        anomalous = [i for i, sample in enumerate(samples) if sample.label]
        normal = [i for i, sample in enumerate(samples) if not sample.label]
        share = round(limit * len(anomalous) / len(samples))
        share = min(max(share, bool(anomalous), limit - len(normal)), limit - bool(normal), len(anomalous))
        places = {*dice.sample(anomalous, share), *dice.sample(normal, limit - share)}
        kept += [sample for i, sample in enumerate(samples) if i in places]
    return replace(dataset, samples=tuple(kept))


def _known(methods: Iterable[str]) -> list[str]:
    """Every method once. Raises UsageError for an unknown one, before anything is loaded."""
    if isinstance(methods, str):
        methods = [methods]
    wanted = list_methods() if list(methods) == ["all"] else list(dict.fromkeys(methods))
    if not wanted:
        raise UsageError(f"say which methods to evaluate; they are {', '.join(list_methods())}")
    return [info(name).name for name in wanted]


def _command() -> str:
    """The words that this was asked for with, where it was the command line."""
    ours = Path(sys.argv[0]).stem == "blemish" or "blemish" in Path(sys.argv[0]).parts
    return shlex.join(["blemish", *sys.argv[1:]]) if ours else "blemish.evaluate(...)"


def _facts_of(dataset: Dataset, limit: int | None) -> dict[str, Any]:
    known = datasets.info(dataset.name)
    return {
        "dataset": dataset.name,
        "dataset_title": known.title if known.domain != "any" else dataset.root.name,
        "dataset_names": [known.title, known.name, *known.aliases] if known.domain != "any" else [],
        "split": dataset.split,
        "layout": dataset.layout,
        "partial": _partial(dataset, limit),
        "notes": [*dataset.notes, *(str(issue) for issue in dataset.issues[:20])],
        "issues": len(dataset.issues),
    }


def _partial(dataset: Dataset, limit: int | None) -> list[str]:
    """The categories, and "mean", that are not of the pictures that published numbers are of, as far as is known."""
    known = datasets.info(dataset.name)

    def other(samples: Sequence[Sample], published: datasets.Counts | None) -> bool:
        anomalous = sum(sample.label for sample in samples)
        pairs = (
            ()
            if published is None
            else ((anomalous, published.anomalous), (len(samples) - anomalous, published.normal))
        )
        return any(there is not None and here != there for here, there in pairs) or (not pairs and limit is not None)

    test = known.test_counts if dataset.split == "test" else {}
    found = [one for one in dataset.categories if other(dataset.of(one), test.get(one))]
    missing = set(known.categories) - set(dataset.categories)
    return [*found, MEAN] if found or missing or other(dataset.samples, known.counts.get(dataset.split)) else found
