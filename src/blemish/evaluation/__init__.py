"""Evaluation of many methods on a data set, in as few backbone passes as they need together.

    result = blemish.evaluate("data/mvtec", "mvtec", methods=["clip", "anomalyclip"], out="runs/mvtec")
    result.rows           # every metric, per category and their mean
    result.to_pandas()

With `out` every score is on disk as soon as it is computed: the same call continues after an interruption, and
`recompute` computes all numbers again without the model.
"""

from __future__ import annotations

import os
import random
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import blemish
from blemish import datasets
from blemish.clip import ImageBackbone, load_backbone
from blemish.datasets import Dataset, Sample
from blemish.detector import Detector
from blemish.errors import UsageError
from blemish.evaluation import tables
from blemish.evaluation.folder import EvaluationFolder, read_facts
from blemish.evaluation.options import (
    MASK_METRICS,
    MORE_METRICS,
    Aupro,
    EvaluationOptions,
    MaskSize,
    MaskThreshold,
    MetricOptions,
    takes_options,
)
from blemish.evaluation.result import MEAN, METRICS, Comparison, Evaluation, Failure, MethodDifference, Row
from blemish.evaluation.run import Run, recompute_result
from blemish.image_io import MAX_PIXELS
from blemish.loading import load
from blemish.methods import builtin, info, list_methods
from blemish.profile import Profile, read_profile
from blemish.types import PathLike, Precision, Preset, ValueRange

__all__ = [
    "MASK_METRICS",
    "METRICS",
    "MORE_METRICS",
    "Comparison",
    "Evaluation",
    "EvaluationFolder",
    "EvaluationOptions",
    "Failure",
    "MethodDifference",
    "MetricOptions",
    "Row",
    "Run",
    "evaluate",
    "limit_images",
    "load_detectors",
    "prepare",
    "recompute",
    "write_results",
]


@takes_options(EvaluationOptions)
def evaluate(options: EvaluationOptions) -> Evaluation:
    """Score a labelled data set with several methods and measure them.

    The arguments are the fields of `EvaluationOptions`.

    Raises:
        UsageError: Names are unknown, options contradict each other, or weights are missing.
        WeightsError: A checkpoint cannot be used.
        OutputError: `out` cannot be written to.
    """
    with prepare(options) as run:
        result = run.execute()
        write_results(result, run.folder, run.dataset, report=options.report)
        return result


@contextmanager
def prepare(options: EvaluationOptions) -> Iterator[Run]:
    """Load everything that an evaluation needs; `Run.execute` then does it. Errors are those of `evaluate`."""
    profile = options.profile
    if profile is not None and not isinstance(profile, Profile):
        profile = read_profile(profile)
    method_names = _method_names(options.methods if profile is None else [profile.method])
    if unused := sorted(set(options.weights or {}) - set(method_names)):
        raise UsageError(f"weights are given for {', '.join(unused)}, which is not among the methods to evaluate")
    if unused := sorted(set(options.configs or {}) - set(method_names)):
        raise UsageError(f"a config is given for {', '.join(unused)}, which is not among the methods to evaluate")
    dataset = datasets.read(options.dataset, options.data, categories=options.categories, split=options.split)
    dataset = limit_images(dataset, options.limit, options.seed)
    detectors: dict[str, Detector]
    left_out: dict[str, str]
    if profile is not None:
        detector = load(
            profile=profile,
            backbone=options.backbone,
            weights=(options.weights or {}).get(profile.method),
            max_pixels=options.max_pixels,
            device=options.device,
            precision=options.precision,
        )
        backbone = detector.torch_engine.backbone
        detectors, left_out = {profile.method: detector}, {}
        samples = tuple(replace(sample, object_name=profile.object_name) for sample in dataset.samples)
        dataset = replace(dataset, samples=samples)
    else:
        given = options.backbone
        backbone = given if isinstance(given, ImageBackbone) else load_backbone(os.fspath(given))
        detectors, left_out = load_detectors(
            options.methods,
            backbone,
            weights=options.weights,
            preset=options.preset,
            configs=options.configs,
            max_pixels=options.max_pixels,
            value_range=options.value_range,
            device=options.device,
            precision=options.precision,
        )
    facts = {
        "command": _command(),
        "data": os.fspath(options.data),
        **_dataset_facts(dataset, options.limit),
        "requested_categories": None if options.categories is None else list(options.categories),
        "limit": options.limit,
        "seed": options.seed,
        "aupro": options.metrics.label,
        "masks": options.masks,
        **_more_facts(options.metrics),
        "backbone": backbone.name,
        "backbone_fingerprint": backbone.fingerprint,
        "left_out": left_out,
        "version": blemish.__version__,
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    with EvaluationFolder(options.out, dataset.root) as folder:
        maps, batch_size = options.maps, options.batch_size
        yield Run(dataset, detectors, folder, options.metrics, facts, keep_maps=maps, batch_size=batch_size)


def write_results(result: Evaluation, folder: EvaluationFolder, dataset: Dataset, *, report: bool = False) -> None:
    """Write the tables and, if asked for, the report; nothing if the folder is temporary. Raises OutputError."""
    if folder.kept is None:
        return
    tables.write(result, folder.path)
    if report:
        from blemish.report import write_report

        write_report(result, folder, dataset)


def load_detectors(
    methods: Sequence[str],
    backbone: ImageBackbone,
    *,
    weights: Mapping[str, PathLike] | None = None,
    preset: Preset | None = None,
    configs: Mapping[str, Mapping[str, Any]] | None = None,
    max_pixels: int = MAX_PIXELS,
    value_range: ValueRange | None = None,
    device: str = "auto",
    precision: Precision = "auto",
) -> tuple[dict[str, Detector], dict[str, str]]:
    """Return the detector of each method, all on one backbone; arguments as in `EvaluationOptions`.

    Returns:
        The detectors by method; and, for ["all"], the reason for each method that is left out.

    Raises:
        UsageError: A method is unknown, its weights are missing, or no method is left.
    """
    weights, configs = weights or {}, configs or {}
    if preset is not None:
        builtin.check_preset(preset, backbone.name)
    detectors: dict[str, Detector] = {}
    left_out: dict[str, str] = {}
    for name in _method_names(methods):
        try:
            info(name).require_references(info(name).transductive)
            detectors[name] = load(
                name,
                backbone=backbone,
                weights=weights.get(name),
                preset=preset,
                config=configs.get(name),
                max_pixels=max_pixels,
                value_range=value_range,
                device=device,
                precision=precision,
            )
        except UsageError as error:
            if list(methods) != ["all"] or name in weights or name in configs:
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
    masks: MaskSize | None = None,
    more_metrics: bool = False,
    mask_threshold: MaskThreshold | None = None,
    report: bool = False,
) -> Evaluation:
    """Compute all numbers of an evaluation again from its folder, without the model.

    Image metrics come from the stored scores. Pixel metrics come from the maps if they were kept (`maps=True`), else
    the stored ones are taken.

    Args:
        out: Folder of an evaluation.
        data: Folder of the data set, if it was moved.
        methods: Methods to include; None for all of the evaluation.
        aupro: As in `evaluate`; None for that of the evaluation. Another one needs the maps.
        masks: As in `evaluate`; None for that of the evaluation. Another one needs the maps.
        more_metrics: As in `evaluate`; those of pixels need the maps.
        mask_threshold: As in `evaluate`; None for that of the evaluation. Another one needs the maps.
        report: Write `report.html` into `out`.

    Raises:
        UsageError: There is no evaluation in the folder, or scores are missing.
    """
    path = Path(out)
    facts = read_facts(path)
    stored: dict[str, Any] = facts["methods"]
    method_names = list(stored) if methods is None else list(dict.fromkeys(methods))
    if unknown := sorted(set(method_names) - set(stored)):
        raise UsageError(f"{path} holds no scores of {', '.join(unknown)}; it has {', '.join(stored)}")
    root = facts["data"] if data is None else os.fspath(data)
    dataset = datasets.read(facts["dataset"], root, categories=facts["requested_categories"], split=facts["split"])
    dataset = limit_images(dataset, facts["limit"], facts["seed"])
    variant: Aupro = aupro or facts["aupro"].partition(" ")[0]
    options = MetricOptions(
        aupro=variant,
        masks=masks or facts.get("masks", "map"),
        seed=facts["seed"],
        more=more_metrics or facts.get("more_metrics", False),
        mask_threshold=facts.get("mask_threshold") if mask_threshold is None else mask_threshold,
    )
    facts = {
        **facts,
        "methods": {name: stored[name] for name in method_names},
        "aupro": options.label,
        "masks": options.masks,
        **_more_facts(options),
    }
    with EvaluationFolder(path, dataset.root) as folder:
        result = recompute_result(folder, dataset, method_names, options, facts)
        write_results(result, folder, dataset, report=report)
    return result


def limit_images(dataset: Dataset, limit: int | None, seed: int) -> Dataset:
    """Draw at most `limit` images of each category at random, with the labels in proportion; the order stays.

    Raises:
        UsageError: The limit is below 2, so that nothing can be ranked.
    """
    if limit is None:
        return dataset
    if limit < 2:
        raise UsageError(f"limit must be at least 2 pictures per category, not {limit}")
    kept: list[Sample] = []
    for category in dataset.categories:
        samples = dataset.of(category)
        if len(samples) <= limit:
            kept += samples
            continue
        rng = random.Random(f"{seed} {category}")
        anomalous = [i for i, sample in enumerate(samples) if sample.label]
        normal = [i for i, sample in enumerate(samples) if not sample.label]
        share = round(limit * len(anomalous) / len(samples))
        share = min(max(share, bool(anomalous), limit - len(normal)), limit - bool(normal), len(anomalous))
        chosen = {*rng.sample(anomalous, share), *rng.sample(normal, limit - share)}
        kept += [sample for i, sample in enumerate(samples) if i in chosen]
    return replace(dataset, samples=tuple(kept))


def _method_names(methods: Sequence[str]) -> list[str]:
    """Return every method once. Raises UsageError for an unknown one."""
    if isinstance(methods, str):
        methods = [methods]
    unique = list_methods() if list(methods) == ["all"] else list(dict.fromkeys(methods))
    if not unique:
        raise UsageError(f"there are no methods to evaluate; choose from {', '.join(list_methods())}")
    return [info(name).name for name in unique]


def _more_facts(options: MetricOptions) -> dict[str, Any]:
    """Return which metrics were asked for in addition; nothing if none was."""
    facts: dict[str, Any] = {"more_metrics": True} if options.more else {}
    return facts if options.mask_threshold is None else {**facts, "mask_threshold": options.mask_threshold}


def _command() -> str:
    """Return the command line of this process if it is blemish's own."""
    ours = Path(sys.argv[0]).stem == "blemish" or "blemish" in Path(sys.argv[0]).parts
    return shlex.join(["blemish", *sys.argv[1:]]) if ours else "blemish.evaluate(...)"


def _dataset_facts(dataset: Dataset, limit: int | None) -> dict[str, Any]:
    entry = datasets.info(dataset.name)
    return {
        "dataset": dataset.name,
        "dataset_title": entry.title if entry.domain != "any" else dataset.root.name,
        "dataset_names": [entry.title, entry.name, *entry.aliases] if entry.domain != "any" else [],
        "split": dataset.split,
        "layout": dataset.layout,
        "partial": _partial_categories(dataset, limit),
        "notes": [*dataset.notes, *(str(issue) for issue in dataset.issues[:20])],
        "issues": len(dataset.issues),
    }


def _partial_categories(dataset: Dataset, limit: int | None) -> list[str]:
    """Return the categories, and "mean", whose images differ from those of published numbers."""
    entry = datasets.info(dataset.name)

    def differ(samples: Sequence[Sample], published: datasets.Counts | None) -> bool:
        if published is None:
            return limit is not None
        anomalous = sum(sample.label for sample in samples)
        pairs = ((anomalous, published.anomalous), (len(samples) - anomalous, published.normal))
        return any(count is not None and count != actual for actual, count in pairs)

    counts = entry.test_counts if dataset.split == "test" else {}
    partial = [category for category in dataset.categories if differ(dataset.of(category), counts.get(category))]
    missing = set(entry.categories) - set(dataset.categories)
    if partial or missing or differ(dataset.samples, entry.counts.get(dataset.split)):
        partial.append(MEAN)
    return partial
