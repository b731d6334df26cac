"""What training scripts put around weights is removed; the activation of a plain state dict is said or given."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from clip_loading import refused, same

from blemish.clip import load_backbone
from blemish.clip.state_dict import strip_prefixes, unwrap
from blemish.errors import UsageError

PREFIXES = ["", "module.", "model.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "clip.", "net.module."]


def around(state: dict, kind: str) -> dict:
    wrappers = {
        "plain": state,
        "model": {"model": state},
        "state_dict": {"state_dict": state, "epoch": 3},
        "model_state_dict": {"model_state_dict": state, "optimizer_state_dict": {"state": {0: torch.zeros(3)}}},
        "twice": {"checkpoint": 1, "model": {"state_dict": state}},
        "averages too": {"model_ema": {k: v + 1 for k, v in state.items() if v.is_floating_point()}, "model": state},
        "ordered": {"module": dict(state), "global_step": torch.tensor(3).item()},
    }
    return wrappers[kind]


@pytest.fixture(scope="module")
def plain(arrays, tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("plain") / "clip.pt"
    torch.save({key: torch.from_numpy(np.asarray(value)) for key, value in arrays.items()}, path)
    return load_backbone(f"{path}#quick_gelu")


@pytest.mark.parametrize(
    "kind", ["plain", "model", "state_dict", "model_state_dict", "twice", "averages too", "ordered"]
)
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_wrappers_and_prefixes(kind: str, prefix: str, state, plain, tmp_path: Path) -> None:
    path = tmp_path / "clip.pt"
    torch.save(around({prefix + key: value for key, value in state.items()}, kind), path)
    assert same(load_backbone(f"{path}#quick_gelu"), plain)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes(prefix: str, state) -> None:
    assert strip_prefixes({prefix + key: value for key, value in state.items()}).keys() == state.keys()


def test_names_inside_are_compiled_parts() -> None:
    one = torch.zeros(1)
    assert list(strip_prefixes({"visual._orig_mod.conv1.weight": one, "x": one})) == ["visual.conv1.weight", "x"]
    # Names that would collide, or that only some tensors have, are the model's own.
    assert list(strip_prefixes({"module.a": one, "a": one})) == ["module.a", "a"]
    assert list(strip_prefixes({"model.a": one, "b": one})) == ["model.a", "b"]
    assert strip_prefixes({}) == {}


def test_what_holds_no_weights_is_named(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "args": {"lr": 0.1}}, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", "a.pt holds no tensors, only 'epoch', 'args'")
    assert unwrap({"model": {}}) == {"model": {}}


def test_the_activation_is_said(state, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "clip.pt"
    torch.save(dict(state), path)
    with caplog.at_level(logging.WARNING):
        assert load_backbone(str(path)).towers.config.text_config.hidden_act == "gelu"
    assert "clip.pt does not say its activation: exact GELU is taken" in caplog.text
    assert "clip.pt#quick_gelu" in caplog.text
    caplog.clear()
    for name, options in (
        (f"{path}#gelu", {}),
        (f"{path}#quick_gelu", {}),
        (str(path), {"activation": "quick_gelu"}),
        (f"{path}#gelu", {"activation": "quick_gelu"}),
    ):
        backbone = load_backbone(name, **options)
        wanted = options.get("activation") or name.rpartition("#")[2]
        assert backbone.towers.config.vision_config.hidden_act == wanted
        assert backbone.name == name
    assert caplog.text == ""


def test_a_state_dict_of_openai_is_recognised(state, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    extra = {name: torch.tensor(1) for name in ("input_resolution", "context_length", "vocab_size")}
    torch.save({"model": {**state, **extra}}, tmp_path / "clip.pt")
    backbone = load_backbone(str(tmp_path / "clip.pt"))
    assert backbone.towers.config.text_config.hidden_act == "quick_gelu"
    assert caplog.text == ""


def test_the_ending_is_for_files(tmp_path: Path) -> None:
    refused(tmp_path / "none.pt#gelu", "there is no file or folder")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="an activation is for checkpoint files only"):
        load_backbone(str(tmp_path / "folder"), activation="gelu")
