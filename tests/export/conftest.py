"""Fixtures of exported files."""

from __future__ import annotations

import numpy as np
import pytest
from exporting import PACKAGES, make

from blemish import exporting as export
from blemish.clip import Backbone, load_backbone
from blemish.detector import Detector
from blemish.exporting.backends import BACKENDS
from blemish.exporting.parity import textures
from blemish.image_io import LoadedImage
from helpers import save_tiny_backbone


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """Two blocks in each tower: graphs of it are made in seconds."""
    return load_backbone(str(save_tiny_backbone(tmp_path_factory.mktemp("shallow-clip"), layers=(2, 2))))


@pytest.fixture(scope="session", params=list(BACKENDS))
def backend(request: pytest.FixtureRequest) -> str:
    for package in PACKAGES[request.param]:
        pytest.importorskip(package)
    return str(request.param)


@pytest.fixture(scope="session")
def pictures() -> list[LoadedImage]:
    return [next(textures(1, size)) for size in ((296, 296), (160, 120), (300, 410))]


@pytest.fixture(scope="session")
def judge(backbone: Backbone, pictures: list[LoadedImage]) -> Detector:
    """A detector whose thresholds divide the pictures, and the pixels of each."""
    bare = make("clip", backbone)
    found = [bare.detect(picture) for picture in pictures]
    scores = sorted(one.score for one in found)
    middle = float(np.median(found[0].anomaly_map))
    return make("clip", backbone, threshold=(scores[0] + scores[1]) / 2, mask_threshold=middle)


@pytest.fixture(scope="session")
def made(backend: str, judge: Detector, tmp_path_factory: pytest.TempPathFactory) -> export.Exported:
    """The judge in a file; not to be changed."""
    return export.save(judge, tmp_path_factory.mktemp(f"made-{backend}") / f"x{BACKENDS[backend].suffix}")
