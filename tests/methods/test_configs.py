"""Configs from JSON: what is refused, and with which words."""

from __future__ import annotations

from typing import Any

import pytest

from blemish.errors import UsageError
from blemish.methods.anomalyclip import AnomalyClipConfig
from blemish.methods.clip import ClipConfig
from blemish.methods.configs import from_json, resolve_layers


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sgima": 4}, r"no field 'sgima' \(did you mean sigma"),
        ({"zzzz": 4}, "no field 'zzzz'; it has size, "),
        ({"size": "big"}, "size in a config has to be a whole number, not 'big'"),
        ({"size": True}, "a whole number, not True"),
        ({"size": 0}, "at least 1, not 0"),
        ({"layers": [6, "12"]}, "layers in a config has to be a list of whole numbers"),
        ({"layers": 6}, "list of whole numbers, not 6"),
        ({"layers": []}, "at least one layer"),
        ({"position": "nearest"}, "'bilinear' or 'bicubic' or 'bicubic-antialias', not 'nearest'"),
        ({"image_score": "max"}, "'text' or 'map' or 'text[+]map' or 'text[+]mean' or 'top', not 'max'"),
        ({"temperature": 0}, "temperature has to be greater than 0"),
        ({"sigma": -1}, "sigma must not be negative"),
    ],
)
def test_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        from_json(ClipConfig, values)


@pytest.mark.parametrize("name", ["n_ctx", "t_n_ctx", "depth"])
def test_anomalyclip_needs_its_parts(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} has to be at least 1, not 0"):
        from_json(AnomalyClipConfig, {name: 0})
    with pytest.raises(UsageError, match="feature_map_layer 2 is not among the 2 tapped layers"):
        AnomalyClipConfig(layers=(1, 2, 2), feature_map_layer=2)


def test_numbers_and_lists_as_json_writes_them() -> None:
    assert from_json(ClipConfig, {"sigma": 2, "layers": [6, 12]}) == ClipConfig(sigma=2.0, layers=(6, 12))


def test_layers() -> None:
    assert resolve_layers((24, 6, -1, 6), 24) == (6, 24)
    for layer in (0, 25, -25):
        with pytest.raises(UsageError, match=f"layer {layer} does not exist: the backbone has layers 1 to 24"):
            resolve_layers((layer,), 24)
