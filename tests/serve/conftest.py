"""A service on the stand-in backbone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from service_helpers import serving
from starlette.testclient import TestClient

from blemish.detector import Detector
from blemish.loading import load
from blemish.serve.profiles import Registry, load_registry
from helpers import save_picture

#: Good pictures of the profile; drift takes 20.
GOOD = 24


@pytest.fixture(scope="session")
def base(tiny_backbone: Path) -> Detector:
    """A detector without a profile."""
    return load("winclip", backbone=str(tiny_backbone), device="cpu", precision="float32", object_name="part")


@pytest.fixture(scope="session")
def profile_file(base: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile of small pictures. Tests that change it copy it first."""
    folder = tmp_path_factory.mktemp("profile")
    good = [save_picture(folder / "good" / f"{number}.png", 100 + number) for number in range(GOOD)]
    profile = base.fit(good, false_alarms=0.1, review=0.3).profile
    assert profile is not None
    return profile.save(folder / "part.profile")


@pytest.fixture(scope="session")
def registry(tiny_backbone: Path, profile_file: Path) -> Registry:
    """A profile and a method on one backbone."""
    return load_registry(
        [profile_file], ["clip", "winclip"], backbone=str(tiny_backbone), device="cpu", precision="float32"
    )


@pytest.fixture(scope="module")
def client(registry: Registry) -> Iterator[TestClient]:
    with serving(registry) as running:
        yield running
