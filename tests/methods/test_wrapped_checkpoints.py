"""Authors' files that went through parallel training or another script's dictionaries are read like the plain ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from blemish.clip import load_backbone
from blemish.methods import create
from blemish.methods.checkpoints import identify, read_official


def adapters(backbone, prefix: str = "") -> dict[str, torch.Tensor]:
    method = create("april-gan", backbone)
    torch.manual_seed(1)
    names = (name.removeprefix("adapters.") for name in method.state_dict())
    shapes = (value.shape for value in method.state_dict().values())
    return {prefix + name: torch.randn(shape) for name, shape in zip(names, shapes, strict=True)}


WRAPPED = {
    "names begin with module.": lambda fc: {"trainable_linearlayer": {f"module.{k}": v for k, v in fc.items()}},
    "names begin with _orig_mod.": lambda fc: {"trainable_linearlayer": {f"_orig_mod.{k}": v for k, v in fc.items()}},
    "under model": lambda fc: {"model": {"trainable_linearlayer": fc}, "epoch": 3},
    "under state_dict": lambda fc: {"state_dict": {"trainable_linearlayer": fc}},
    "twice": lambda fc: {"model": {"state_dict": {"trainable_linearlayer": {f"module.{k}": v for k, v in fc.items()}}}},
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_adapters(wrap, tiny_backbone: Path, tmp_path: Path) -> None:
    backbone = load_backbone(str(tiny_backbone))
    fc = adapters(backbone)
    torch.save({"trainable_linearlayer": fc}, tmp_path / "plain.pth")
    torch.save(wrap(fc), tmp_path / "wrapped.pth")
    plain, wrapped = (
        create("april-gan", backbone, weights=tmp_path / f"{name}.pth").state_dict() for name in ("plain", "wrapped")
    )
    assert all(torch.equal(value, wrapped[name]) for name, value in plain.items())


def test_other_layouts_stay_what_they_are(tmp_path: Path) -> None:
    ctx = {"ctx": torch.zeros(4, 16), "token_prefix": torch.zeros(1)}
    for content in ({"state_dict": ctx, "epoch": 3}, {"state_dict": {f"module.{k}": v for k, v in ctx.items()}}):
        torch.save(content, tmp_path / "coop.pth")
        assert read_official(tmp_path / "coop.pth")["state_dict"].keys() == ctx.keys()
    torch.save({"model": {"state_dict": ctx}}, tmp_path / "coop.pth")
    assert read_official(tmp_path / "coop.pth")["state_dict"].keys() == ctx.keys()
    torch.save({"prompt_learner": {"module.ctx_pos": torch.zeros(1, 1, 4, 16)}}, tmp_path / "clip.pth")
    assert identify(read_official(tmp_path / "clip.pth")) == "anomalyclip"
    assert list(read_official(tmp_path / "clip.pth")["prompt_learner"]) == ["ctx_pos"]
