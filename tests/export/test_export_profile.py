"""An exported profile gives the verdicts of its detector, and keeps to the region of interest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from exporting import make, run

from blemish import exporting as export
from blemish.clip import Backbone
from blemish.detector import Detector
from blemish.errors import UsageError
from blemish.exporting.backends import BACKENDS
from blemish.exporting.header import LABEL, MASK, SCORE
from blemish.image_io import LoadedImage
from blemish.tiling import Tiling
from helpers import save_picture

CLOSE = 1e-5


@pytest.fixture
def good(tmp_path: Path) -> list[Path]:
    return [save_picture(tmp_path / "good" / f"{number}.png", 40 + number) for number in range(4)]


def fitted(backbone: Backbone, good: list[Path], **options) -> Detector:
    return make("winclip", backbone).fit(good, **options)


@pytest.mark.parametrize("roi", [None, "0,0 20,0 20,30 0,30"])
def test_verdicts_are_those_of_the_detector(
    backend: str, backbone: Backbone, good: list[Path], pictures: list[LoadedImage], tmp_path: Path, roi: str | None
) -> None:
    detector = fitted(backbone, good, false_alarms=0.2, review=0.5, roi=roi)
    file = export.export(detector, tmp_path / f"x{BACKENDS[backend].suffix}", check=pictures)
    assert max(file.parity.score, file.parity.map) < CLOSE
    again = export.load_exported(file.path)
    for picture in pictures:
        own, other = detector(picture), again(picture)
        assert other.score == pytest.approx(own.score, abs=CLOSE)
        low, high = own.map_range
        # The edge of a region of interest lies between the pixels of the graph's map.
        differing = np.abs(own.anomaly_map - other.anomaly_map) > 1e-4 * (high - low)
        assert differing.mean() < (1e-3 if roi is None else 0.05)
        assert (other.threshold, other.review_threshold) == (own.threshold, own.review_threshold)
        assert (other.scale, other.p_value) == (own.scale, own.p_value)
    pixels = np.asarray(pictures[0].image, np.float32).transpose(2, 0, 1)[None] / 255
    score, label, mask = run(file.path, pixels, SCORE, LABEL, MASK)
    assert label[0] == (score[0] >= detector.threshold)
    assert mask.shape[-2:] == (file.header.size, file.header.size)
    if roi is not None:
        assert not mask[..., file.header.size // 2 + 1 :].any()
    own = export.load_exported(file.path, threshold=0.9)
    assert (own.threshold, own.limits.promise) == (0.9, None)


def test_a_profile_with_tiles_is_refused(backbone: Backbone, good: list[Path], tmp_path: Path) -> None:
    detector = make("winclip", backbone, tiling=Tiling(24)).fit(good)
    with pytest.raises(UsageError, match="a graph scores whole pictures"):
        export.export(detector, tmp_path / "x.onnx")
