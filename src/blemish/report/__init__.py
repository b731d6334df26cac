"""The report of an evaluation: one self-contained HTML page, made from the evaluation's folder without the model.

Charts are SVG, pictures are inlined small, and there is no script.
"""

from __future__ import annotations

from pathlib import Path

from blemish.datasets import Dataset
from blemish.evaluation import Evaluation, EvaluationFolder
from blemish.files import write_atomically
from blemish.report.page import make_page

NAME = "report.html"


def write_report(result: Evaluation, folder: EvaluationFolder, dataset: Dataset) -> Path:
    """Write `report.html` into the folder of an evaluation.

    Args:
        result: The result.
        folder: Scores and small maps.
        dataset: The pictures; missing ones are left out.

    Returns:
        Path of the report.

    Raises:
        OutputError: The report cannot be written.
    """
    path = folder.path / NAME
    text = make_page(result, folder, dataset)
    write_atomically(path, lambda stream: stream.write(text.encode("utf-8")))
    return path
