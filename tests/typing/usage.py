"""User code that must type-check with `mypy --strict`; it is never run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import assert_type

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

import blemish
from blemish.evaluation import Evaluation, Row
from blemish.methods import MethodInfo, info


def load() -> blemish.Detector:
    blemish.load()
    blemish.load("parts.onnx", threshold=0.5)
    return blemish.load(
        "april-gan",
        backbone="builtin",
        object_name="metal nut",
        threshold=0.6,
        mask_threshold=0.5,
        device="cpu",
        precision="float32",
        references=[Path("good/1.png"), "good/2.png"],
        tile=518,
        overlap=0.25,
    )


def detect(detector: blemish.Detector) -> None:
    assert_type(detector("part.jpg"), blemish.Detection)
    assert_type(detector(Path("part.jpg"), object_name="nut"), blemish.Detection)
    assert_type(detector(Image.new("RGB", (8, 8))), blemish.Detection)
    assert_type(detector(np.zeros((8, 8, 3), np.uint8)), blemish.Detection)
    assert_type(detector(torch.zeros(3, 8, 8)), blemish.Detection)
    assert_type(detector(blemish.read_image("part.jpg")), blemish.Detection)
    assert_type(detector(["a.png", Path("b.png")]), list[blemish.Detection])
    paths = [Path("a.png"), Path("b.png")]
    assert_type(detector(paths, object_name=["nut", "bolt"], batch_size=4), list[blemish.Detection])


def stream(detector: blemish.Detector) -> Iterator[float]:
    def on_error(path: str | None, error: blemish.ImageError) -> None:
        print(path, error.path)

    for detection in detector.stream(blemish.find_images(["photos"]), batch_size=4, on_error=on_error):
        yield detection.score


def results(detection: blemish.Detection) -> None:
    assert_type(detection.score, float)
    assert_type(detection.label, int | None)
    assert_type(detection.anomaly_map, npt.NDArray[np.float32])
    assert_type(detection.mask, npt.NDArray[np.bool_] | None)
    assert_type(detection.regions, tuple[blemish.Region, ...])
    assert_type(detection.provenance, blemish.Provenance | None)
    assert_type(detection.overlay(), Image.Image)
    detection.with_threshold(0.4).save("results")


def references(detector: blemish.Detector) -> None:
    assert_type(detector.with_references("good/"), blemish.Detector)
    assert_type(detector.with_set(["a.png", "b.png"]), blemish.Detector)


def methods() -> list[str]:
    assert_type(info("clip"), MethodInfo)
    return [name for name in blemish.list_methods() if info(name).few_shot]


def evaluate() -> float:
    result = blemish.evaluate("mine", "folder", methods=["clip", "anomalyclip"], out="runs/mine", report=True)
    assert_type(result, Evaluation)
    assert_type(result.row("clip"), Row)
    return result.row("clip").image_auroc


def export(detector: blemish.Detector) -> None:
    blemish.export(detector, "parts.onnx")


def errors(detector: blemish.Detector) -> str | None:
    try:
        detector("missing.png")
    except (blemish.ImageError, blemish.WeightsError, blemish.OutputError) as error:
        return error.path
    except (blemish.UsageError, blemish.BlemishError) as error:
        return str(error)
    return None
