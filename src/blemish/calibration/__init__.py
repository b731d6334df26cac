"""Calibration on arrays: conformal thresholds and p-values from good pictures, other rules, outliers and drift."""

from __future__ import annotations

from blemish.calibration.conformal import (
    SCHEMES,
    Calibration,
    ConformalThreshold,
    Guarantee,
    Scheme,
    Verdict,
    conditional_bound,
    conformal_threshold,
    cross_p_values,
    cross_remainder,
    deal_folds,
    p_values,
    percent,
    pictures_needed,
    quantile_rank,
    smallest_promise,
    two_thresholds,
    verdict,
)
from blemish.calibration.drift import Comparison, DriftTest, compare
from blemish.calibration.groups import Grouping, look_foreign, two_groups
from blemish.calibration.maps import region_level, region_levels
from blemish.calibration.outliers import deviations, suspicious, without_suspicious
from blemish.calibration.rules import (
    LabelledThreshold,
    cheapest,
    f1_optimal,
    fixed_recall,
    mean_plus_std,
    mebin,
    mebin_range,
    percentile_times,
)

__all__ = [
    "SCHEMES",
    "Calibration",
    "Comparison",
    "ConformalThreshold",
    "DriftTest",
    "Grouping",
    "Guarantee",
    "LabelledThreshold",
    "Scheme",
    "Verdict",
    "cheapest",
    "compare",
    "conditional_bound",
    "conformal_threshold",
    "cross_p_values",
    "cross_remainder",
    "deal_folds",
    "deviations",
    "f1_optimal",
    "fixed_recall",
    "look_foreign",
    "mean_plus_std",
    "mebin",
    "mebin_range",
    "p_values",
    "percent",
    "percentile_times",
    "pictures_needed",
    "quantile_rank",
    "region_level",
    "region_levels",
    "smallest_promise",
    "suspicious",
    "two_groups",
    "two_thresholds",
    "verdict",
    "without_suspicious",
]
