"""The one command from the checkpoints of the image tower to what ships."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from blemish.clip import load_backbone
from blemish.methods import create, weights
from pretraining import ship
from pretraining.tests.conftest import BUILTIN, SHAPE
from pretraining.tests.test_methods import small_config
from pretraining.training import methods
from pretraining.training.model import export, load_model, make_model


def test_models_count_alike_in_the_average(tmp_path: Path) -> None:
    for name, value in (("a", 1.0), ("b", 5.0)):
        model = make_model(SHAPE)
        model.load_state_dict({key: torch.full_like(tensor, value) for key, tensor in model.state_dict().items()})
        export(model, tmp_path / name, tokenizer=BUILTIN)
    ship.average([tmp_path / "a", tmp_path / "b"], tmp_path / "mean")
    assert all((parameter == 3).all() for parameter in load_model(tmp_path / "mean").parameters())


def test_what_ships_is_a_backbone_and_weights_for_it(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        "training_images = 4\nvalidation_images = 20\ntest_images = 20\ntraining_seed = 1\nvalidation_seed = 2\n"
        "test_seed = 3\nimage_size = 96\n"
    )
    monkeypatch.setattr(ship, "default_methods", lambda: ["coop"])
    monkeypatch.setattr(ship, "run", partial(methods.run, epochs=1))
    monkeypatch.setattr(methods, "create", lambda name, backbone, *_: create(name, backbone, small_config(name)))
    out = tmp_path / "weights"
    arguments = [str(small_model), str(small_model), "--out", str(out), "--config", str(config)]
    monkeypatch.setattr(sys, "argv", ["ship", *arguments])
    ship.main()
    backbone = load_backbone(str(out / "builtin"))
    header = weights.read_header(out / "coop.safetensors")
    assert header.backbone == "builtin"
    assert header.backbone_fingerprint == backbone.fingerprint
    before, after = (load_model(folder) for folder in (small_model, out / "builtin"))
    np.testing.assert_array_equal(
        before.text_projection.weight.detach().numpy(), after.text_projection.weight.detach().numpy()
    )
