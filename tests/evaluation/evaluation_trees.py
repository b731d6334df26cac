"""Miniature data sets, and evaluations of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

import blemish
from blemish.clip import Backbone
from blemish.evaluation import Evaluation, EvaluationOptions
from helpers import save_picture

CHEAP = ("clip", "clip-ac")


def add_category(root: Path, category: str, *, normal: int = 4, anomalous: int = 4, masks: bool = True) -> None:
    """A category in MVTec AD's layout; what is anomalous is a bright box, marked in the mask."""
    for number in range(normal):
        save_picture(root / category / "test" / "good" / f"{number:03}.png", seed=number + len(category))
    for number in range(anomalous):
        path = save_picture(root / category / "test" / "scratch" / f"{number:03}.png", seed=90 + number)
        with Image.open(path) as picture:
            pixels = np.array(picture)
        rows, columns = slice(5 + number, 15 + number), slice(8, 20)
        pixels[rows, columns] = 250
        Image.fromarray(pixels).save(path)
        if masks:
            mask = np.zeros(pixels.shape[:2], np.uint8)
            mask[rows, columns] = 255
            target = root / category / "ground_truth" / "scratch" / f"{number:03}_mask.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(target)


def options(data: Path, backbone: Backbone, **rest: object) -> EvaluationOptions:
    return EvaluationOptions(data, backbone=backbone, device="cpu", **{"methods": CHEAP, **rest})  # type: ignore[arg-type]


def evaluate(data: Path, backbone: Backbone, **rest: object) -> Evaluation:
    return blemish.evaluate(data, backbone=backbone, device="cpu", **{"methods": CHEAP, **rest})  # type: ignore[arg-type]


def numbers(result: Evaluation) -> list[dict[str, object]]:
    return [row.to_dict() for row in result.rows]
