"""The shipped model finds synthetic defects of streams that no training has seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

import blemish
from blemish.clip import Computation, Request, Tap, load_backbone
from blemish.methods import info, names
from blemish.metrics import auroc
from pretraining.training.batches import stack
from pretraining.training.prompts import HELD_OUT_TEMPLATES
from synthesis import Sample, make_product, make_sample

#: Minimum AUROC of patches and pixels: well below what the shipped weights reach, well above chance.
MIN_AUROC = 0.7


def test_words_find_defects() -> None:
    """Patches against held-out templates."""
    backbone = load_backbone("builtin")
    samples = [make_sample(31_337, index) for index in range(16)]
    sentences = [template.format(state) for state in ("object", "damaged object") for template in HELD_OUT_TEMPLATES]
    with torch.no_grad():
        text = functional.normalize(backbone.encode_text(backbone.tokenize(sentences)), dim=-1).unflatten(0, (2, -1))
        axis = text.mean(1)[1] - text.mean(1)[0]
        pixels = backbone.preprocess([Image.fromarray(sample.image) for sample in samples], backbone.size)
        tap = Tap(backbone.layers)
        features = backbone.encode_image(pixels, Request(frozenset({tap})), Computation(backbone.size))
        scores = functional.normalize(backbone.project(features.taps[tap][:, 1:]), dim=-1) @ axis
    assert auroc((stack(samples).coverage().numpy() > 0.1).ravel(), scores.numpy().ravel()) > MIN_AUROC


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return [sample for index in range(16) for sample in make_product(31_338, index)]


@pytest.mark.parametrize("name", [name for name in names() if info(name).trainable])
def test_maps_of_trained_methods_find_defects(name: str, samples: list[Sample]) -> None:
    images = [Image.fromarray(sample.image) for sample in samples]
    maps = np.stack([detection.anomaly_map for detection in blemish.load(name).detect_many(images)])
    masks = np.stack([sample.mask for sample in samples])
    assert auroc(masks.ravel(), maps.ravel()) > MIN_AUROC
