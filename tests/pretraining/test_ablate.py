"""Small runs of other shapes: what is asked for is built, done once and told in a table."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.fixture
def ablate(monkeypatch: pytest.MonkeyPatch) -> Any:
    pytest.importorskip("cv2")
    import ablate
    from model import Shape
    from objective import validation_set

    shapes = {"two": Shape(4, 64, 32, 256), "wide": Shape(6, 128, 32, 256), "half": Shape(4, 64, 16, 128)}
    monkeypatch.setattr(ablate, "SHAPES", shapes)
    monkeypatch.setattr(ablate, "validation_set", lambda photos: validation_set(photos, 12))
    monkeypatch.setattr(ablate, "bundled_photos", list)
    return ablate


def test_shapes_are_built_as_asked(ablate: Any) -> None:
    from model import image_views, make_model
    from objective import normalise

    for shape in ablate.SHAPES.values():
        model = make_model(shape).eval()
        with torch.no_grad():
            views = image_views(model, normalise(torch.zeros(1, 384, 384, 3, dtype=torch.uint8), model))
        assert len(model.vision_model.encoder.layers) == shape.depth
        assert views.patches["last"].shape == (1, 64, 256)
        assert views.middle.shape == (1, 64, shape.width)


def test_runs_are_done_once_and_told(
    ablate: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["x", "--out", str(tmp_path), "--steps", "6", "--pictures", "24", "--batch", "8", "--threads", "1", "--only"]
    monkeypatch.setattr(sys, "argv", [*args, "two"])
    ablate.main()
    first = json.loads((tmp_path / "two.json").read_text())
    assert 0.3 < first["patch loss"] < 5
    assert all(0 <= first[k] <= 1 for k in ("image AUROC", "class token", "pixel AUROC"))
    monkeypatch.setattr(sys, "argv", [*args, "two", "half"])
    ablate.main()
    assert json.loads((tmp_path / "two.json").read_text()) == first
    table = capsys.readouterr().out.splitlines()[-2:]
    assert table[0].startswith("| two | ")
    assert table[1].startswith("| half | ")


def test_a_shape_learns(ablate: Any) -> None:
    """The same small stock again and again: what is asked of the patches is taken in."""
    from objective import Texts, build_tokenizer, stack
    from pool import make_product

    stock = stack([m for i in range(4) for m in make_product(3, i, [])])
    texts = Texts(build_tokenizer(), ("object",))
    shape = ablate.SHAPES["wide"]
    _, before = ablate.learn(shape, stock, texts, 1, 8, 1e-3)
    _, after = ablate.learn(shape, stock, texts, 40, 8, 1e-3)
    assert after < 0.8 * before
