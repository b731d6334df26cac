"""The benchmark of few-shot methods on drawn sets, and the parts of the search that chose the default one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image


@pytest.fixture
def plates(tmp_path: Path) -> Path:
    """Nine good plates and three with a hole."""
    rng = np.random.default_rng(0)
    for number in range(12):
        pixels = rng.integers(100, 140, (90, 90, 3)).astype(np.uint8)
        if number >= 9:
            pixels[20:60, 20:60] = 255
        folder = tmp_path / "plate" / "test" / ("good" if number < 9 else "hole")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
    return tmp_path


def test_rows_of_the_benchmark(plates: Path) -> None:
    import few_shot

    pools = few_shot.good_pools(plates, 0)
    (row,) = few_shot.measure("joint", pools, [4], 1, 0.05)
    assert (row["set"], row["good"], row["pictures"]) == ("plate", 4, 12)
    assert row["auroc"] == 1
    assert row["promise"] == pytest.approx(1 / 5)
    assert row["false_alarms"] in {n / 5 for n in range(6)}
    assert row["references"] == "set aside from test/good"
    assert f"| `joint` | 4 | 1.000 | 1.000 | {int(row['kept'])} of 1 |" in few_shot.summary([row])


def test_the_interval_of_a_rate() -> None:
    import few_shot

    assert few_shot.interval(0, 10) == pytest.approx((0.0, 0.3085), abs=1e-4)
    assert few_shot.interval(5, 100) == pytest.approx((0.0164, 0.1128), abs=1e-4)


def test_draws_of_the_search_keep_groups_apart() -> None:
    import few_shot_search as search

    labels = np.array([0] * 12 + [1] * 4)
    groups = tuple(str(number // 2) for number in range(16))
    tokens = torch.randn(16, 4, 3, generator=torch.Generator().manual_seed(0))
    product = search.Product(labels, groups, {7: tokens.half()}, torch.zeros(16, 4), torch.zeros(16))
    references, test = product.draw(4, seed=1)
    own = {groups[product.pool[place]] for place in references}
    assert len(own) == len(references) == 4
    assert test == [number for number in range(16) if groups[number] not in own]
    design = search.Design((search.layer_mean(7),), top=1e-9)
    near = search.distances(design.patches[0](product), product.pool)
    found = design.scores(product, [near], references, test)
    units = torch.nn.functional.normalize(tokens, dim=2)
    rows = units[[product.pool[place] for place in references]].flatten(0, 1)
    expected = (1 - (units[test] @ rows.T).amax(2)).amax(1)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.02)
