"""Pictures that do not belong together: good ones of two products, and new ones of another product.

Both only warn, so they are careful: one product in any pose, or with a few odd pictures, is no mixture, and damaged
parts are no other product. `benchmarks/two_groups.py` and `benchmarks/foreign.py` say how often they are right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from blemish.calibration.conformal import as_scores
from blemish.errors import UsageError

#: Fewest pictures that can be two groups.
_MIN_PICTURES = 6
#: Smallest share of the pictures that is a group.
_MIN_SHARE = 0.1
#: Up to so many pictures two are a group, of more it takes three: two odd pictures are no product.
_FEW = 20
#: (gap, distance) that two groups have at least, by either rule: pictures of clearly different things, or of things
#: that differ less but leave nothing in between. Chosen on the class token of the built-in tower's seventh block.
_RULES = ((1.15, 0.28), (1.8, 0.15))
#: Nine of ten pictures have a picture of their own group nearby, and the distance of the tenth is what counts as near.
_NEARBY = 0.9

#: How many times farther than any good picture pictures are that do not belong to the profile. Half of damaged lemons,
#: whose whole surface changes, are 1.8 times as far.
_FOREIGN = 2.1
#: Fewest pictures that can look foreign.
_FEWEST_FOREIGN = 3


@dataclass(frozen=True)
class Grouping:
    """Two groups among the references.

    Attributes:
        groups: Group of each picture: 0 the larger one, 1 the other.
        gap: Shortest distance between the groups, in units of what is usual (the 90 % quantile) from a picture to the
            nearest one of its own group.
        distance: Mean distance of two pictures of different groups, in [0, 2].
    """

    groups: tuple[int, ...]
    gap: float
    distance: float

    def sentence(self) -> str:
        """Return a sentence for a person."""
        first, second = self.groups.count(0), self.groups.count(1)
        return (
            f"The {first + second} good pictures look like two groups, of {first} and {second}: "
            "if they show two products, make a profile for each."
        )


def two_groups(features: npt.ArrayLike) -> Grouping | None:
    """Return the two groups that references fall into, or None if they look like one.

    The pictures are joined by their shortest distances (a minimum spanning tree, which is single linkage), and each
    joint is tried as the border of two groups. They are two if all pictures of the other group are farther away than
    what is usual within a group, and if pictures of different groups are far apart. The first alone would also find the
    two halves of a set of very similar pictures, the second alone any product that varies.

    Args:
        features: (n, D), one vector per picture, such as the class token of a late block; compared by the distance of
            their unit vectors, sqrt(2 - 2 cos).

    Returns:
        The groups with the largest gap, or None; also None for fewer than 6 pictures. Of more than 20 pictures a group
        has at least 3, and at least a tenth of all.

    Raises:
        UsageError: The features are not (n, D) or not finite.
    """
    vectors = np.asarray(features, dtype=np.float64)
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise UsageError(f"features must be finite and have one row per picture, not the shape {vectors.shape}")
    n = len(vectors)
    if n < _MIN_PICTURES:
        return None
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    distances = np.sqrt(np.maximum(2 - 2 * unit @ unit.T, 0.0))
    joints = _spanning_tree(distances)
    smallest = max(2 if n <= _FEW else 3, _MIN_SHARE * n)
    best: Grouping | None = None
    for cut in range(1, n):
        group = _beyond(joints, cut)
        size = int(group.sum())
        if min(size, n - size) < smallest:
            continue
        gap, distance = _separation(distances, group)
        if any(gap >= min_gap and distance >= min_distance for min_gap, min_distance in _RULES) and (
            best is None or gap > best.gap
        ):
            larger = group if 2 * size > n or (2 * size == n and group[0]) else ~group
            best = Grouping(tuple((~larger).astype(int).tolist()), gap, distance)
    return best


def _separation(distances: npt.NDArray[np.float64], group: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Return gap and distance of two groups, as in `Grouping`."""
    own = np.equal.outer(group, group)
    nearest = np.where(own & ~np.eye(len(own), dtype=bool), distances, np.inf).min(axis=1)
    usual = max(float(np.quantile(nearest, _NEARBY)), 1e-6)
    return float(distances[~own].min()) / usual, float(distances[~own].mean())


def _spanning_tree(distances: npt.NDArray[np.float64]) -> list[tuple[int, int]]:
    """Return the joints (from, to) of the minimum spanning tree, in the order in which it grows from picture 0."""
    n = len(distances)
    nearest = np.zeros(n, dtype=np.int64)
    length = distances[0].copy()
    outside = np.ones(n, dtype=bool)
    outside[0] = False
    joints = []
    for _ in range(n - 1):
        new = int(np.argmin(np.where(outside, length, np.inf)))
        joints.append((int(nearest[new]), new))
        outside[new] = False
        closer = outside & (distances[new] < length)
        length[closer] = distances[new][closer]
        nearest[closer] = new
    return joints


def _beyond(joints: list[tuple[int, int]], cut: int) -> npt.NDArray[np.bool_]:
    """Return which pictures lie beyond joint number `cut` (from 1), seen from picture 0: (n,)."""
    beyond = np.zeros(len(joints) + 1, dtype=bool)
    for number, (start, end) in enumerate(joints, 1):
        beyond[end] = number == cut or beyond[start]
    return beyond


def look_foreign(
    new: npt.ArrayLike,
    good: npt.ArrayLike,
    map_range: tuple[float, float] = (0.0, 1.0),
    *,
    fewest: int = _FEWEST_FOREIGN,
) -> bool:
    """Return whether most new pictures look unlike the good ones everywhere, as those of another product do.

    What is compared is the median of the anomaly map, so how far an ordinary place of a picture is from the good
    pictures. A defect covers few places and hardly changes it. With x the median as a part of the map's range,
    x / (1 - x) is about a distance, on a scale that has an upper end and on one that has none; pictures look foreign if
    that of at least half of them is 2.1 times the largest of the good pictures.

    Args:
        new: (m,) medians of the maps of new pictures.
        good: (n,) medians of the maps of good pictures, each without itself among the references.
        map_range: The range of both.

    Returns:
        False also for fewer than 3 new pictures, since one may be damaged all over.

    Raises:
        UsageError: A median is not finite.
    """
    low, high = map_range
    scaled = [np.clip((as_scores(values).ravel() - low) / (high - low), 0.0, 1.0 - 1e-6) for values in (new, good)]
    if scaled[0].size < _FEWEST_FOREIGN or not scaled[1].size:
        return False
    others, usual = (values / (1 - values) for values in scaled)
    return bool(np.median(others) >= _FOREIGN * usual.max() > 0)
