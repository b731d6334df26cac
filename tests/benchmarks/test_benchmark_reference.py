"""What speed is compared with computes the same numbers."""

from __future__ import annotations

import pytest
import torch

from blemish.clip import load_backbone
from blemish.engine import TorchEngine
from blemish.methods import create, load_class


@pytest.mark.parametrize("name", ["anomalyclip", "clip", "april-gan"])
@pytest.mark.parametrize("builtin", [True, False])
def test_the_reference_is_the_same_computation(name: str, builtin: bool, tiny_backbone) -> None:
    import reference

    backbone = load_backbone("builtin" if builtin else str(tiny_backbone))
    method = create(name, backbone, config=load_class(name).BUILTIN if builtin else None)
    engine, tower = TorchEngine(method), reference.Tower(backbone, method)
    pixels = torch.randn(2, 3, engine.size, engine.size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = reference.run(method, tower, pixels, method.text_features(["object"])[0])
    found = engine.run(pixels, "object").prediction
    torch.testing.assert_close(found.score, expected.score, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.map, expected.map, atol=1e-4, rtol=0)
