"""DINOv2 as CLIP's image tower: the same computation in other modules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pretraining.training import init_from_dinov2 as init
from pretraining.training.model import CLIP_MEAN, CLIP_STD, Shape, make_model

DEPTH, WIDTH, GRID = 3, 64, 4


@pytest.fixture
def dino():
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(1)
    shape = {"hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": 1, "layer_norm_eps": 1e-6}
    model = Dinov2Model(Dinov2Config(**shape, image_size=14 * GRID, patch_size=14, layerscale_value=0.3)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layer_scale" not in name:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def onnx_state(dino) -> dict[str, torch.Tensor]:
    """What `read_onnx` returns: names as transformers had them when the package's network was exported."""
    older = {"q_proj": "attention.query", "k_proj": "attention.key", "v_proj": "attention.value"}
    state = {}
    for name, value in dino.state_dict().items():
        for new, old in {**older, "o_proj": "output.dense"}.items():
            name = name.replace(f"attention.{new}", f"attention.{old}")
        state[name] = value.detach().clone()
    position = state.pop("embeddings.position_embeddings")[0]
    return state | {"embeddings.position.class": position[:1], "embeddings.position.patches": position[1:]}


@pytest.fixture
def images() -> torch.Tensor:
    smooth = torch.randint(0, 256, (16, 3, 9, 9), generator=torch.Generator().manual_seed(2)).float()
    return F.interpolate(smooth, (14 * GRID, 14 * GRID), mode="bicubic").clamp(0, 255).byte().permute(0, 2, 3, 1)


def clip_tower(weights: dict[str, torch.Tensor]):
    vision = make_model(Shape(DEPTH, WIDTH, 14, 14 * GRID)).eval().vision_model
    vision.load_state_dict(weights)
    return vision


def test_computes_what_dinov2_computes(dino, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to one direction of the tokens; the longer the added vector, the more exactly."""
    monkeypatch.setattr(init, "LONG", 1024.0)
    vision = clip_tower(init.image_tower(onnx_state(dino), DEPTH, GRID, images))
    pixels = images[:8].permute(0, 3, 1, 2).float() / 255

    def normalised(mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
        return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]

    with torch.no_grad():
        ours = vision(normalised(CLIP_MEAN, CLIP_STD), output_hidden_states=True).hidden_states
        theirs = dino(normalised(init.MEAN, init.STD), output_hidden_states=True).hidden_states
    for one, other in zip(ours[1:], theirs[1:], strict=True):
        near = F.cosine_similarity(*(F.layer_norm(x, (WIDTH,)) for x in (one, other)), dim=-1)
        assert near.min() > 0.999


def test_positions_are_read_off_for_another_grid(dino) -> None:
    state = onnx_state(dino)
    torch.testing.assert_close(init.positions(state, GRID)[1:], state["embeddings.position.patches"], atol=1e-5, rtol=0)
    assert init.positions(state, 7).shape == (50, WIDTH)


def test_weights_are_read_from_onnx(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    held = {
        "backbone.embeddings.cls_token": rng.standard_normal((1, 1, 4)),
        "backbone.encoder.layer.0.mlp.fc1.bias": rng.standard_normal(8),
        "onnx::MatMul_7": rng.standard_normal((4, 8)),
        "onnx::Concat_1": rng.standard_normal((1, 1, 4)),
        "onnx::Reshape_2": rng.standard_normal((1, 9, 4)),
        "decoder.final_conv.bias": rng.standard_normal(1),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "onnx::MatMul_7"], ["y"], "/backbone/encoder/layer.0/mlp/fc1/MatMul"),
        helper.make_node("Reshape", ["onnx::Reshape_2", "s"], ["p"], "/backbone/embeddings/Reshape_1"),
        helper.make_node("Concat", ["onnx::Concat_1", "p"], ["q"], "/backbone/embeddings/Concat_6", axis=1),
    ]
    tensors = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in held.items()]
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, None)
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", [value], [], tensors)), tmp_path / "w.onnx")
    state = init.read_onnx(tmp_path / "w.onnx")
    np.testing.assert_allclose(state["encoder.layer.0.mlp.fc1.weight"], held["onnx::MatMul_7"].T, rtol=1e-6)
    assert state["embeddings.position.class"].shape == (1, 4)
    assert state["embeddings.position.patches"].shape == (9, 4)
    assert "decoder.final_conv.bias" not in state
