"""`blemish info`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image


def facts(run, thing: object) -> dict:
    outcome = run("info", thing, "--json")
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def test_picture(run, tmp_path: Path) -> None:
    Image.new("LA", (7, 5), (100, 0)).save(tmp_path / "a.png")
    found = facts(run, tmp_path / "a.png")
    assert found["kind"] == "picture"
    assert (found["size"], found["mode"], found["format"]) == ([7, 5], "LA", "PNG")
    assert found["notes"] == ["transparent parts laid on white"]
    assert "7 x 5" in run("info", tmp_path / "a.png").out


def test_folder_of_pictures(run, pictures: Path) -> None:
    found = facts(run, pictures)
    assert (found["pictures"], found["formats"]) == (6, {"bmp": 1, "jpg": 2, "png": 3})


def test_backbone(run, tiny_backbone: Path) -> None:
    found = facts(run, tiny_backbone)
    assert (found["kind"], found["layers"], found["patch"], found["activation"]) == ("backbone", 24, 74, "quick_gelu")
    assert len(found["fingerprint"]) == 16


def test_weights_of_a_method(run, tiny_backbone: Path, tmp_path: Path) -> None:
    from blemish.clip import load_backbone
    from blemish.methods import checkpoints, create

    path = tmp_path / "learnt.safetensors"
    checkpoints.save(create("anomalyclip", load_backbone(str(tiny_backbone))), path, trained_on="nothing")
    found = facts(run, path)
    assert (found["kind"], found["method"], found["trained_on"]) == ("method weights", "anomalyclip", "nothing")


def test_published_weights(run, tmp_path: Path) -> None:
    import torch

    torch.save({"prompt_learner": {"ctx": torch.zeros(2)}}, tmp_path / "epoch_15.pth")
    assert facts(run, tmp_path / "epoch_15.pth")["kind"] == "published method weights"


@pytest.mark.parametrize("name", ["x.safetensors", "x.pt"])
def test_checkpoint_of_nothing(run, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\0" * 64)
    outcome = run("info", tmp_path / name)
    assert outcome.code == 1
    assert name in outcome.err
    assert "Traceback" not in outcome.err
