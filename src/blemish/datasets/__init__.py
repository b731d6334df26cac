"""Read data sets as they are distributed: a catalogue of known sets, and a few readers for all layouts.

    from blemish.datasets import read

    for sample in read("mvtec", "data/mvtec_anomaly_detection", categories=["bottle"]):
        sample.picture(), sample.mask(), sample.label, sample.object_name

Pictures and masks are opened on request. Masks are paired by name; files without a partner are listed in `issues`.
"""

from __future__ import annotations

from blemish.datasets.account import Account
from blemish.datasets.catalog import DATASETS, Counts, DatasetInfo, Layout, info, names
from blemish.datasets.check import Report, Tally, check
from blemish.datasets.reading import read
from blemish.datasets.samples import Dataset, Issue, Sample

__all__ = [
    "DATASETS",
    "Account",
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
