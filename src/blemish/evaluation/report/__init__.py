"""The report: one self-contained page."""

from __future__ import annotations

from pathlib import Path

from blemish.datasets import Dataset
from blemish.evaluation.record import Record
from blemish.evaluation.result import Evaluation


def write_report(result: Evaluation, record: Record, dataset: Dataset) -> Path:
    """Write `report.html` into the record's folder."""
    raise NotImplementedError
