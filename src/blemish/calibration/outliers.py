"""Pictures among the good ones that do not look good, and references that look like two products.

Both only warn, and both are careful: a good picture that is called suspicious costs trust, and leaving it out would
make the threshold too low.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from blemish.calibration.conformal import Calibration, as_scores
from blemish.errors import UsageError

#: Median absolute deviation of a normal distribution with standard deviation 1, inverted.
_MAD_TO_STD = 1.4826
#: The same for the mean absolute deviation, which stands in where more than half of the scores are equal.
_MEAN_TO_STD = 1.2533
#: Robust standard deviations above the median from which a good picture is suspicious.
OUTLIER_DEVIATIONS = 6.0
#: Fewest scores from which a spread is known.
_MIN_SCORES = 6
#: Largest share of the pictures that can be suspicious; beyond it the scores have no common level.
_MAX_SHARE = 0.4


def deviations(scores: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return how many robust standard deviations each score lies above the median.

    The deviation is (s - median) / (1.4826 MAD) (Iglewicz and Hoaglin 1993). Distances spread further above their
    median than below, so the MAD is that of all scores or that of the upper half, whichever is larger.

    Args:
        scores: (..., n) scores of good pictures.

    Returns:
        (..., n); zeros where all scores are equal.

    Raises:
        UsageError: A score is not finite.
    """
    values = as_scores(scores).astype(np.float64)
    centred = values - np.median(values, axis=-1, keepdims=True)
    upper = np.sort(centred, axis=-1)[..., values.shape[-1] // 2 :]
    spread = _MAD_TO_STD * np.maximum(
        np.median(np.abs(centred), axis=-1, keepdims=True), np.median(upper, axis=-1, keepdims=True)
    )
    spread = np.where(spread > 0, spread, _MEAN_TO_STD * np.abs(centred).mean(axis=-1, keepdims=True))
    return np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 0)


def suspicious(scores: npt.ArrayLike, *, cutoff: float = OUTLIER_DEVIATIONS) -> npt.NDArray[np.int64]:
    """Return which good pictures look unlike the others, the most unlike first.

    A bad picture is named only if nothing like it is among the references: two pictures with the same defect in the
    same place look alike, and leave-one-out scores do not show them.

    Args:
        scores: (n,) scores of good pictures, each without itself among the references.
        cutoff: Robust standard deviations above the median from which a picture is named.

    Returns:
        Indices into `scores`; none of fewer than 6 pictures, and at most 40 % of them.

    Raises:
        UsageError: A score is not finite.
    """
    values = as_scores(scores)
    if values.size < _MIN_SCORES:
        return np.empty(0, dtype=np.int64)
    above = deviations(values)
    order = np.argsort(-above, kind="stable")
    return order[above[order] > cutoff][: int(_MAX_SHARE * values.size)].astype(np.int64)


def without_suspicious(calibration: Calibration, *, cutoff: float = OUTLIER_DEVIATIONS) -> Calibration:
    """Return the calibration without the scores of suspicious pictures: the robust option.

    Bad pictures among the good ones never cause false alarms: with any scores, c of them change the bound from
    k / (n + 1) to k / (n - c + 1) at most. But their high scores raise the threshold, so that defects are missed. Left
    out, they cannot. If a picture that is left out was good after all, the threshold is too low; `Guarantee` says by
    how much at most.

    Args:
        calibration: Scores of the pictures.
        cutoff: As in `suspicious`.

    Raises:
        UsageError: The scheme is `cross`: leave the pictures out of the references instead, and calibrate again.
    """
    if calibration.folds is not None:
        raise UsageError("scores of the scheme cross belong to their folds: leave the pictures out and calibrate again")
    outliers = suspicious(calibration.scores, cutoff=cutoff)
    return replace(
        calibration,
        scores=np.delete(calibration.scores, outliers),
        removed=calibration.removed + outliers.size,
    )


@dataclass(frozen=True)
class Grouping:
    """Two groups among the references.

    Attributes:
        groups: Group of each picture: 0 the larger one, 1 the other.
        gap: Distance between the groups, in units of the usual distance from a picture to its group.
    """

    groups: tuple[int, ...]
    gap: float

    def sentence(self) -> str:
        """Return a sentence for a person."""
        first, second = self.groups.count(0), self.groups.count(1)
        return (
            f"The {first + second} good pictures look like two groups, of {first} and {second}: "
            "if they show two products, make a profile for each."
        )


def two_groups(features: npt.ArrayLike, *, min_gap: float = 3.0, min_share: float = 0.2) -> Grouping | None:
    """Return the two groups that references fall into, or None if they look like one.

    The pictures are joined by their shortest distances (a minimum spanning tree). There are two groups if the longest
    joint between two parts of at least `min_share` each is `min_gap` times as long as the joints within the parts
    (their 90th percentile), and if the pictures are also much nearer to their own part than to the other (a mean
    silhouette of 0.5 or more; Rousseeuw 1987). One picture that stands apart is no group.

    Args:
        features: (n, D), one vector per picture, such as its class token; compared by cosine distance.
        min_gap: How many times longer the joint between the groups has to be.
        min_share: Smallest share of a group; at least 2 pictures.

    Returns:
        The groups, or None; also None for fewer than 6 pictures.

    Raises:
        UsageError: The features are not (n, D) or not finite.
    """
    vectors = np.asarray(features, dtype=np.float64)
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise UsageError(f"features must be finite and have one row per picture, not the shape {vectors.shape}")
    n = len(vectors)
    if n < _MIN_SCORES:
        return None
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    distances = np.sqrt(np.maximum(2 - 2 * unit @ unit.T, 0.0))
    edges = _spanning_tree(distances)
    for edge in sorted(range(n - 1), key=lambda number: -edges[number][2]):
        group = _side(edges, edge, n)
        smaller = min(int(group.sum()), n - int(group.sum()))
        if smaller < max(2, min_share * n):
            continue
        usual = float(np.quantile([length for other, (_, _, length) in enumerate(edges) if other != edge], 0.9))
        gap = edges[edge][2] / max(usual, 1e-6)
        if gap < min_gap or _silhouette(distances, group) < 0.5:
            return None
        larger = group if 2 * int(group.sum()) > n or (2 * int(group.sum()) == n and group[0]) else ~group
        return Grouping(tuple((~larger).astype(int).tolist()), gap)
    return None


def _spanning_tree(distances: npt.NDArray[np.float64]) -> list[tuple[int, int, float]]:
    """Return the n - 1 edges (from, to, length) of the minimum spanning tree (Prim's algorithm)."""
    n = len(distances)
    nearest = np.zeros(n, dtype=np.int64)
    length = distances[0].copy()
    outside = np.ones(n, dtype=bool)
    outside[0] = False
    edges = []
    for _ in range(n - 1):
        new = int(np.argmin(np.where(outside, length, np.inf)))
        edges.append((int(nearest[new]), new, float(length[new])))
        outside[new] = False
        closer = outside & (distances[new] < length)
        length[closer] = distances[new][closer]
        nearest[closer] = new
    return edges


def _side(edges: list[tuple[int, int, float]], cut: int, n: int) -> npt.NDArray[np.bool_]:
    """Return which pictures lie beyond an edge, (n,): edges are in the order in which the tree grew from picture 0."""
    beyond = np.zeros(n, dtype=bool)
    for number, (start, end, _) in enumerate(edges):
        beyond[end] = number == cut or beyond[start]
    return beyond


def _silhouette(distances: npt.NDArray[np.float64], group: npt.NDArray[np.bool_]) -> float:
    """Return the mean silhouette of two groups of at least 2."""
    own = np.equal.outer(group, group)
    within = (distances * own).sum(axis=1) / (own.sum(axis=1) - 1)
    between = (distances * ~own).sum(axis=1) / (~own).sum(axis=1)
    return float(((between - within) / np.maximum(np.maximum(within, between), 1e-12)).mean())
