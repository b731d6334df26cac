"""Every stored case of the authors' own code, through blemish's public classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import run
from adapters import anomalyclip, clip_ad_rvs
from cases import Case

from blemish.training import Sample, train

DATA = Path(__file__).resolve().parent.parent / "data" / "parity"
CASES = run.find(DATA)


def test_there_are_cases() -> None:
    assert CASES


@pytest.mark.parametrize("folder", CASES, ids=[str(path.relative_to(DATA)) for path in CASES])
def test_case(folder: Path) -> None:
    wrong = [row for row in run.check(folder) if not row.ok]
    assert not wrong, "\n".join(f"{r.output}: difference {r.difference:.2e}, allowed {r.allowed:.2e}" for r in wrong)


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
