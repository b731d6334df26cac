"""Parity of `blemish.metrics` with the references on stored cases.

A case is a folder with case.json (what is stored, tolerances), inputs.npz and expected.npz.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blemish.metrics import image_metrics, pixel_metrics

Row = tuple[str, float, float, bool]
Arrays = Mapping[str, NDArray[np.generic]]


def check(case_dir: str | Path) -> list[Row]:
    """Compare every stored output of a case: (output, largest difference, tolerance, within it).

    The tolerance is the one for differences, atol + rtol x the largest expected magnitude. An output that is stored
    but not computed here counts as infinitely far.
    """
    folder = Path(case_dir)
    case = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    with np.load(folder / "inputs.npz") as inputs, np.load(folder / "expected.npz") as expected:
        got = compute(case, dict(inputs))
        return [_compare(name, got, expected[name], case["tolerance"]) for name in expected.files]


def compute(case: Mapping[str, Any], inputs: Arrays) -> dict[str, NDArray[np.float64]]:
    """Every output of a case, under the names of expected.npz."""
    index = np.asarray(inputs["class_index"])
    columns: dict[str, list[float]] = {}
    for number in range(len(case["class_names"])):
        rows = index == number
        values: dict[str, float] = {}
        if case.get("image_metrics", True):
            values |= _image(np.asarray(inputs["labels"])[rows], np.asarray(inputs["scores"])[rows])
        if case.get("pixel_metrics", True):
            masks, maps = np.asarray(inputs["masks"])[rows], np.asarray(inputs["anomaly_maps"])[rows]
            values |= _pixel(masks, maps, case.get("expect_fpr", 0.3), case.get("max_step", 200))
        for name, value in values.items():
            columns.setdefault(name, []).append(value)
    outputs = {f"per_class/{name}": np.array(column) for name, column in columns.items()}
    return outputs | {f"mean/{name}": np.array(np.mean(column)) for name, column in columns.items()}


def _image(labels: NDArray[np.generic], scores: NDArray[np.generic]) -> dict[str, float]:
    found = image_metrics(labels, scores)
    values = {"image_auroc": found.auroc, "image_ap": found.ap, "image_f1_max": found.f1_max}
    return _as_sklearn(values, bool(labels.any()))


def _pixel(masks: NDArray[np.generic], maps: NDArray[np.generic], limit: float, steps: int) -> dict[str, float]:
    exact = pixel_metrics(masks, maps, fpr_limit=limit)
    papers = pixel_metrics(masks, maps, fpr_limit=limit, steps=steps, vcp=True)
    values = {
        "pixel_auroc": exact.auroc,
        "pixel_ap": exact.ap,
        "pixel_f1_max": exact.f1_max,
        "pixel_f1_max_vcp": papers.f1_max,
        "f1_threshold": papers.f1_threshold,
        "iou": papers.iou,
        "aupro_200_steps": papers.aupro,
        "aupro_exact": exact.aupro,
    }
    return _as_sklearn(values, bool(masks.any()))


def _as_sklearn(values: dict[str, float], any_positive: bool) -> dict[str, float]:
    """Without positives blemish says nan where scikit-learn, and so the references, say 0."""
    if any_positive:
        return values
    return {name: 0.0 if name.endswith(("_ap", "_f1_max", "_f1_max_vcp")) else value for name, value in values.items()}


def _compare(
    name: str,
    got: Mapping[str, NDArray[np.float64]],
    expected: NDArray[np.float64],
    table: Mapping[str, dict[str, float]],
) -> Row:
    rule = next((entry for pattern, entry in table.items() if fnmatch(name, pattern)), table["default"])
    magnitude = float(np.nanmax(np.abs(expected), initial=0.0))
    tolerance = rule.get("atol", 0.0) + rule.get("rtol", 0.0) * magnitude
    value = got.get(name)
    if value is None or value.shape != expected.shape or not np.array_equal(np.isnan(value), np.isnan(expected)):
        return name, float("inf"), tolerance, False
    difference = float(np.nanmax(np.abs(value - expected), initial=0.0))
    return name, difference, tolerance, difference <= tolerance
