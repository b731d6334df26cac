"""Numbers anew from what is on disk, without the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from blemish.datasets.samples import Dataset, Sample
from blemish.errors import ImageError, UsageError
from blemish.evaluation.measure import PIXEL, Masks, Options, measured
from blemish.evaluation.record import Finished, Record
from blemish.evaluation.result import Evaluation, Failure
from blemish.evaluation.run import digest, evaluation


def measured_again(
    record: Record, dataset: Dataset, methods: Sequence[str], options: Options, facts: Mapping[str, Any]
) -> Evaluation:
    """The result of a folder.

    Raises:
        UsageError: Some pictures have no score of the settings that the facts name.
    """
    failed: dict[tuple[str, str], Failure] = {}
    categories = {category: dataset.of(category) for category in dataset.categories}
    for category, samples in categories.items():
        masks = Masks()
        for name in methods:
            _require(record, name, samples, facts["methods"][name]["settings"])
            try:
                _measure(record, name, category, samples, options, masks)
            except ImageError as error:
                path = error.path or category
                failed[name, f"mask {path}"] = Failure(category=category, path=path, reason=str(error))
                record.finished.pop((name, category), None)
    return evaluation(record, dataset, categories, methods, options, failed, facts)


def _require(record: Record, name: str, samples: Sequence[Sample], settings: str) -> None:
    entries = [record.entry(name, sample) for sample in samples]
    missing = sum(entry is None or entry.key[2] != settings for entry in entries)
    if missing:
        raise UsageError(
            f"{record.folder} lacks the scores of {missing} of {len(samples)} pictures by {name}: the evaluation was "
            "not finished, or the data set has changed; run it again without --recompute"
        )


def _measure(
    record: Record, name: str, category: str, samples: Sequence[Sample], options: Options, masks: Masks
) -> None:
    if all(record.map_path(name, sample).is_file() for sample in samples):
        record.finish(name, category, measured(record, name, None, category, samples, options, masks))
        return
    found = record.finished.get((name, category))
    if found is not None and found.digest == digest(record, name, samples) and found.aupro == options.label:
        return
    reason = "the maps were not kept; evaluate with --maps"
    if found is None or found.digest != digest(record, name, samples):
        nothing = dict.fromkeys(PIXEL)
        empty = Finished("", options.label, nothing, dict.fromkeys(PIXEL, reason), 0.0, None, ())
        record.finished[name, category] = empty
        return
    reasons = {**found.undefined} if found.undefined.get("aupro") else {**found.undefined, "aupro": reason}
    pixel, others = {**found.pixel, "aupro": None}, {k: ends for k, ends in found.intervals.items() if k != "aupro"}
    # In memory only: the folder keeps what was measured.
    record.finished[name, category] = replace(found, pixel=pixel, undefined=reasons, intervals=others)
