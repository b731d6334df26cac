"""Every method that learns does learn, on a fixed tiny set: run over the registry."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blemish import methods
from blemish.clip import Backbone, load_backbone
from blemish.training import Sample, train

LEARNERS = [name for name in methods.names() if methods.info(name).trainable]


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return load_backbone(str(tiny_backbone))


def plates() -> list[Sample]:
    rng = np.random.default_rng(0)
    samples = []
    for number in range(4):
        pixels = rng.integers(90, 130, (40, 50, 3)).astype(np.uint8)
        mask = np.zeros((40, 50), np.uint8)
        if number % 2:
            pixels[10:25, 5:30], mask[10:25, 5:30] = 250, 255
        samples.append(Sample(Image.fromarray(pixels), mask if number % 2 else None, number % 2, "plate"))
    return samples


def test_there_are_some() -> None:
    assert {"anomalyclip", "april-gan", "clip-ad-sdp-plus", "coop", "vcp-clip"} <= set(LEARNERS)


@pytest.mark.parametrize("name", LEARNERS)
def test_thirty_steps_lower_the_loss(name: str, backbone: Backbone) -> None:
    cls = methods.load_class(name)
    method = cls(backbone, replace(cls.Recipe(), size=148))
    history = train(method, plates(), steps=30, batch_size=4, lr=5e-3)
    first, last = (np.mean([record["total"] for record in part]) for part in (history[:3], history[-3:]))
    assert last < first
