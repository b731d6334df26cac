"""Text features: made once for methods that share them, and only for those."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from blemish.clip import Backbone
from blemish.evaluation.plan import Texts
from blemish.methods.base import Method
from blemish.methods.clip_ad import ClipAD, ClipAdConfig, ClipAdSDP, ClipAdSdpConfig


class Turned(ClipAdSDP):
    """Says the same the other way round."""

    def text_features(self, objects: list[str]) -> Tensor:  # type: ignore[override]
        return super().text_features(objects).flip(1)


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
        "turned": Turned(backbone, ClipAdSdpConfig(size=size, layers=(2, 4))),
    }


def test_one_text_side_is_encoded_once(backbone: Backbone, encoded: list[int]) -> None:
    texts, own = Texts(methods(backbone)), methods(backbone)
    found = {name: texts(name, ["bolt", "bolt"]) for name in own}
    assert len(encoded) == 2  # a subclass with words of its own does not share
    assert torch.equal(found["clip-ad"], found["clip-ad-sdp"])
    for name, method in own.items():
        assert torch.equal(found[name], method.text_features(["bolt"])[0])
    texts("clip-ad-sdp", ["nut", "bolt"])
    assert len(encoded) == 2 + 3 + 1


@pytest.mark.parametrize("fields", [{"rep_vec": "pca"}, {"dbscan_eps": 0.1}, {"activation": "gelu"}])
def test_other_settings_other_texts(backbone: Backbone, encoded: list[int], fields: dict[str, object]) -> None:
    texts = Texts(methods(backbone, **fields))
    for name in ("clip-ad", "clip-ad-sdp"):
        texts(name, ["bolt"])
    assert len(encoded) == 2
