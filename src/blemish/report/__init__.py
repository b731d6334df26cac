"""The report: one self-contained page that needs no network, to read, to print, to hand on.

Everything on it comes from an evaluation's folder; the model is not needed. Charts are SVG, pictures are inlined small,
there is no script.
"""

from __future__ import annotations

from pathlib import Path

from blemish.datasets import Dataset
from blemish.evaluation.record import Record
from blemish.evaluation.result import Evaluation
from blemish.files import write_atomically
from blemish.report.page import page

NAME = "report.html"


def write_report(result: Evaluation, record: Record, dataset: Dataset) -> Path:
    """Write `report.html` into the record's folder.

    Args:
        result: What is told.
        record: Scores and small maps.
        dataset: The pictures; those that are gone are left out.

    Raises:
        OutputError: It cannot be written.
    """
    path = record.folder / NAME
    text = page(result, record, dataset)
    write_atomically(path, lambda stream: stream.write(text.encode("utf-8")))
    return path
