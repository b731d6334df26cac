"""Good pictures of two products, and new ones of another product."""

from __future__ import annotations

import numpy as np
import pytest

from blemish.calibration import look_foreign, two_groups
from blemish.errors import UsageError


def around(centre: np.ndarray, count: int, spread: float, rng: np.random.Generator) -> np.ndarray:
    """Return pictures that vary in many directions, in some more than in others; no two are alike."""
    dimension = len(centre)
    scale = 0.95 ** np.arange(dimension)
    return centre + spread * rng.normal(size=(count, dimension)) * scale / np.linalg.norm(scale)


def products(dimension: int, angle: float, rng: np.random.Generator) -> np.ndarray:
    """Return the directions (2, D) of two products, so many radians apart."""
    first, second = np.linalg.qr(rng.normal(size=(dimension, 2)))[0].T
    return np.stack([first, np.cos(angle) * first + np.sin(angle) * second])


@pytest.mark.parametrize("dimension", [8, 64])
@pytest.mark.parametrize(("counts", "size"), [((4, 4), 8), ((14, 6), 20), ((36, 4), 40)])
def test_two_products(dimension: int, counts: tuple[int, int], size: int) -> None:
    rng = np.random.default_rng(dimension)
    first, second = products(dimension, 0.5, rng)
    member = np.repeat([0, 1], counts)
    features = np.concatenate([around(first, counts[0], 0.2, rng), around(second, counts[1], 0.2, rng)])
    order = rng.permutation(size)
    grouping = two_groups(features[order] * rng.uniform(1, 5, (size, 1)))  # lengths do not count
    assert grouping is not None
    expected = member[order] if counts[0] != counts[1] else member[order] ^ member[order][0]
    assert grouping.groups == tuple(expected.tolist())
    assert grouping.gap >= 1.2
    assert grouping.distance == pytest.approx(0.55, abs=0.1)
    larger, smaller = max(counts), min(counts)
    assert grouping.sentence().startswith(f"The {size} good pictures look like two groups, of {larger} and {smaller}:")


@pytest.mark.parametrize("spread", [0.02, 0.1, 0.4])
def test_one_product_is_rarely_two_groups(spread: float) -> None:
    rng = np.random.default_rng(0)
    for n in (6, 10, 20, 60):
        for dimension in (32, 64):
            centres = (products(dimension, 1.0, rng)[0] for _ in range(100))
            found = sum(two_groups(around(centre, n, spread, rng)) is not None for centre in centres)
            assert found <= 2, (n, dimension, found)


def test_one_product_in_every_pose() -> None:
    """A product that is turned is a ring of pictures, which differ in other ways, too."""
    rng = np.random.default_rng(0)
    found = 0
    for angles in rng.uniform(0, 2 * np.pi, (100, 24)):
        ring = 0.3 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        others = 0.3 * rng.normal(size=(24, 62)) / np.sqrt(62)
        found += two_groups(np.concatenate([ring, others, np.ones((24, 1))], axis=1)) is not None
    assert found <= 8


def test_similar_products_need_a_clear_gap() -> None:
    rng = np.random.default_rng(0)
    first, second = products(16, 0.2, rng)
    near = [np.concatenate([around(p, 10, spread, rng) for p in (first, second)]) for spread in (0.04, 0.12)]
    assert two_groups(near[0]) is not None
    assert two_groups(near[1]) is None
    # Copies are infinitely nearer to each other than to anything else, and no product for that.
    first, second = products(16, 0.05, rng)
    assert two_groups(np.repeat([first, second], 10, axis=0)) is None


def test_a_few_odd_pictures_are_no_group() -> None:
    rng = np.random.default_rng(0)
    first, second = products(16, 0.8, rng)
    for count, odd in ((20, 1), (30, 2)):
        features = np.concatenate([around(first, count - odd, 0.1, rng), around(second, odd, 0.1, rng)])
        assert two_groups(features) is None
    # Nor do they hide two groups.
    third = products(16, 0.5, rng)[1]
    features = np.concatenate([around(first, 10, 0.1, rng), around(third, 9, 0.1, rng), around(second, 1, 0.1, rng)])
    grouping = two_groups(features)
    assert grouping is not None
    assert sorted((grouping.groups.count(0), grouping.groups.count(1))) in ([9, 11], [10, 10])


def test_equal_pictures_and_few_pictures() -> None:
    assert two_groups(np.ones((10, 3))) is None
    assert two_groups(np.eye(5)) is None
    with pytest.raises(UsageError, match="one row per picture"):
        two_groups(np.ones(5))
    with pytest.raises(UsageError, match="finite"):
        two_groups(np.full((8, 3), np.nan))


def test_pictures_of_another_product_look_foreign() -> None:
    rng = np.random.default_rng(0)
    good = rng.uniform(0.15, 0.25, 12)
    assert look_foreign(rng.uniform(0.45, 0.6, 5), good)
    assert look_foreign([0.2, 0.5, 0.55], good)  # most of them
    assert not look_foreign(rng.uniform(0.15, 0.25, 50), good)
    assert not look_foreign(rng.uniform(0.25, 0.4, 50), good)  # damaged all over
    assert not look_foreign([0.2, 0.2, 0.55, 0.6, 0.2], good)
    assert not look_foreign([0.6, 0.6], good)  # too few
    assert not look_foreign([0.6, 0.6, 0.6], [])
    assert not look_foreign([0.6, 0.6, 0.6], [0.0, 0.0])  # nothing to compare with
    assert look_foreign(rng.uniform(0.45, 0.6, 5) * 4 - 1, good * 4 - 1, (-1.0, 3.0))
    assert look_foreign([1.0, 1.0, 1.0], good)
    with pytest.raises(UsageError, match="finite"):
        look_foreign([np.nan] * 3, good)
