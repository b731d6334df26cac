"""Every stored case of the authors' own code, through blemish's public classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import run
from adapters import anomalyclip, clip_ad_rvs
from cases import Case

from blemish.detector import Detector
from blemish.engine import TorchEngine
from blemish.methods.anomalydino import AnomalyDINO, AnomalyDinoConfig
from blemish.training import Sample, train

DATA = Path(__file__).resolve().parent.parent / "data" / "parity"
CASES = run.find(DATA)


def test_there_are_cases() -> None:
    assert CASES


@pytest.mark.parametrize("folder", CASES, ids=[str(path.relative_to(DATA)) for path in CASES])
def test_case(folder: Path) -> None:
    wrong = [row for row in run.check(folder) if not row.ok]
    assert not wrong, "\n".join(f"{r.output}: difference {r.difference:.2e}, allowed {r.allowed:.2e}" for r in wrong)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("k1-154-reg4-mask-both-knn2", {"masking": True, "mask_references": True, "rotation": False, "neighbours": 2}),
        ("k2-126-rotation", {}),
    ],
)
def test_a_detector_gives_the_authors_scores_and_maps(name: str, config: dict[str, Any]) -> None:
    """From files to maps of the pictures' own size, through the score loop."""
    case = Case(DATA / "anomalydino" / name)
    method = AnomalyDINO(case.dinov2, AnomalyDinoConfig(size=case.data["params"]["resolution"], **config))
    folder = DATA / "images"
    detector = Detector(TorchEngine(method)).with_references([folder / n for n in case.data["reference_files"]])
    detections = detector([folder / n for n in case.data["image_files"]])
    expected = case.expected
    np.testing.assert_allclose([d.score for d in detections], expected["image_score"], rtol=1e-4, atol=1e-5)
    for number, detection in enumerate(detections):
        if f"anomaly_map.{number}" in expected:
            np.testing.assert_allclose(detection.anomaly_map, expected[f"anomaly_map.{number}"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["train-70-last", "train-98-layers4"])
def test_the_loop_trains_as_the_authors_do(name: str) -> None:
    case = Case(DATA / "anomalyclip" / name)
    d = case.data
    masks = [None if file is None else case.open(file) for file in d["mask_files"]]
    samples = [Sample(i, m, label) for i, m, label in zip(case.images, masks, d["labels"], strict=True)]
    method = anomalyclip.make_method(case)
    history = train(
        method, samples, steps=d["steps"], batch_size=len(samples), lr=d["lr"], betas=tuple(d["betas"]), seed=1
    )
    np.testing.assert_allclose([r["total"] for r in history], case.expected["total_loss"], rtol=1e-4, atol=5e-5)
    np.testing.assert_allclose(
        method.context.detach().numpy(),
        np.stack([case.expected[f"params_after/ctx_{row}"][-1, 0, 0] for row in ("pos", "neg")]),
        rtol=0,
        atol=1e-4,
    )


def test_representatives_are_of_the_activation_that_a_case_names() -> None:
    case = Case(DATA / "clip-ad-rvs" / "tiny-clip-text")
    checkpoint = clip_ad_rvs.outputs(case)
    own = case.backbone.towers.config.text_config.hidden_act
    case.data["activation"] = "gelu" if own == "quick_gelu" else "quick_gelu"
    other = clip_ad_rvs.outputs(case)
    for state in ("normal", "abnormal"):
        name = f"class_embeddings.f32.{state}"
        assert not np.allclose(other[name], checkpoint[name], atol=1e-4)
