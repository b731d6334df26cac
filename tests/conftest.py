"""Fixtures for all rooms."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from helpers import save_picture, save_tiny_backbone

# Two cores are shared with whatever else runs; one thread is faster than many for matrices this small.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# How long an example takes says more about what else the machine does than about the code.
settings.register_profile("blemish", deadline=None)
settings.load_profile("blemish")


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny random CLIPModel and its tokenizer, for `load_backbone` or `--backbone`."""
    return save_tiny_backbone(tmp_path_factory.mktemp("tiny-clip"))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of six small pictures in three formats, one of them in a subfolder."""
    folder = tmp_path / "photos"
    for number, name in enumerate(("a.png", "b.jpg", "c.bmp", "d.png", "e.jpg", "sub/f.png")):
        save_picture(folder / name, seed=number)
    return folder
