"""Rounding to 8 bits: scaled weights compute the same, and every loader reads the rounded ones."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers import CLIPModel

from pretraining.tests.conftest import BUILTIN
from pretraining.training.model import Shape, export, make_model
from pretraining.training.rounding import STREAM_SCALE, round_model, rounded, scale_up


@pytest.fixture
def model() -> CLIPModel:
    torch.manual_seed(3)
    model = make_model(Shape(3, 64, 14, 56)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
            if name.endswith(("out_proj.weight", "fc2.weight")):
                parameter.mul_(0.1)  # about as small as LayerScale makes them
    return model


def encode(model: CLIPModel) -> torch.Tensor:
    pixels = torch.randn(4, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model.get_image_features(pixel_values=pixels).pooler_output


def test_scaled_weights_compute_the_same(model: CLIPModel) -> None:
    scaled = deepcopy(model)
    scale_up(scaled)
    torch.testing.assert_close(encode(scaled), encode(model), atol=1e-5, rtol=1e-4)
    before, after = (m.vision_model.encoder.layers[1].mlp.fc2.weight for m in (model, scaled))
    torch.testing.assert_close(after, STREAM_SCALE * before)


def test_rounding_costs_little_and_halves_the_size(model: CLIPModel, tmp_path: Path) -> None:
    export(model, tmp_path / "half", tokenizer=BUILTIN)
    round_model(tmp_path / "half", tmp_path / "rounded")
    state = load_file(tmp_path / "rounded" / "model.safetensors")
    types = {value.dtype for name, value in state.items() if "vision_model.encoder" in name and value.ndim == 2}
    assert types == {torch.float8_e4m3fn}
    read = CLIPModel.from_pretrained(tmp_path / "rounded", dtype=torch.float32).eval()
    expected = encode(model)
    assert F.cosine_similarity(encode(read), expected).min() > 0.995
    # Without the scaling most weights lose their mantissa.
    unscaled = deepcopy(model)
    unscaled.load_state_dict({name: value.float() for name, value in rounded(model.state_dict()).items()})
    assert (encode(unscaled) - expected).norm() > 2 * (encode(read) - expected).norm()
