"""A file of weights that is not the right one is refused in one sentence that names what is wrong: for every method."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from blemish import methods
from blemish.clip import Backbone, load_backbone
from blemish.errors import WeightsError
from blemish.methods import checkpoints
from blemish.methods.base import Method
from helpers import save_tiny_backbone

LEARNERS = [name for name in methods.list_methods() if methods.info(name).trainable]
#: A part of each method's published files.
PARTS = {
    "anomalyclip": "prompt_learner",
    "april-gan": "trainable_linearlayer",
    "clip-ad-sdp-plus": "linear_layers",
    "coop": "state_dict",
    "vcp-clip": "New_Lan_Embed",
}


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return load_backbone(str(tiny_backbone))


def make(name: str, backbone: Backbone) -> Method:
    cls = methods.load_class(name)
    return cls(backbone, replace(cls.Config(), size=148))


@pytest.fixture(params=LEARNERS)
def written(request: pytest.FixtureRequest, backbone: Backbone, tmp_path: Path) -> tuple[str, Path]:
    path = tmp_path / "w.safetensors"
    checkpoints.save(make(request.param, backbone), path)
    return request.param, path


def refused(name: str, backbone: Backbone, path: Path) -> str:
    """What is said when the file is loaded; nothing of the method is changed by it."""
    method = make(name, backbone)
    before = {key: value.clone() for key, value in method.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        methods.create(name, backbone, weights=path)
    text = str(caught.value)
    assert "\n" not in text
    assert path.name in text
    if not checkpoints.is_official(path):
        with pytest.raises(WeightsError):
            checkpoints.load(method, path)
        assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())
    return text


def test_of_another_method(written: tuple[str, Path], backbone: Backbone) -> None:
    name, path = written
    for other in LEARNERS:
        if other != name:
            assert f"holds weights of {name}, not of {other}" in refused(other, backbone, path)


def test_of_another_backbone(written: tuple[str, Path], backbone: Backbone, tmp_path: Path) -> None:
    name, path = written
    other = load_backbone(str(save_tiny_backbone(tmp_path / "other", seed=1)))
    text = refused(name, other, path)
    assert backbone.fingerprint in text
    assert other.fingerprint in text


def test_truncated(written: tuple[str, Path], backbone: Backbone) -> None:
    name, path = written
    whole = path.read_bytes()
    for length in (len(whole) - 10, len(whole) // 2, 20):
        path.write_bytes(whole[:length])
        assert "is damaged or not a safetensors file" in refused(name, backbone, path)


class Evil:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, ("evil-was-here",)


@pytest.mark.parametrize("name", LEARNERS)
def test_a_pickle_that_would_run_code(
    name: str, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path, part = Path("weights.pth"), PARTS.get(name, "state_dict")
    for evil in ({part: Evil()}, {part: {"ctx": torch.zeros(2), "more": Evil()}}):
        torch.save(evil, path)
        assert "holds more than tensors" in refused(name, backbone, path)
        path.write_bytes(pickle.dumps(evil))
        assert "holds more than tensors" in refused(name, backbone, path)
    path.rename("weights.safetensors")  # whatever it is called
    assert "holds more than tensors" in refused(name, backbone, Path("weights.safetensors"))
    assert not Path("evil-was-here").exists()
