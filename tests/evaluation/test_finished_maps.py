"""Maps that a method finishes itself are measured as the method gives them for a picture of that size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

import blemish
from blemish.clip import Backbone
from blemish.methods.clip import Clip
from blemish.methods.ops import resize


@pytest.fixture
def finished(monkeypatch: pytest.MonkeyPatch) -> None:
    def finish_map(self: Clip, anomaly_map: Tensor, height: int, width: int) -> Tensor:
        return resize(anomaly_map, height, width) / width

    monkeypatch.setattr(Clip, "finish_map", finish_map)


@pytest.mark.usefixtures("finished")
def test_full_masks_are_compared_with_finished_maps(data: Path, backbone: Backbone, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = {"methods": ["clip"], "backbone": backbone, "out": out, "maps": True, "device": "cpu"}
    blemish.evaluate(data, masks="full", categories=["grid"], **options)
    detector = blemish.load("clip", backbone=backbone, device="cpu", object_name="grid")
    paths = sorted((data / "grid" / "test").rglob("*.png"))
    expected = {detector(path).anomaly_map.tobytes() for path in paths}
    kept = [np.load(path, allow_pickle=False) for path in sorted((out / "maps").rglob("*.npy"))]
    assert len(kept) == len(paths)
    assert {each.tobytes() for each in kept} == expected
    # The same maps at the side of the method's input, from what was kept.
    again = blemish.evaluate(data, masks="map", categories=["grid"], **options)
    assert not again.failed
    assert 0 <= again.rows[0].pixel_auroc <= 1
