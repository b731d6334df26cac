"""Miniature trees, and methods with weights for the stand-in backbone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from evaluation_trees import add_category

from blemish import methods
from blemish.clip import Backbone, load_backbone
from blemish.methods import checkpoints


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two categories with masks."""
    for category in ("grid", "metal_nut"):
        add_category(tmp_path / "data", category)
    return tmp_path / "data"


@pytest.fixture(scope="session")
def backbone(tiny_backbone: Path) -> Backbone:
    return load_backbone(str(tiny_backbone))


@pytest.fixture(scope="session")
def learnt(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Random weights of every trainable method."""
    folder = tmp_path_factory.mktemp("learnt")
    paths = {}
    for name in methods.list_methods():
        if methods.info(name).trainable:
            paths[name] = folder / f"{name}.safetensors"
            checkpoints.save(methods.create(name, backbone), paths[name], trained_on="nothing", source="a test")
    return paths


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of pictures in each backbone pass."""
    calls: list[int] = []
    original = Backbone.encode_image

    def counted(self: Backbone, pixels: object, *rest: object, **named: object) -> object:
        calls.append(len(pixels))  # type: ignore[arg-type]
        return original(self, pixels, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Backbone, "encode_image", counted)
    return calls
