"""Data sets, read as they are distributed: one table of what exists, few readers for all layouts.

    from blemish.datasets import read

    for sample in read("mvtec", "data/mvtec_anomaly_detection", categories=["bottle"]):
        sample.picture(), sample.mask(), sample.label, sample.object_name

Pictures and masks are opened when they are asked for. Masks are paired by name; what found no partner is in `issues`.
"""

from __future__ import annotations

from blemish.datasets.check import Report, Tally, check
from blemish.datasets.entry import Counts, DatasetInfo, Layout
from blemish.datasets.samples import Dataset, Issue, Sample
from blemish.datasets.table import DATASETS, info, names, read

__all__ = [
    "DATASETS",
    "Counts",
    "Dataset",
    "DatasetInfo",
    "Issue",
    "Layout",
    "Report",
    "Sample",
    "Tally",
    "check",
    "info",
    "names",
    "read",
]
