"""WinCLIP's windows as the reproductions run them give what blemish gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from blemish.clip import load_backbone
from blemish.methods.winclip import WinCLIP, WinClipConfig


@pytest.mark.parametrize("windows", ["one_by_one", "scale_at_once"])
@torch.no_grad()
def test_retold_maps(tiny_backbone: Path, windows: str) -> None:
    import winclip

    backbone = load_backbone(str(tiny_backbone))
    method = WinCLIP(backbone, WinClipConfig(size=4 * backbone.patch, activation="gelu"))
    pixels = torch.randn(2, 3, method.config.size, method.config.size, generator=torch.Generator().manual_seed(0))
    text = method.text_features(["bolt"])[0]
    found = method.score(backbone.encode_image(pixels, method.request, method.computation), text).map
    expected = winclip.retold(winclip.Plain(backbone), pixels, text, getattr(winclip, windows))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
