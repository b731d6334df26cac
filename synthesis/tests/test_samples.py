"""Pictures follow from seed and number; masks and words agree with what is drawn."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from synthesis import KINDS, add_defects, make_product, make_sample, make_scene, words_for
from synthesis.photos import load_photos
from synthesis.samples import LOST, place_of

SIZE = 128


def test_pictures_follow_from_seed_and_number() -> None:
    for index in range(4):
        first, second = (make_sample(3, index, (), SIZE) for _ in range(2))
        assert np.array_equal(first.image, second.image)
        assert np.array_equal(first.mask, second.mask)
        assert first.caption == second.caption
    assert not np.array_equal(make_sample(3, 0, (), SIZE).image, make_sample(4, 0, (), SIZE).image)


def test_masks_cover_what_changed() -> None:
    """Nothing changes visibly away from the mask, and the normal picture stays as it is."""
    count = 0
    for index in range(24):
        rng = np.random.default_rng([11, index])
        scene = make_scene(rng, SIZE)
        before = scene.image.copy()
        defect = add_defects(rng, scene)
        assert np.array_equal(scene.image, before)
        if defect is None:
            continue
        count += 1
        assert defect.mask.any()
        change = np.abs(defect.image.astype(int) - before).max(2)
        near = cv2.dilate(defect.mask.astype(np.uint8), np.ones((3, 3)), iterations=8) > 0
        assert change[defect.mask].mean() > change[~near].mean() + 1
        assert (change[~near] > 24).mean() < 0.01
    assert count > 12


def test_captions_agree_with_masks() -> None:
    for index in range(30):
        image, mask, caption = make_sample(5, index, (), SIZE)
        assert image.shape == (SIZE, SIZE, 3)
        assert image.dtype == np.uint8
        assert caption.name
        assert bool(caption.kind and caption.kind != LOST) == bool(mask.any()) == bool(caption.place)


def test_products_are_one_scene_normal_and_defective_in_turns() -> None:
    defective = 0
    for index in range(12):
        normal, damaged = make_product(5, index, (), SIZE)
        assert normal.caption[:2] == damaged.caption[:2]
        assert normal.caption.kind == ""
        assert not normal.mask.any()
        found = bool(damaged.caption.kind and damaged.caption.kind != LOST)
        assert bool(damaged.mask.any()) == found
        defective += found
    assert defective > 8
    assert len(make_product(5, 0, (), SIZE, count=4)) == 4


def test_every_kind_has_words() -> None:
    assert all(words_for(kind) for kind in KINDS)


@pytest.mark.parametrize(
    ("rows", "columns", "words"),
    [((0, 9), (0, 9), "in the top left"), ((40, 60), (40, 60), "in the middle"), ((80, 90), (40, 60), "in the bottom")],
)
def test_places_in_words(rows: tuple[int, int], columns: tuple[int, int], words: str) -> None:
    mask = np.zeros((100, 100), bool)
    mask[slice(*rows), slice(*columns)] = True
    assert place_of(mask) == words


def test_photos_are_read_by_their_channels(tmp_path: Path) -> None:
    for name, channels in (("photo.jpg", 3), ("cutout.png", 4), ("slice.png", 1), ("more/photo.png", 3)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        assert cv2.imwrite(str(tmp_path / name), np.full((80, 90, channels), 100, np.uint8))
    (tmp_path / "notes.txt").write_text("no picture")
    shapes = [photo.shape for photo in load_photos([tmp_path])[:4]]
    assert sorted(shapes, key=len) == [(80, 90), (80, 90, 4), (80, 90, 3), (80, 90, 3)]
