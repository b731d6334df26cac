"""What the tests of loading share."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from blemish.clip import Backbone, load_backbone
from blemish.errors import WeightsError


def same(one: Backbone, two: Backbone) -> bool:
    """Of the same weights, to the bit; not every processor multiplies them alike wherever they lie in memory."""
    ids = two.tokenize(["a photo of a cat"])
    pixels = torch.ones(1, 3, 64, 64)
    return (
        one.fingerprint == two.fingerprint
        and torch.equal(one.tokenize(["a photo of a cat"]), ids)
        and torch.allclose(one.encode_text(ids), two.encode_text(ids), rtol=0, atol=1e-6)
        and torch.allclose(
            one.encode_image(pixels).class_token, two.encode_image(pixels).class_token, rtol=0, atol=1e-5
        )
    )


def refused(name, says, **options):
    with pytest.raises(WeightsError, match=says) as caught:
        load_backbone(str(name), **options)
    assert "\n" not in str(caught.value)
    return caught.value


def rewrite(path, **changes):
    found = json.loads(path.read_text())
    for key, value in changes.items():
        part, _, name = key.rpartition("__")
        (found[part] if part else found)[name] = value
    path.write_text(json.dumps(found))


def open_clip_folder(path, state, **changes):
    path.mkdir()
    save_file(state, path / "open_clip_model.safetensors")
    config = {
        "model_cfg": {
            "embed_dim": 64,
            "quick_gelu": True,
            "vision_cfg": {"image_size": 64, "layers": 5, "width": 128, "patch_size": 16, "head_width": 32},
            "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 4},
        },
        "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
    }
    config["model_cfg"] |= changes
    (path / "open_clip_config.json").write_text(json.dumps(config))
    return path
