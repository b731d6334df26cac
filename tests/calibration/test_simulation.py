"""Over thousands of draws, false alarms stay within what each scheme promises.

Each draw has its own calibration pictures and one new good picture, so the number of false alarms is binomial and its
probability is the one that the promise bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from blemish.calibration import Calibration, conformal_threshold, cross_remainder, quantile_rank, suspicious

Floats = npt.NDArray[np.float64]
Alarms = npt.NDArray[np.bool_]

SIZES = (10, 20, 60, 200)
#: Chance that a test fails by bad luck, before a seed was fixed.
LUCK = 1e-4
PROMISE = {10: 0.1, 20: 0.1, 60: 0.05, 200: 0.05}


def assert_within(alarms: Alarms, bound: float) -> None:
    assert alarms.size >= 2000
    assert alarms.sum() <= stats.binom.ppf(1 - LUCK, alarms.size, bound), f"{alarms.mean():.4f} > {bound:.4f}"


def assert_about(alarms: Alarms, bound: float) -> None:
    assert_within(alarms, bound)
    assert alarms.sum() >= stats.binom.ppf(LUCK, alarms.size, bound), f"{alarms.mean():.4f} < {bound:.4f}"


@pytest.mark.parametrize(
    ("n", "promise"), [(n, promise) for n in SIZES for promise in (0.05, 0.1, 0.25) if promise * (n + 1) >= 1]
)
def test_split(n: int, promise: float) -> None:
    rng = np.random.default_rng(n)
    scores = rng.gamma(3, size=(20000, n + 1))
    threshold = conformal_threshold(scores[:, :n], promise)
    bound = Calibration(scores[0, :n]).guarantee(promise).bound
    assert_about(scores[:, n].astype(np.float32) >= threshold, bound)
    tied = np.floor(scores)  # about ten distinct values
    assert_within(tied[:, n] >= conformal_threshold(tied[:, :n], promise), bound)


@pytest.mark.parametrize("n", SIZES)
def test_bound_for_one_calibration_set(n: int) -> None:
    rng = np.random.default_rng(n)
    threshold = conformal_threshold(rng.random((20000, n)), PROMISE[n])
    conditional = Calibration(rng.random(n)).guarantee(PROMISE[n], confidence=0.9).conditional
    assert conditional is not None
    # For uniform scores the false-alarm rate of a threshold is 1 - threshold.
    assert_about(1 - threshold > conditional, 0.1)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("grid", [None, 1.0], ids=["distinct", "tied"])
@pytest.mark.parametrize("folds", [None, 5], ids=["leave-one-out", "5 folds"])
def test_leave_one_out_with_nearest_neighbours(n: int, grid: float | None, folds: int | None) -> None:
    def alarm(points: Floats) -> Alarms:
        known, new = nearest(points, np.arange(n) if folds is None else np.arange(n) % folds)
        return new.astype(np.float32) >= conformal_threshold(known, PROMISE[n])

    bound = quantile_rank(n, PROMISE[n]) / (n + 1)
    alarms = draw(alarm, 3000, n, grid)
    assert_within(alarms, bound)
    if grid is None and folds is None:
        assert alarms.mean() > bound / 2  # a promise that is kept by never raising an alarm is worth nothing


@pytest.mark.parametrize(("n", "folds"), [(10, 10), (10, 5), (20, 5), (20, 20), (60, 5), (60, 7), (200, 5)])
@pytest.mark.parametrize("grid", [None, 1.0], ids=["distinct", "tied"])
def test_cross_with_a_subspace(n: int, folds: int, grid: float | None) -> None:
    fold = np.arange(n) % folds

    def alarm(points: Floats) -> Alarms:
        known, new = subspace(points, fold)
        above = np.stack([(known[:, fold == k] >= new[:, k, None]).sum(axis=1) for k in range(folds)], axis=1)
        return (1 + above.sum(axis=1)) / (n + 1) <= PROMISE[n] + 1e-12

    guarantee = Calibration(np.zeros(n), "cross", fold).guarantee(PROMISE[n])
    expected = 2 * quantile_rank(n, PROMISE[n]) / (n + 1) + cross_remainder(np.bincount(fold).tolist())
    assert guarantee.bound == pytest.approx(expected)
    assert_within(draw(alarm, 2000, n, grid), guarantee.bound)


@pytest.mark.parametrize("n", [10, 20, 60])
def test_minmax_with_a_subspace(n: int) -> None:
    def alarm(points: Floats) -> Alarms:
        known, new = subspace(points, np.arange(n))
        return new.min(axis=1) >= conformal_threshold(known, PROMISE[n])

    assert_within(draw(alarm, 2000, n, None), Calibration(np.zeros(n), "minmax").guarantee(PROMISE[n]).bound)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("level", [0.0, 10.0], ids=["bad ones score low", "bad ones score high"])
def test_whatever_bad_pictures_score_the_corrected_promise_is_kept(n: int, level: float) -> None:
    bad = max(1, n // 10)
    promise = 0.25
    rng = np.random.default_rng(n)
    scores = rng.random((5000, n + 1)) + 1
    scores[:, :bad] = level
    alarms = scores[:, n].astype(np.float32) >= conformal_threshold(scores[:, :n], promise, contaminated=bad)
    assert_within(alarms, Calibration(scores[0, :n], contaminated=bad).guarantee(promise).bound)
    if level == 0.0 and n >= 60:
        # Without the correction the promise would be broken.
        plain = scores[:, n].astype(np.float32) >= conformal_threshold(scores[:, :n], promise)
        assert plain.mean() > promise + 0.01


@pytest.mark.parametrize(
    ("n", "share"), [*((n, share) for n in SIZES for share in (0.0, 0.05)), (20, 0.2), (60, 0.2), (60, 0.4)]
)
def test_robust_option_with_nearest_neighbours(n: int, share: float) -> None:
    """Suspicious pictures leave the references and the calibration; the others are scored again."""
    bad = math.ceil(share * n)
    rng = np.random.default_rng(n)
    false_alarms, hits, plain_hits, removed = [], [], [], []
    for _ in range(2000):
        points = rng.normal(size=(1, n + 2, 12))
        points[:, :bad] += rng.choice([-6, 6], size=(1, bad, 12))  # each bad picture in another direction
        points[:, n + 1] += rng.choice([-5, 5], size=12)  # one new bad picture per draw
        table = pairwise(points)[0]
        known = table[:n, :n].min(axis=1)
        kept = np.setdiff1d(np.arange(n), suspicious(known))
        removed.append(n - kept.size)
        calibration = Calibration(table[np.ix_(kept, kept)].min(axis=1), "leave-one-out", removed=n - kept.size)
        threshold = calibration.threshold(max(PROMISE[n], calibration.smallest_promise)).value
        new = table[n:, kept].min(axis=1).astype(np.float32)
        false_alarms.append(new[0] >= threshold)
        hits.append(new[1] >= threshold)
        plain_hits.append(table[n + 1, :n].min() >= conformal_threshold(known, PROMISE[n]))
    # After removals the smallest promise of 9 pictures is 10 %, and so on.
    assert_within(np.array(false_alarms), max(PROMISE[n], 1 / (n - bad + 1)))
    if bad and n >= 20 and share <= 0.2:
        assert np.mean(removed) == pytest.approx(bad, abs=0.1)
        assert np.mean(hits) > 0.95
        if quantile_rank(n, PROMISE[n]) <= bad:
            assert np.mean(plain_hits) < 0.6  # the bad references' own scores are the threshold
    if share > 0.3:
        # So many bad ones are the usual case: they are no outliers, and the threshold lies above new bad pictures.
        assert np.mean(hits) < 0.05


@pytest.mark.parametrize("n", [10, 20])
@pytest.mark.parametrize("chosen", ["all", "mildest"])
def test_false_alarms_that_become_references(n: int, chosen: str) -> None:
    """Good pictures that reach the threshold become references; threshold and calibration stay as they were."""
    stream = 60

    def alarm(points: Floats) -> Alarms:
        table = pairwise(points)
        threshold = conformal_threshold(table[:, :n, :n].min(axis=2), PROMISE[n])
        scores = table[:, n:-1, :n].min(axis=2).astype(np.float32)
        added = scores >= threshold[:, None]
        if chosen == "mildest":
            added &= scores == np.where(added, scores, np.inf).min(axis=1, keepdims=True)
        nearest_added = np.where(added, table[:, -1, n:-1], np.inf).min(axis=1)
        return np.minimum(table[:, -1, :n].min(axis=1), nearest_added).astype(np.float32) >= threshold

    assert_within(draw(alarm, 3000, n + stream, None), quantile_rank(n, PROMISE[n]) / (n + 1))


@pytest.mark.parametrize("chosen", ["all", "mildest"])
def test_false_alarms_that_calibrate_in_a_split(chosen: str) -> None:
    """Their scores may be anything, and they count like bad pictures among the calibrating ones."""
    n, stream, promise = 20, 40, 0.1
    rng = np.random.default_rng(n)
    alarms = []
    for scores in rng.gamma(3, size=(4000, n + stream + 1)):
        high = scores[n:-1][scores[n:-1].astype(np.float32) >= conformal_threshold(scores[:n], promise)]
        added = np.sort(high)[: 1 if chosen == "mildest" else None]
        together = np.concatenate([scores[:n], added])
        alarms.append(scores[-1].astype(np.float32) >= conformal_threshold(together, promise, contaminated=added.size))
    assert_within(np.array(alarms), quantile_rank(n, promise) / (n + 1))


def draw(alarm: Callable[[Floats], Alarms], draws: int, n: int, grid: float | None) -> Alarms:
    """Return the alarms of many draws of n calibration pictures and, last, one new good picture in six dimensions."""
    rng = np.random.default_rng(n)
    chunk = max(1, 400_000 // (n * n))
    alarms = []
    for start in range(0, draws, chunk):
        points = rng.normal(size=(min(chunk, draws - start), n + 1, 6)) * [4, 2, 1, 1, 0.5, 0.5]
        alarms.append(alarm(points if grid is None else np.round(points / grid) * grid))
    return np.concatenate(alarms)


def pairwise(points: Floats) -> Floats:
    """Return the distances between the points of each draw, (draws, m, m), with inf from a point to itself."""
    squares = (points**2).sum(axis=2)
    table = np.maximum(squares[:, :, None] + squares[:, None, :] - 2 * points @ points.transpose(0, 2, 1), 0)
    # Distances that are equal in truth have to be equal as numbers.
    table = np.sqrt(np.round(table, 9))
    table[:, np.arange(points.shape[1]), np.arange(points.shape[1])] = np.inf
    return table


def nearest(points: Floats, fold: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return (draws, n) distances to the nearest picture outside the own fold, and (draws,) of the new picture."""
    table, n = pairwise(points), fold.size
    known = np.where(np.equal.outer(fold, fold), np.inf, table[:, :n, :n]).min(axis=2)
    return known, table[:, n, :n].min(axis=1)


def subspace(points: Floats, fold: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return (draws, n) distances to the plane fitted to the other folds, and (draws, K) of the new picture.

    The distance to a plane that is fitted to the references can grow when references are added: it is not monotone.
    """
    n = fold.size
    known, new = np.empty((len(points), n)), np.empty((len(points), int(fold.max()) + 1))
    for k in range(new.shape[1]):
        references = points[:, :n][:, fold != k]
        mean = references.mean(axis=1, keepdims=True)
        centred = references - mean
        axes = np.linalg.eigh(centred.transpose(0, 2, 1) @ centred)[1][:, :, :4]  # those outside the plane
        residual = np.linalg.norm((points - mean) @ axes, axis=2)
        known[:, fold == k], new[:, k] = residual[:, :n][:, fold == k], residual[:, n]
    return known, new
