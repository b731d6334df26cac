"""One cache of text features serves the engine, the evaluation and the losses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from blemish.clip import Backbone, load_backbone
from blemish.methods import create
from blemish.methods.base import Method, TextFeatureCache


@pytest.fixture
def backbone(tiny_backbone: Path) -> Backbone:
    return load_backbone(tiny_backbone)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Object names that text features are computed for, in order."""
    from blemish.methods.clip_ad import RepresentativeTexts

    names: list[str] = []
    original = RepresentativeTexts.text_features

    def counted(self: Any, object_names: Any) -> torch.Tensor:
        names.extend(object_names)
        return original(self, object_names)

    monkeypatch.setattr(RepresentativeTexts, "text_features", counted)
    return names


def tiny(backbone: Backbone, name: str, **config: Any) -> Method:
    return create(name, backbone, {"size": 64, "layers": [1], **config})


def test_methods_that_share_their_text_side_share_an_entry(backbone: Backbone, computed: list[str]) -> None:
    cache = TextFeatureCache()
    surgery, plain = tiny(backbone, "clip-ad-sdp"), tiny(backbone, "clip-ad")
    assert torch.equal(cache.get(surgery, "nut"), cache.get(plain, "nut"))
    assert computed == ["nut"]
    cache.get(tiny(backbone, "clip-ad", rep_vec="mean"), "nut")
    cache.get(surgery, "bolt")
    assert computed == ["nut", "nut", "bolt"]


def test_a_method_without_a_text_key_shares_with_nobody(backbone: Backbone) -> None:
    one, other = tiny(backbone, "clip"), tiny(backbone, "clip")
    assert one.text_key != other.text_key
    cache = TextFeatureCache()
    assert cache.get(one, "nut") is not cache.get(other, "nut")
    assert cache.get(one, "nut") is cache.get(one, "nut")


def test_a_batch_of_one_object_has_one_pair_of_texts(backbone: Backbone) -> None:
    cache, method = TextFeatureCache(), tiny(backbone, "clip")
    assert cache.batch(method, ["nut", "nut"]).shape == (2, backbone.embed_dim)
    several = cache.batch(method, ["nut", "bolt", "nut"])
    assert several.shape == (3, 2, backbone.embed_dim)
    torch.testing.assert_close(several, method.text_features(["nut", "bolt", "nut"]))


def test_the_oldest_entry_is_dropped(backbone: Backbone, computed: list[str]) -> None:
    cache, method = TextFeatureCache(max_entries=2), tiny(backbone, "clip-ad")
    for name in ("nut", "bolt", "screw", "bolt", "nut"):
        cache.get(method, name)
    assert computed == ["nut", "bolt", "screw", "nut"]


def test_features_that_were_cached_while_scoring_can_be_trained_with(backbone: Backbone) -> None:
    cache, method = TextFeatureCache(), tiny(backbone, "clip")
    with torch.inference_mode():
        cache.get(method, "nut")
    weight = torch.ones(backbone.embed_dim, requires_grad=True)
    (cache.get(method, "nut") * weight).sum().backward()
    assert weight.grad is not None
