"""What may go into a metric, and what is said when it may not."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from blemish.errors import UsageError

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]

NO_POSITIVES = "nothing is labelled anomalous"
NO_NEGATIVES = "everything is labelled anomalous"


class MetricInputError(UsageError, ValueError):
    """Labels, masks, scores or maps that do not fit together or hold values a metric cannot rank."""


class UndefinedMetricWarning(UserWarning):
    """A metric came out as nan because the data do not define it; the message says why."""


def warn_undefined(metric: str, reason: str) -> None:
    """Say why a function that returns a bare number returns nan."""
    warnings.warn(f"{metric} is undefined: {reason}.", UndefinedMetricWarning, stacklevel=3)


def as_scores(values: ArrayLike, what: str) -> Floats:
    """Return `values` as finite float32 or float64 without losing a distinction between two of them.

    float16, bool and integers of at most 16 bits become float32; wider integers and float64 become float64
    (integers beyond 2**53 are rounded). The result may share memory with `values`.

    Raises:
        MetricInputError: `values` is not numeric, or holds nan or infinity.
    """
    array = _as_array(values, what)
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind not in "biuf":
        raise MetricInputError(f"{what} must be real numbers, not {array.dtype}.")
    narrow = size <= 4 if kind == "f" else size <= 2
    scores: Floats = array.astype(np.float32 if narrow else np.float64, copy=False)
    if not np.isfinite(scores).all():
        bad = np.argwhere(~np.isfinite(scores))
        first = ", ".join(map(str, bad[0].tolist()))
        raise MetricInputError(
            f"{what} must be finite, but {len(bad)} of {scores.size} values are nan or infinite, first at [{first}]."
        )
    return scores


def as_binary(values: ArrayLike, what: str) -> Bools:
    """Return `values`, which must be exactly 0 or 1 (any real dtype), as booleans.

    Raises:
        MetricInputError: some other value is present; masks stored as 0/255 need a threshold first.
    """
    array = _as_array(values, what)
    if array.dtype == np.bool_:
        return array
    if array.dtype.kind not in "iuf":
        raise MetricInputError(f"{what} must be 0 or 1, not {array.dtype}.")
    ones: Bools = array == 1
    strange = array[~(ones | (array == 0))]
    if strange.size:
        raise MetricInputError(f"{what} must be 0 or 1, but hold {strange.flat[0]}: threshold them first.")
    return ones


def _as_array(values: ArrayLike, what: str) -> NDArray[Any]:
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as problem:
        # Rows of different lengths, or a tensor that lives on a device or carries gradients.
        raise MetricInputError(f"{what} cannot be read as an array: {problem}") from problem


def checked_limit(fpr_limit: float) -> float:
    """Return the integration limit of AUPRO, which must lie in (0, 1]."""
    if not 0.0 < fpr_limit <= 1.0:
        raise MetricInputError(f"fpr_limit must be above 0 and at most 1, not {fpr_limit}.")
    return float(fpr_limit)
