"""Eight bits for the image tower's matrices: the same computation first, then rounded, and read by every loader."""

from __future__ import annotations

import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file


@pytest.fixture
def model():
    from model import Shape, make_model

    torch.manual_seed(3)
    model = make_model(Shape(3, 64, 14, 56, 1e-6)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
            if name.endswith(("out_proj.weight", "fc2.weight")):
                parameter.mul_(0.1)  # LayerScale makes them as small
    return model


def embedded(model) -> torch.Tensor:
    pixels = torch.randn(4, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model.get_image_features(pixel_values=pixels).pooler_output


def test_larger_weights_compute_the_same(model) -> None:
    from eight_bits import STREAM, raised

    larger = deepcopy(model)
    raised(larger)
    torch.testing.assert_close(embedded(larger), embedded(model), atol=1e-5, rtol=1e-4)
    before, after = (m.vision_model.encoder.layers[1].mlp.fc2.weight for m in (model, larger))
    torch.testing.assert_close(after, STREAM * before)


def test_rounding_costs_little_and_half_the_size(model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import eight_bits
    from transformers import CLIPModel

    model.half().save_pretrained(tmp_path / "half")
    monkeypatch.setattr(sys, "argv", ["eight_bits.py", str(tmp_path / "half"), str(tmp_path / "eight")])
    eight_bits.main()
    state = load_file(tmp_path / "eight/model.safetensors")
    types = {value.dtype for name, value in state.items() if "vision_model.encoder" in name and value.ndim == 2}
    assert types == {torch.float8_e4m3fn}
    read = CLIPModel.from_pretrained(tmp_path / "eight", dtype=torch.float32).eval()
    wanted = embedded(model.float())
    assert F.cosine_similarity(embedded(read), wanted).min() > 0.995
    # without larger weights most of them lose their mantissa
    poor = deepcopy(model)
    poor.load_state_dict({k: v.float() for k, v in eight_bits.in_eight_bits(model.state_dict()).items()})
    assert (embedded(poor) - wanted).norm() > 2 * (embedded(read) - wanted).norm()
