"""Check that what makes blemish fast still does: ratios of processor time with generous margins.

    python -m pytest benchmarks/check_ratios.py

It is not part of the test suite, since a busy machine disturbs it. How long the model waits for images is measured by
`python benchmarks/speed.py pipeline`, and how long files take by `python benchmarks/speed.py pictures`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import reference
import torch
from scipy.ndimage import gaussian_filter

from blemish.clip import Backbone, Request, Tap, load_backbone
from blemish.engine import TorchEngine
from blemish.methods import create
from blemish.methods.ops import upsample, upsample_smoothly


@pytest.fixture(scope="module")
def builtin() -> Backbone:
    return load_backbone("builtin")


def times_as_fast(fast: Callable[[], object], slow: Callable[[], object], rounds: int = 7) -> float:
    """Return the median over rounds of the slow function's processor time over the fast one's."""
    ratios = []
    for _ in range(rounds + 1):
        spent = []
        for run in (fast, slow):
            start = time.process_time()
            run()
            spent.append(time.process_time() - start)
        ratios.append(spent[1] / max(spent[0], 1e-9))
    return sorted(ratios[1:])[rounds // 2]


def test_detection_costs_no_more_than_the_published_computation(builtin: Backbone) -> None:
    """Measured: 1.2 times as fast in float32 (and several times in half precision, on hardware with units for it)."""
    method = create("anomalyclip", builtin)
    engine, tower, pixels = (
        TorchEngine(method),
        reference.Tower(builtin, method),
        torch.randn(2, 3, *2 * [method.computation.size]),
    )
    with torch.inference_mode():
        text = method.text_features(["object"])[0]
        ratio = times_as_fast(
            lambda: engine.run(pixels, "object"), lambda: reference.run(method, tower, pixels, text), rounds=5
        )
    assert ratio > 0.8


def test_what_is_not_asked_for_costs_nothing(builtin: Backbone) -> None:
    """Measured: a tap at layer 2 of 8 takes a quarter of the time."""
    pixels = torch.randn(1, 3, 256, 256)
    with torch.inference_mode():
        ratio = times_as_fast(
            lambda: builtin.encode_image(pixels, Request(frozenset({Tap(2)}), class_token=False)),
            lambda: builtin.encode_image(pixels, Request(frozenset({Tap(8)}))),
        )
    assert ratio > 1.5


def test_maps_are_enlarged_and_smoothed_at_once() -> None:
    """Measured: an order of magnitude against SciPy, picture by picture."""
    maps = torch.rand(8, 37, 37)

    def usual() -> None:
        for anomaly_map in upsample(maps, 518):
            gaussian_filter(anomaly_map.numpy(), sigma=4)

    assert times_as_fast(lambda: upsample_smoothly(maps, 518, 4.0), usual, rounds=3) > 2
