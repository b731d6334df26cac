"""The typical scores and the scales of heatmaps hold on drawn pictures, which they were not measured on."""

from __future__ import annotations

import numpy as np
import pytest

import blemish
from blemish.clip import load_backbone
from blemish.methods.builtin import DISPLAY, TYPICAL_SCORES
from blemish.scoring import Scored, Scorer, Task
from synthesis import make_product

SEED, PRODUCTS = 2_026, 24

#: Scores (n, 2) and highest values of the maps (n, 2) of a method: undamaged pictures, damaged ones.
Found = dict[str, tuple[np.ndarray, np.ndarray]]


@pytest.fixture(scope="module")
def detectors() -> dict[str, blemish.Detector]:
    backbone = load_backbone("builtin")
    return {name: blemish.load(name, backbone=backbone, device="cpu", precision="float32") for name in TYPICAL_SCORES}


@pytest.fixture(scope="module")
def found(detectors: dict[str, blemish.Detector]) -> Found:
    products = [make_product(SEED, number, size=384) for number in range(PRODUCTS)]
    names = frozenset(detectors)
    tasks = [Task((n, bad), product[bad].image, names) for n, product in enumerate(products) for bad in (0, 1)]
    values: Found = {name: (np.zeros((PRODUCTS, 2)), np.zeros((PRODUCTS, 2))) for name in names}
    for result in Scorer({name: detector.torch_engine for name, detector in detectors.items()}).run(tasks):
        assert isinstance(result, Scored)
        scores, peaks = values[result.method]
        scores[result.item], peaks[result.item] = result.score, float(result.map.max())
    return values


@pytest.mark.parametrize("name", TYPICAL_SCORES)
def test_undamaged_things_stay_below(found: Found, detectors: dict[str, blemish.Detector], name: str) -> None:
    typical, (low, high) = detectors[name].typical_score, detectors[name].engine.display_range()
    assert typical == TYPICAL_SCORES[name][0], "measured with another model, weights or config: measure again"
    assert (low, high) == DISPLAY[name][0]
    scores, peaks = found[name]
    for values, limit in ((scores, typical), (peaks, (low + high) / 2)):
        below, above = (values[:, 0] < limit).mean(), (values[:, 1] >= limit).mean()
        assert below >= 0.95, f"{below:.2f} of the undamaged pictures lie below {limit:.3f}"
        assert above >= 0.1, f"{above:.2f} of the damaged ones reach {limit:.3f}"
    assert (peaks[:, 0] <= low).mean() >= 0.7
