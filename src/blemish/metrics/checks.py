"""Check what goes into a metric, and report undefined results."""

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
    """Labels, masks, scores or maps that do not fit together or hold values that cannot be ranked."""


class UndefinedMetricWarning(UserWarning):
    """A metric is nan because the data do not define it; the message gives the reason."""


def warn_undefined(metric: str, reason: str) -> None:
    """Warn that a function which returns a bare number returns nan."""
    warnings.warn(f"{metric} is undefined: {reason}.", UndefinedMetricWarning, stacklevel=3)


def as_scores(values: ArrayLike, name: str) -> Floats:
    """Return `values` as finite float32 or float64 without merging two different values.

    float16, bool and integers of at most 16 bits become float32; wider integers and float64 become float64
    (integers beyond 2**53 are rounded). The result may share memory with `values`.

    Args:
        values: Array of real numbers.
        name: Subject of the error messages.

    Raises:
        MetricInputError: `values` is not numeric, or holds nan or infinity.
    """
    array = _as_array(values, name)
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind not in "biuf":
        raise MetricInputError(f"{name} must be real numbers, not {array.dtype}.")
    narrow = size <= 4 if kind == "f" else size <= 2
    scores: Floats = array.astype(np.float32 if narrow else np.float64, copy=False)
    if not np.isfinite(scores).all():
        bad = np.argwhere(~np.isfinite(scores))
        first = ", ".join(map(str, bad[0].tolist()))
        raise MetricInputError(
            f"{name} must be finite, but {len(bad)} of {scores.size} values are nan or infinite, first at [{first}]."
        )
    return scores


def as_binary(values: ArrayLike, name: str) -> Bools:
    """Return `values`, which must be exactly 0 or 1 (any real dtype), as booleans.

    Args:
        values: Array of 0 and 1.
        name: Subject of the error messages.

    Raises:
        MetricInputError: Another value is present; masks stored as 0/255 need a threshold first.
    """
    array = _as_array(values, name)
    if array.dtype == np.bool_:
        return array
    if array.dtype.kind not in "iuf":
        raise MetricInputError(f"{name} must be 0 or 1, not {array.dtype}.")
    ones: Bools = array == 1
    other = array[~(ones | (array == 0))]
    if other.size:
        raise MetricInputError(f"{name} must be 0 or 1, but hold {other.flat[0]}: threshold them first.")
    return ones


def _as_array(values: ArrayLike, name: str) -> NDArray[Any]:
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        # Rows of different lengths, or a tensor that lives on a device or carries gradients.
        raise MetricInputError(f"{name} cannot be read as an array: {error}") from error


def check_fpr_limit(fpr_limit: float) -> float:
    """Return the integration limit of AUPRO, which must lie in (0, 1]."""
    if not 0.0 < fpr_limit <= 1.0:
        raise MetricInputError(f"fpr_limit must be above 0 and at most 1, not {fpr_limit}.")
    return float(fpr_limit)


def check_bootstrap(n: int, level: float) -> None:
    """Check the number of resamples and the coverage of a bootstrap interval."""
    if n < 1 or not 0.0 < level < 1.0:
        raise MetricInputError(f"n must be at least 1 and level between 0 and 1, not {n} and {level}.")
