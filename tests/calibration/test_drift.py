"""Tests of drift: quiet while nothing changes, loud soon after something does."""

from __future__ import annotations

import numpy as np
import pytest

from blemish.calibration import DriftTest, compare
from blemish.errors import UsageError


def test_compare_finds_a_shift_and_not_its_absence() -> None:
    rng = np.random.default_rng(0)
    old = rng.normal(size=100)
    same, shifted = compare(old, rng.normal(size=100)), compare(old, rng.normal(size=100) + 1)
    assert same.p_value > 0.05
    assert shifted.p_value < 1e-3
    assert shifted.shift > 0.65
    assert compare([1, 1, 1], [1, 1]).shift == 0.5
    with pytest.raises(UsageError, match="two sets"):
        compare([], [1])


@pytest.mark.parametrize("known", [0, 30])
@pytest.mark.parametrize("tied", [False, True])
def test_capital_rarely_grows_by_chance(known: int, tied: bool) -> None:
    reached = 0
    for seed in range(400):
        scores = np.random.default_rng(seed).random(known + 150)
        scores = np.floor(scores * 3) if tied else scores
        reached += DriftTest(scores[:known], seed=10_000 + seed).run(scores[known:]).max() >= 1
    assert reached / 400 <= 0.1  # Ville: at most 1 in 10 runs ever reach 10


@pytest.mark.parametrize("shift", [1.0, -1.0])
def test_capital_grows_after_a_change(shift: float) -> None:
    rng = np.random.default_rng(0)
    test = DriftTest(rng.normal(size=50))
    before = test.run(rng.normal(size=100))
    after = test.run(rng.normal(size=100) + shift)
    assert before.max() < 1
    assert after[-1] > 2
    assert test.log_capital == after[-1]


def test_window_bounds_what_is_kept() -> None:
    scores = np.random.default_rng(0).random(300)
    test = DriftTest(scores[:50], window=20)
    test.run(scores[50:])
    assert sorted(test._latest) == test._ordered
    assert np.array(test._latest) == pytest.approx(scores[-20:].astype(np.float32))
    # A window as long as the run changes nothing.
    wide, whole = DriftTest(window=1000).run(scores), DriftTest().run(scores)
    assert wide == pytest.approx(whole)


def test_same_seed_same_capital() -> None:
    scores = np.zeros(50)
    assert DriftTest(seed=3).run(scores).tolist() == DriftTest(seed=3).run(scores).tolist()
    with pytest.raises(UsageError, match="window"):
        DriftTest(window=0)
    with pytest.raises(UsageError, match="finite"):
        DriftTest().update(float("nan"))
