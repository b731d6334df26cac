"""No weight is cast twice, and the speed command keeps its results; `benchmarks/check_ratios.py` measures time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from blemish.clip import Backbone, Request, Tap, load_backbone


@pytest.fixture(scope="module")
def builtin() -> Backbone:
    return load_backbone("builtin")


class Casts(TorchDispatchMode):
    """Records the shapes of tensors that are cast to another type."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._to_copy.default:
            self.shapes.append(tuple(args[0].shape))
        return function(*args, **(kwargs or {}))


@torch.no_grad()
def test_half_precision_casts_no_weight_a_second_time(builtin: Backbone) -> None:
    pixels = torch.randn(1, 3, 256, 256)
    request = Request(frozenset({Tap(8, "value", 5)}))
    builtin.encode_image(pixels, request, precision=torch.bfloat16)
    with Casts() as casts:
        builtin.encode_image(pixels, request, precision=torch.bfloat16)
    assert casts.shapes
    assert not {shape for shape in casts.shapes if len(shape) == 2}


def test_the_command_keeps_what_it_measured(tmp_path: Path, monkeypatch, capsys) -> None:
    import speed

    for sections in (["pictures"], []):
        monkeypatch.setattr("sys.argv", ["speed.py", *sections, "--rounds", "1", "--out", str(tmp_path)])
        monkeypatch.setattr(speed, "SECTIONS", {"pictures": speed.preprocess, "start": lambda rounds: iter(())})
        speed.main()
    kept = json.loads((tmp_path / "speed.json").read_text())
    assert set(kept["sections"]) == {"pictures", "start"}
    assert [row["ratio"] is None for row in kept["sections"]["pictures"]] == [False, False]
    assert "| overlay of 1024 x 1024 to PNG |" in (tmp_path / "speed.md").read_text()
    assert "to PNG" in capsys.readouterr().out
