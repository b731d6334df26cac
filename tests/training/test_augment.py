"""Mosaics and varied pictures: what is drawn, how often, and that masks move with their pictures."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from blemish.errors import UsageError
from blemish.training import augment
from blemish.training.augment import PAPERS, Augmentation, Augmented, vary
from blemish.training.samples import Sample, Source


def noise(width: int = 40, height: int = 30, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def plain(value: int, label: int, name: str = "nut") -> Sample:
    """A picture of one colour; where it is anomalous, all of it."""
    mask = np.ones((20, 30), bool) if label else None
    return Sample(Image.new("RGB", (30, 20), (value,) * 3), mask, label, name)


def tiles_of(sample: Sample) -> list[int]:
    pixels = np.asarray(sample.image)
    return [int(pixels[row, column, 0]) for row in (10, 30) for column in (15, 45)]


def test_nothing_to_do_changes_nothing() -> None:
    samples = [plain(5, 0), plain(6, 1)]
    found = Augmented(samples, Augmentation())
    assert len(found) == 2
    assert list(found) == samples
    assert found[-1] is samples[1]
    assert found[:1] == samples[:1]
    with pytest.raises(IndexError):
        found[2]


def test_what_is_drawn_follows_from_seed_epoch_and_place() -> None:
    samples = [Sample(noise(seed=k), None, 0) for k in range(3)]
    one, other = (Augmented(samples, PAPERS["vcp-clip", "visa"], seed=4) for _ in range(2))
    other[0]
    assert np.array_equal(one[1].image, other[1].image)
    first = [np.asarray(s.image).tobytes() for s in one]
    one.epoch = other.epoch = 1
    assert [np.asarray(s.image).tobytes() for s in one] != first
    assert np.array_equal(one[1].image, other[1].image)
    one.epoch = 0
    assert [np.asarray(s.image).tobytes() for s in one] == first
    assert [np.asarray(s.image).tobytes() for s in Augmented(samples, PAPERS["vcp-clip", "visa"], seed=5)] != first


def test_mosaics_come_as_often_as_they_should() -> None:
    samples = [plain(5, 1)] * 500
    wide = sum(s.image.size == (60, 40) for s in Augmented(samples, Augmentation(mosaic=0.2), seed=1))
    assert 70 < wide < 130


def test_vcp_mosaics_are_of_anomalous_pictures_of_the_same_object() -> None:
    samples = [plain(1, 0), plain(2, 1), plain(3, 1), plain(4, 1, "bolt"), plain(5, 0, "cable")]
    found = Augmented(samples, Augmentation(mosaic=1))
    seen: set[int] = set()
    for epoch in range(20):
        found.epoch = epoch
        mosaic = found[0]
        seen |= set(tiles_of(mosaic))
        assert (mosaic.label, mosaic.object_name, mosaic.image.size) == (1, "nut", (60, 40))
        assert isinstance(mosaic.mask, Image.Image)
        assert mosaic.mask.getextrema() == (255, 255)
        assert set(tiles_of(found[3])) == {4}
        assert found[4] == samples[4]  # nothing to make a mosaic of
    assert seen == {2, 3}


def test_april_gan_mosaics_draw_the_kind_first() -> None:
    samples = [*[plain(1, 0)] * 10, *[plain(2, 1)] * 9, plain(3, 1)]
    sources = [Source("nut", s.label, {1: "good", 2: "scratch", 3: "bent"}[tiles_of_one(s)]) for s in samples]
    found = Augmented(samples, Augmentation(mosaic=1, tiles="kinds"), sources=sources)
    counts: Counter[int] = Counter()
    for epoch in range(30):
        found.epoch = epoch
        for sample in found:
            counts.update(tiles_of(sample))
    total = counts.total()
    assert total == 30 * 20 * 4
    for value in (1, 2, 3):
        assert 0.28 < counts[value] / total < 0.39


def tiles_of_one(sample: Sample) -> int:
    return int(np.asarray(sample.image)[0, 0, 0])


def test_kinds_are_labels_where_they_are_not_told() -> None:
    found = Augmented([plain(1, 0), plain(2, 1)], Augmentation(mosaic=1, tiles="kinds"))
    seen: Counter[int] = Counter()
    labels: dict[int, set[int]] = {0: set(), 1: set()}
    for epoch in range(60):
        found.epoch = epoch
        mosaic = found[0]
        seen.update(tiles_of(mosaic))
        labels[mosaic.label] |= {max(tiles_of(mosaic))}
    assert 90 < seen[1] < 150
    assert labels == {0: {1}, 1: {2}}  # the label is that of the pixels


def test_sources_spare_opening_pictures() -> None:
    class Shut(list[Sample]):
        def __getitem__(self, index):  # type: ignore[no-untyped-def]
            raise AssertionError("opened")

        __iter__ = None  # type: ignore[assignment]

    Augmented(Shut([plain(1, 1)]), Augmentation(mosaic=0.5), sources=[Source("nut", 1)])
    Augmented(Shut([plain(1, 1)]), Augmentation(vary=True))


def test_what_does_not_fit() -> None:
    with pytest.raises(UsageError, match="there are 2 sources for 1 samples"):
        Augmented([plain(1, 1)], Augmentation(mosaic=0.5), sources=[Source("nut", 1)] * 2)
    with pytest.raises(UsageError, match=r"between 0 and 1, not 1\.2"):
        Augmentation(mosaic=1.2)


# varied pictures


def test_masks_move_with_their_pictures() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((60, 90), bool)
    mask[10:30, 20:60] = True
    picture = Image.fromarray((mask * 255).astype(np.uint8)).convert("RGB")
    turned = 0
    for _ in range(40):
        sample = vary(Sample(picture, mask, 1), rng)
        assert isinstance(sample.mask, Image.Image)
        assert sample.mask.size == sample.image.size
        moved = np.asarray(sample.mask)
        assert set(np.unique(moved)) <= {0, 255}
        bright = np.asarray(sample.image.convert("L")) > 127
        # they differ along the edge alone, which is interpolated and blurred in the picture
        away = ndimage.binary_erosion(moved > 0, iterations=4) | ~ndimage.binary_dilation(moved > 0, iterations=4)
        assert np.array_equal(bright[away], (moved > 0)[away])
        turned += sample.mask.size == (60, 90)
    assert 3 < turned < 20  # an odd number of quarters, half of the half that is turned


def test_normal_pictures_have_no_mask_and_any_mode_is_read() -> None:
    for mode in ("L", "RGB", "RGBA", "P", "1"):
        sample = vary(Sample(noise().convert(mode), None, 0, "nut"), np.random.default_rng(3))
        assert sample.mask is None
        assert sample.image.mode == "RGB"
        assert (sample.label, sample.object_name) == (0, "nut")


def test_the_picture_given_is_not_changed() -> None:
    picture, mask = noise(), np.arange(1200).reshape(30, 40) > 500
    before = picture.copy(), mask.copy()
    for seed in range(10):
        vary(Sample(picture, mask, 1), np.random.default_rng(seed))
    assert np.array_equal(picture, before[0])
    assert np.array_equal(mask, before[1])


@pytest.mark.parametrize("degrees", [-30.0, -11.0, 0.0, 7.5, 30.0])
def test_rotating_mirrors_what_lies_outside(degrees: float) -> None:
    rows, columns = np.mgrid[:31, :41]
    pixels = (3 * rows + 2 * columns).astype(np.uint8)
    found = np.asarray(augment.rotate(Image.fromarray(pixels), degrees), np.float64)
    angle = np.deg2rad(degrees)
    turned = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    centre = np.array([15.0, 20.0])
    wanted = ndimage.affine_transform(
        pixels.astype(np.float64), turned, offset=centre - turned @ centre, order=1, mode="mirror"
    )
    assert found.shape == (31, 41)
    assert np.abs(found - wanted).max() < 2


def test_small_and_narrow_pictures_rotate() -> None:
    for size in ((1, 1), (2, 50), (50, 3)):
        assert augment.rotate(noise(*size), 30).size == size


def test_turning() -> None:
    picture = noise(4, 3)
    assert np.array_equal(augment.turn(picture, 1), np.rot90(np.asarray(picture)))
    assert np.array_equal(augment.turn(picture, 0), picture)
    assert augment.turn(picture, 3).size == (3, 4)


def test_brightening() -> None:
    picture = Image.fromarray(np.array([[0, 100, 250]], np.uint8))
    assert np.asarray(augment.brighten(picture, 1.2, 0.1)).tolist() == [[26, 146, 255]]
    assert np.asarray(augment.brighten(picture, 0.8, -0.2)).tolist() == [[0, 29, 149]]


def test_noise() -> None:
    grey = Image.new("RGB", (200, 200), (128, 128, 128))
    pixels = np.asarray(augment.add_noise(grey, 25.0, np.random.default_rng(0)), np.float64) - 128
    assert abs(pixels.mean()) < 0.1
    assert 4.8 < pixels.std() < 5.2
    channels = np.corrcoef(pixels.reshape(-1, 3).T)
    assert abs(channels[0, 1]) < 0.05


def test_blurs_keep_the_mean_and_never_mix_channels() -> None:
    point = np.zeros((15, 15, 3), np.uint8)
    point[7, 7, 1] = 252
    box = np.asarray(augment.box_blur(Image.fromarray(point), 3))
    assert np.array_equal(box[6:9, 6:9, 1], np.full((3, 3), 28))
    assert int(box.astype(int).sum()) == 252
    for side in (3, 5, 7):
        blurred = np.asarray(augment.gaussian_blur(Image.fromarray(point), side))[..., 1].astype(int)
        rows = np.flatnonzero(blurred.any(axis=1))
        assert len(rows) <= side
        assert blurred.max() == blurred[7, 7]
        assert abs(int(blurred.sum()) - 252) <= side**2 // 2
        assert not np.asarray(augment.gaussian_blur(Image.fromarray(point), side))[..., ::2].any()


def test_hues_go_in_a_circle() -> None:
    red = Image.new("RGB", (2, 2), (255, 0, 0))
    third, back = (np.asarray(augment.shift_hue(red, share))[0, 0] for share in (1 / 3, -1 / 3))
    assert third[1] > 240 > 20 > third[0]
    assert back[2] > 240 > 20 > back[0]
    assert np.array_equal(augment.shift_hue(red, 0.0), red)


def test_the_last_step_is_one_of_three() -> None:
    """Of pictures on which the other steps are told apart: a third of a half each."""
    calls: Counter[str] = Counter()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_box", "_gauss", "_jitter"):
            patch.setattr(augment, name, lambda image, rng, name=name: calls.update([name]) or image)
        rng = np.random.default_rng(0)
        for _ in range(600):
            vary(Sample(Image.new("RGB", (4, 4)), None, 0), rng)
    assert all(70 < calls[name] < 130 for name in ("_box", "_gauss", "_jitter"))
