"""Text features: computed once for methods that share them, and only for those."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from blemish.clip import Backbone, load_backbone
from blemish.methods import text_cache
from blemish.methods.base import Method
from blemish.methods.clip_ad import ClipAD, ClipAdConfig
from blemish.methods.clip_ad_sdp import ClipAdSDP, ClipAdSdpConfig
from blemish.methods.text_cache import TextCache


class Swapped(ClipAdSDP):
    """A subclass with text features of its own."""

    def text_features(self, objects: list[str]) -> Tensor:  # type: ignore[override]
        return super().text_features(objects).flip(1)


@pytest.fixture(scope="session")
def backbone(tiny_backbone: Path) -> Backbone:
    return load_backbone(str(tiny_backbone))


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many sentences each call of the text tower got."""
    calls: list[int] = []
    original = Backbone.encode_text

    def counted(self: Backbone, ids: Tensor, **named: object) -> Tensor:
        calls.append(len(ids))
        return original(self, ids, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Backbone, "encode_text", counted)
    return calls


def methods(backbone: Backbone, **fields: object) -> dict[str, Method]:
    size = 74
    return {
        "clip-ad": ClipAD(backbone, ClipAdConfig(size=size)),
        "clip-ad-sdp": ClipAdSDP(backbone, ClipAdSdpConfig(size=size, layers=(2, 4), **fields)),  # type: ignore[arg-type]
        "swapped": Swapped(backbone, ClipAdSdpConfig(size=size, layers=(2, 4))),
    }


def test_methods_with_one_text_side_share_it(backbone: Backbone, encoded: list[int]) -> None:
    texts, own = TextCache(), methods(backbone)
    features = {name: texts(method, ["bolt", "bolt"]) for name, method in own.items()}
    assert len(encoded) == 2  # a subclass with text features of its own does not share
    assert torch.equal(features["clip-ad"], features["clip-ad-sdp"])
    for name, method in own.items():
        assert torch.equal(features[name], method.text_features(["bolt"])[0])
    assert texts(own["clip-ad-sdp"], ["nut", "bolt"]).shape == (2, *features["clip-ad"].shape)
    assert len(encoded) == 2 + 3 + 1


@pytest.mark.parametrize("fields", [{"rep_vec": "pca"}, {"dbscan_eps": 0.1}, {"activation": "gelu"}])
def test_methods_with_other_settings_do_not_share(
    backbone: Backbone, encoded: list[int], fields: dict[str, object]
) -> None:
    texts, own = TextCache(), methods(backbone, **fields)
    for name in ("clip-ad", "clip-ad-sdp"):
        texts(own[name], ["bolt"])
    assert len(encoded) == 2


def test_drops_the_least_recently_used_name(
    backbone: Backbone, encoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_cache, "MAX_ENTRIES", 2)
    texts, method = TextCache(), methods(backbone)["clip-ad"]
    for name in ("bolt", "nut", "bolt", "lid", "bolt"):
        texts(method, [name])
    assert len(encoded) == 3
    texts(method, ["nut"])
    assert len(encoded) == 4


def test_features_can_be_used_in_training(backbone: Backbone) -> None:
    features = TextCache()(methods(backbone)["clip-ad"], ["bolt"])
    assert not features.is_inference()
    assert not features.requires_grad
