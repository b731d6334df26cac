"""Out-of-distribution products: none of training's pictures, exact masks, the same products every time."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from pretraining.validation import out_of_distribution as ood
from synthesis.photos.sources import STK

#: Side of the pictures.
SIZE = 256


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)

    def write(name: str, side: int, channels: int) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = rng.integers(0, 256, (side, side, channels), dtype=np.uint8)
        if channels == 4:
            image[..., 3] = 0
            image[20:-20, 20:-20, 3] = 255
        assert cv2.imwrite(str(path), image)

    for n in range(3):
        write(f"tuxpaint-stamps-default/usr/share/tuxpaint/stamps/thing{n}.png", 260, 4)
        write(f"supertuxkart-data/{STK}textures/floor{n}.png", 520, 3)
    write(f"supertuxkart-data/{STK}textures/ceramic.jpg", 520, 3)  # one of the pictures of training
    write(f"supertuxkart-data/{STK}textures/floor_normal.png", 520, 3)
    write("tuxpaint-stamps-default/small.png", 60, 4)
    return tmp_path


def test_takes_nothing_that_training_takes(packages: Path) -> None:
    cutouts, surfaces = ood.list_pictures(packages)
    assert sorted(p.name for p in cutouts) == ["thing0.png", "thing1.png", "thing2.png"]
    assert sorted(p.name for p in surfaces) == ["floor0.png", "floor1.png", "floor2.png"]


def test_products_are_photographs_in_turns_with_a_defect(packages: Path) -> None:
    made = ood.draw_products(packages, 2, SIZE)
    assert len(made) == 3
    for samples, groups in made.values():
        assert len(samples) == len(groups)
        assert set(groups) == {0, 1}
        assert {sample.label for sample in samples} == {0, 1}
        for sample in samples:
            assert sample.image.size == (SIZE, SIZE)
            assert (sample.mask is not None) == (sample.label == 1)
            assert sample.mask is None or 60 < sample.mask.sum() < 0.2 * SIZE**2
    again = ood.draw_products(packages, 2, SIZE)
    for kind, (samples, _) in made.items():
        assert all(np.array_equal(a.image, b.image) for a, b in zip(samples, again[kind][0], strict=True))


def test_poses(tmp_path: Path) -> None:
    thing = np.full((300, 300, 4), 255, np.uint8)
    thing[:, :150, :3] = 0  # bright to the right
    assert cv2.imwrite(str(tmp_path / "thing.png"), thing)
    other = np.full((ood.SIZE, ood.SIZE, 3), 128, np.uint8)
    for pose, least, most in ((ood.UPRIGHT, 0.9, 1), (ood.ANY_POSE, 0, 0.8)):
        made = ood.draw_product(np.random.default_rng(1), tmp_path / "thing.png", [other], pose=pose)
        assert len(made) >= ood.PHOTOGRAPHS - 2
        bright = [np.argwhere(np.asarray(one.image).mean(2) > 200).mean(0) for one in made]
        dark = [np.argwhere(np.asarray(one.image).mean(2) < 25).mean(0) for one in made]
        ways = np.subtract(bright, dark)
        ways /= np.linalg.norm(ways, axis=1, keepdims=True)
        assert least <= np.linalg.norm(ways.mean(0)) <= most  # 1: all alike


def test_only_the_masked_place_changes() -> None:
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (200, 200, 3), dtype=np.uint8)
    other = np.zeros_like(image)
    made = 0
    for _ in range(40):
        result = ood.add_defect(rng, image, np.ones((200, 200), bool), [other])
        if result is None:
            continue
        made += 1
        spoilt, mask = result
        change = np.abs(spoilt.astype(int) - image).mean(2)
        assert change[mask].mean() > 5 * change[~mask].mean()
    assert made > 20
