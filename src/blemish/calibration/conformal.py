"""Conformal p-values and thresholds: how often a good picture is called anomalous, with a guarantee.

A picture is as odd as its score is high. With the scores $s_1, \\dots, s_n$ of good pictures, the p-value of a new
score $s$ is

    p(s) = (1 + #{i: s_i >= s}) / (n + 1),

and a picture is anomalous if p(s) <= the promise, which is s > the k-th highest $s_i$ with k = floor(promise (n + 1)).
If the new picture is good and exchangeable with the n, then P(p <= a) <= a for every a. Which scores may stand for
$s_i$ and $s$ depends on the scheme:

- `split`: the n pictures are no references, and nothing was fitted on them. P(p <= a) <= a (Papadopoulos et al. 2002;
  Vovk, Gammerman and Shafer 2005).
- `leave-one-out`: the n pictures are the references. s_i is the score of picture i with the other n - 1 as references
  (or with those outside its fold), s that of the new picture with all n. P(p <= a) <= a if the score is monotone, that
  is, if more references never raise it. Proof: r_i, the score of picture i with the other n - 1 *and the new picture*
  as references, is at most s_i, and r_1, ..., r_n, s are exchangeable. So the p-value of s among the r_i is valid, and
  p(s) is at least as large.
- `minmax`: for any score. s_i is leave-one-out as above, and s is the *smallest* of the n scores of the new picture,
  each with one reference left out. P(p <= a) <= a (the jackknife-minmax of Barber et al. 2021).
- `cross`: for any score. The n pictures are cut into K folds; s_i is the score of picture i with the other folds as
  references. The new picture has K scores, one for each fold left out, and i is compared with that of its own fold
  (Vovk 2015). With folds of one size P(p <= a) <= 2a + min(2 (1 - 1/K) / (n/K + 1), (1 - K/n) / (K + 1)), which is 2a
  for K = n (Barber et al. 2021 on CV+; for any score Gupta, Kuchibhotla and Ramdas 2022).

If up to c of the n pictures are bad, n + 1 becomes n - c + 1 in all of these: the c may have any scores, since those of
the good ones alone already keep the bound.

References:
    H. Papadopoulos et al., "Inductive confidence machines for regression", ECML 2002.
    V. Vovk, A. Gammerman, G. Shafer, "Algorithmic learning in a random world", 2005.
    V. Vovk, "Conditional validity of inductive conformal predictors", 2012 (the bound for one calibration set).
    V. Vovk, "Cross-conformal predictors", 2015.
    V. Vovk, R. Wang, "Combining p-values via averaging", 2020 (folds of several sizes).
    R. Barber, E. Candes, A. Ramdas, R. Tibshirani, "Predictive inference with the jackknife+", 2021.
    C. Gupta, A. Kuchibhotla, A. Ramdas, "Nested conformal prediction and quantile out-of-bag ensemble methods", 2022.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from blemish.errors import UsageError

Scheme: TypeAlias = Literal["split", "leave-one-out", "minmax", "cross"]
"""How calibration scores came about; the module says what each promises."""
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)

Verdict: TypeAlias = Literal["pass", "review", "reject"]
"""What two thresholds say of a picture."""

Scores: TypeAlias = npt.NDArray[np.float32]

#: Absorbs the rounding of a product such as 0.29 * 100, which is 28.999999999999996.
_ROUNDING = 1e-9


def smallest_promise(pictures: int, *, contaminated: int = 0) -> float:
    """Return the smallest false-alarm rate that so many good pictures can promise, 1 / (n - c + 1).

    Args:
        pictures: Number n of calibration scores.
        contaminated: Number c of bad pictures that may be among them.
    """
    return 1.0 / (max(pictures - contaminated, 0) + 1)


def pictures_needed(promise: float, *, contaminated: int = 0) -> int:
    """Return how many good pictures it takes to promise a false-alarm rate.

    Args:
        promise: False-alarm rate in (0, 1).
        contaminated: Number of bad pictures that may be among them.

    Raises:
        UsageError: The promise is not in (0, 1).
    """
    return max(math.ceil(1.0 / _checked_promise(promise) - 1.0 - _ROUNDING), 1) + contaminated


def quantile_rank(pictures: int, promise: float, *, contaminated: int = 0) -> int:
    """Return k = floor(promise (n - c + 1)): the threshold lies right above the k-th highest score.

    Args:
        pictures: Number n of calibration scores.
        promise: False-alarm rate in (0, 1).
        contaminated: Number c of bad pictures that may be among them.

    Raises:
        UsageError: So many pictures cannot keep the promise; the message says which they can keep, and how many it
            takes.
    """
    usable = pictures - contaminated
    rank = math.floor(_checked_promise(promise) * (usable + 1) + _ROUNDING)
    if rank < 1 or usable < 1:
        allowing = f", {contaminated} of which may be bad," if contaminated else ""
        smallest = smallest_promise(pictures, contaminated=contaminated)
        possible = f"the smallest promise they can keep is {percent(smallest, up=True)}, and " if usable >= 1 else ""
        raise UsageError(
            f"{pictures} good picture{'s' * (pictures != 1)}{allowing} cannot keep false alarms at "
            f"{percent(promise)}: {possible}{percent(promise)} takes "
            f"{pictures_needed(promise, contaminated=contaminated)} pictures."
        )
    return min(rank, usable)


def conformal_threshold(calibration: npt.ArrayLike, promise: float, *, contaminated: int = 0) -> Scores:
    """Return the lowest float32 at or above which a score has a p-value of at most the promise.

    Args:
        calibration: (..., n) scores of good pictures, one calibration set per row.
        promise: False-alarm rate in (0, 1).
        contaminated: Number of bad pictures that may be among the n.

    Returns:
        (...) float32: the next number above the k-th highest score, so "score >= threshold" is "score > k-th highest".
        It can lie above every possible score, and nothing is anomalous then.

    Raises:
        UsageError: So many pictures cannot keep the promise, or a score is not finite.
    """
    scores = as_scores(calibration)
    rank = quantile_rank(scores.shape[-1], promise, contaminated=contaminated)
    place = scores.shape[-1] - rank
    quantile = np.partition(scores, place, axis=-1)[..., place]
    above: Scores = np.nextafter(quantile, np.float32(np.inf))
    return above


def p_values(calibration: npt.ArrayLike, scores: npt.ArrayLike, *, contaminated: int = 0) -> npt.NDArray[np.float64]:
    """Return (1 + number of calibration scores >= score) / (n - c + 1), at most 1.

    Args:
        calibration: (n,) scores of good pictures.
        scores: New scores, any shape.
        contaminated: Number c of bad pictures that may be among the n.

    Returns:
        p-values of the shape of `scores`: the share of good pictures that look at least as odd.

    Raises:
        UsageError: A score is not finite.
    """
    ordered = np.sort(as_scores(calibration))
    above = ordered.size - np.searchsorted(ordered, as_scores(scores), side="left")
    return np.minimum((1 + above) / (max(ordered.size - contaminated, 0) + 1), 1.0)


def cross_p_values(
    calibration: npt.ArrayLike, folds: npt.ArrayLike, fold_scores: npt.ArrayLike, *, contaminated: int = 0
) -> npt.NDArray[np.float64]:
    """Return cross-conformal p-values (Vovk 2015): each calibration score is compared within its own fold.

    Args:
        calibration: (n,) scores of good pictures, each with its fold left out of the references.
        folds: (n,) fold of each, 0 to K - 1.
        fold_scores: (..., K) scores of new pictures, the k-th with fold k left out of the references.
        contaminated: Number of bad pictures that may be among the n.

    Returns:
        (...) p-values.

    Raises:
        UsageError: Shapes do not fit, or a score is not finite.
    """
    known, new = as_scores(calibration), as_scores(fold_scores)
    fold = _checked_folds(folds, known.size)
    if new.ndim == 0 or new.shape[-1] != int(fold.max()) + 1:
        raise UsageError(f"fold_scores must have one score per fold ({int(fold.max()) + 1}), not the shape {new.shape}")
    above = np.zeros(new.shape[:-1], dtype=np.int64)
    for number in range(new.shape[-1]):
        ordered = np.sort(known[fold == number])
        above += ordered.size - np.searchsorted(ordered, new[..., number], side="left")
    return np.minimum((1 + above) / (max(known.size - contaminated, 0) + 1), 1.0)


def deal_folds(pictures: int, folds: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """Return the fold of each picture, (n,) from 0: dealt at random, sizes differing by one at most.

    Raises:
        UsageError: There are fewer than two folds, or fewer pictures than folds.
    """
    if not 2 <= folds <= pictures:
        raise UsageError(f"{pictures} pictures can be cut into 2 to {pictures} folds, not {folds}")
    return np.random.default_rng(seed).permutation(np.arange(pictures) % folds)


@dataclass(frozen=True)
class Guarantee:
    """What a threshold promises, in numbers that are true of its scheme.

    Attributes:
        scheme: How the calibration scores came about.
        pictures: Number of calibration scores.
        promise: False-alarm rate that was asked for.
        rank: The threshold lies right above the `rank`-th highest calibration score.
        bound: The probability that a new good picture is called anomalous is at most this, on average over the
            choice of the calibration pictures. At most `promise`, except for `cross`.
        conditional: With probability `confidence`, the false-alarm rate of this very calibration set is at most this;
            None where no such bound exists (all schemes but `split`).
        confidence: Probability of `conditional`.
        contaminated: The bound holds even if so many of the calibration pictures are bad.
        removed: Number of pictures that were left out because they looked unlike the others.
        bound_if_removed_good: `bound` in case all of the removed pictures were good; equal to `bound` if none was.
    """

    scheme: Scheme
    pictures: int
    promise: float
    rank: int
    bound: float
    conditional: float | None = None
    confidence: float = 0.9
    contaminated: int = 0
    removed: int = 0
    bound_if_removed_good: float = math.nan

    def sentence(self) -> str:
        """Return the guarantee for a person: what is promised, of what, and what it rests on."""
        n = self.pictures
        bound = f"A new good picture is called anomalous with a probability of at most {percent(self.bound, up=True)}"
        if self.scheme == "cross":
            bound += f" (usually about {percent(self.promise)}; twice that and a remainder are certain)"
        else:
            # One number is said once: also where two roundings of it differ.
            promise = percent(self.promise)
            if not math.isclose(self.bound, self.promise, rel_tol=1e-9) and promise != percent(self.bound, up=True):
                bound += f" (promised: {promise})"
        bound += f", on average over choices of the {n} calibration picture{'s' * (n != 1)}"
        if self.conditional is not None:
            bound += (
                f"; for this choice it is at most {percent(self.conditional, up=True)} "
                f"with {percent(self.confidence)} confidence"
            )
        parts = [bound + "."]
        if self.contaminated:
            parts.append(f"This holds even if up to {self.contaminated} of the {n} are bad.")
        if self.removed:
            parts.append(
                f"{self.removed} more looked unlike the others and {'were' if self.removed > 1 else 'was'} left out; "
                f"if {'all of them were' if self.removed > 1 else 'it was'} good after all, the probability can be "
                f"up to {percent(self.bound_if_removed_good, up=True)}."
            )
        parts.append(
            "It rests on new good pictures being exchangeable with the calibration pictures: the same product, the "
            "same camera, the same light."
        )
        return " ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dictionary for JSON, the sentence included."""
        return {**vars(self), "sentence": self.sentence()}


@dataclass(frozen=True)
class ConformalThreshold:
    """A threshold and what it promises.

    Attributes:
        value: A picture with score >= value is anomalous; a float32 as a Python float. It can be above 1, and then no
            score in [0, 1] is anomalous.
        guarantee: What is promised.
    """

    value: float
    guarantee: Guarantee


@dataclass(frozen=True, eq=False)
class Calibration:
    """Scores of good pictures that new scores are compared with.

    Attributes:
        scores: (n,) float32, one score per good picture, made as `scheme` says; read-only.
        scheme: How they came about.
        folds: (n,) fold of each picture from 0, only for `cross`.
        contaminated: Number of bad pictures that may be among the n; thresholds and p-values allow for them.
        removed: Number of pictures that were left out of the n because they looked unlike the others.

    Raises:
        UsageError: There is no score, one is not finite, or the scheme and the folds do not fit.
    """

    scores: Scores
    scheme: Scheme = "split"
    folds: npt.NDArray[np.int64] | None = None
    contaminated: int = 0
    removed: int = 0

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise UsageError(f"unknown scheme {self.scheme!r}; choose from {', '.join(SCHEMES)}")
        scores = as_scores(self.scores).copy()
        if scores.ndim != 1 or scores.size == 0:
            raise UsageError(f"calibration needs one score per good picture, not an array of shape {scores.shape}")
        if self.contaminated < 0 or self.removed < 0:
            raise UsageError("contaminated and removed count pictures and cannot be negative")
        if (self.folds is not None) != (self.scheme == "cross"):
            raise UsageError("folds belong to the scheme cross, and only to it")
        scores.flags.writeable = False
        object.__setattr__(self, "scores", scores)
        if self.folds is not None:
            object.__setattr__(self, "folds", _checked_folds(self.folds, scores.size))

    def __len__(self) -> int:
        return int(self.scores.size)

    @property
    def smallest_promise(self) -> float:
        """Smallest false-alarm rate that can be asked for."""
        return smallest_promise(len(self), contaminated=self.contaminated)

    def p_values(self, scores: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return the p-values of new scores, any shape; for `cross` (..., K) scores give (...) p-values."""
        if self.folds is not None:
            return cross_p_values(self.scores, self.folds, scores, contaminated=self.contaminated)
        return p_values(self.scores, scores, contaminated=self.contaminated)

    def p_value(self, score: npt.ArrayLike) -> float:
        """Return the p-value of one picture, from its score (for `cross`: its K scores)."""
        return float(self.p_values(score))

    def threshold(self, promise: float, *, confidence: float = 0.9) -> ConformalThreshold:
        """Return the threshold that keeps a promise, with its guarantee.

        Args:
            promise: False-alarm rate in (0, 1).
            confidence: Probability of the bound for this very calibration set.

        Raises:
            UsageError: So many pictures cannot keep the promise, or the scheme is `cross`, which compares each
                picture with several scores: it is anomalous if its p-value is at most the promise.
        """
        if self.scheme == "cross":
            raise UsageError("the scheme cross has no single threshold: compare p-values with the promise")
        value = conformal_threshold(self.scores, promise, contaminated=self.contaminated)
        return ConformalThreshold(float(value), self.guarantee(promise, confidence=confidence))

    def guarantee(self, promise: float, *, confidence: float = 0.9) -> Guarantee:
        """Return what this calibration guarantees for a promise; arguments and errors are those of `threshold`."""
        if not 0.0 < confidence < 1.0:
            raise UsageError(f"confidence must be between 0 and 1, not {confidence}")
        n, c = len(self), self.contaminated
        rank = quantile_rank(n, promise, contaminated=c)
        # All the removed pictures back in, above the threshold and good: the rank grows with their number.
        worst = rank + self.removed
        return Guarantee(
            scheme=self.scheme,
            pictures=n,
            promise=promise,
            rank=rank,
            bound=self._bound(rank, n - c),
            conditional=conditional_bound(n - c, rank, confidence) if self.scheme == "split" else None,
            confidence=confidence,
            contaminated=c,
            removed=self.removed,
            bound_if_removed_good=self._bound(worst, n + self.removed - c),
        )

    def _bound(self, rank: int, pictures: int) -> float:
        share = rank / (pictures + 1)
        if self.folds is not None:
            share = 2 * share + cross_remainder(np.bincount(self.folds).tolist(), contaminated=self.contaminated)
        return min(share, 1.0)


def conditional_bound(pictures: int, rank: int, confidence: float = 0.9) -> float:
    """Return what the false-alarm rate of one calibration set exceeds with probability 1 - confidence (Vovk 2012).

    The rate of the threshold above the k-th highest of n independent scores has the distribution Beta(k, n + 1 - k);
    equal scores make it smaller.

    Args:
        pictures: Number n of calibration scores; none of their pictures is a reference.
        rank: k, from 1 to n.
        confidence: Probability in (0, 1) that the rate is at most the bound.
    """
    from scipy import special  # 0.2 s to import, and needed here only

    return float(special.betaincinv(rank, pictures + 1 - rank, confidence))


def cross_remainder(sizes: list[int], *, contaminated: int = 0) -> float:
    """Return what the bound of cross-conformal p-values adds to twice the promise.

    With folds of one size it is the smaller term of Barber et al. (2021, on CV+). With sizes that differ, or with
    bad pictures in unknown folds, it is the first term, 2 (K - 1) / (n - c + K): averaging the p-values of the folds
    gives it for folds of any size (Vovk and Wang 2020).

    Args:
        sizes: Number of pictures in each of the K folds, n together.
        contaminated: Number c of bad pictures that may be among them.
    """
    n, k = sum(sizes), len(sizes)
    if k == n:
        return 0.0
    averaged = 2 * (k - 1) / (n - contaminated + k)
    return averaged if contaminated or len(set(sizes)) > 1 else min(averaged, (1 - k / n) / (k + 1))


def two_thresholds(
    calibration: Calibration, review: float, reject: float, *, confidence: float = 0.9
) -> tuple[ConformalThreshold, ConformalThreshold]:
    """Return the thresholds of review and of rejection: two promises, of which rejection's is the stricter.

    Args:
        calibration: Scores of good pictures.
        review: Share of good pictures that are reviewed or rejected, at most.
        reject: Share of good pictures that are rejected, at most; smaller than `review`.
        confidence: As in `Calibration.threshold`.

    Raises:
        UsageError: `reject` is not smaller than `review`, or so many pictures cannot keep a promise.
    """
    if not reject < review:
        raise UsageError(
            f"rejection must promise fewer false alarms than review, not {percent(reject)} and {percent(review)}"
        )
    return (
        calibration.threshold(review, confidence=confidence),
        calibration.threshold(reject, confidence=confidence),
    )


def verdict(score: float, review: float, reject: float) -> Verdict:
    """Return "reject" for a score of at least `reject`, else "review" for at least `review`, else "pass"."""
    return "reject" if score >= reject else "review" if score >= review else "pass"


def percent(share: float, *, up: bool = False) -> str:
    """Return a share as text, such as "4.8 %", with two significant digits; `up` rounds up, for bounds."""
    value = 100 * share
    if value <= 0 or not math.isfinite(value):
        return f"{value:g} %"
    # From 10 % on with one decimal, below with two significant digits.
    unit = 10.0 ** max(math.floor(math.log10(value)) - 1, -6) if value < 10 else 0.1
    steps = math.ceil(value / unit - 1e-6) if up else round(value / unit)
    return f"{steps * unit:.10g} %"


def as_scores(values: npt.ArrayLike) -> Scores:
    """Return scores as float32, in which they are stored and compared.

    Raises:
        UsageError: One is not finite.
    """
    scores: Scores = np.asarray(values, dtype=np.float32)
    if not np.isfinite(scores).all():
        raise UsageError("scores must be finite numbers")
    return scores


def _checked_promise(promise: float) -> float:
    if not 0.0 < promise < 1.0:
        raise UsageError(f"a promise of false alarms is a share between 0 and 1 (0.01 is 1 %), not {promise}")
    return promise


def _checked_folds(folds: npt.ArrayLike, pictures: int) -> npt.NDArray[np.int64]:
    fold = np.asarray(folds, dtype=np.int64)
    if fold.shape != (pictures,) or fold.min() < 0 or (np.bincount(fold) == 0).any() or fold.max() < 1:
        raise UsageError(f"folds must be {pictures} numbers from 0 on, at least two folds and none of them empty")
    return fold
