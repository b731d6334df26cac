"""The search against all distances computed at once, and the coreset against the plain greedy selection."""

from __future__ import annotations

import pytest
import torch

from blemish.errors import UsageError
from blemish.methods import neighbours
from blemish.methods.neighbours import coreset, nearest


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("k", [1, 3, 40])
@pytest.mark.parametrize("products", [1, 700, 1 << 21])
def test_all_distances_at_once(k: int, products: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_PRODUCTS", products)
    monkeypatch.setattr(neighbours, "_QUERIES", 16)
    queries, rows = random(2, 25, 8), 3 + random(300, 8, seed=1)
    found = nearest(queries, rows, k)
    distances = torch.cdist(queries.double(), rows.double()).square()
    expected = distances.topk(k, largest=False)
    torch.testing.assert_close(found.squared.double(), expected.values, rtol=1e-6, atol=0)
    assert torch.equal(found.row, expected.indices)


def test_a_row_has_no_distance_to_itself() -> None:
    rows = 10 + random(50, 8)
    found = nearest(rows, rows)
    assert torch.equal(found.squared, torch.zeros(50, 1))
    assert found.row[:, 0].tolist() == list(range(50))


def test_more_rows_never_raise_a_mean_of_the_nearest() -> None:
    queries, rows = random(100, 16), random(400, 16, seed=1)
    few, many = (nearest(queries, part, 3).squared.mean(1) for part in (rows[:200], rows))
    assert bool((many <= few).all())
    assert bool((many < few).any())


def test_too_few_rows() -> None:
    with pytest.raises(UsageError, match="3 nearest neighbours were asked for, and the memory bank has 2 rows"):
        nearest(random(1, 4), random(2, 4), 3)


@pytest.mark.parametrize("pool", [5, 1024])
def test_coreset_is_the_greedy_selection(pool: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_POOL", pool)
    rows = random(300, 8)
    first = int(torch.randint(300, (1,), generator=torch.Generator().manual_seed(4)))
    chosen = [first]
    while len(chosen) < 60:
        distance = torch.cdist(rows.double(), rows[chosen].double()).amin(1)
        chosen.append(int(distance.argmax()))
    assert coreset(rows, 60, seed=4).tolist() == sorted(chosen)


def test_coreset_of_equal_rows_and_of_more_rows_than_there_are() -> None:
    assert len(set(coreset(torch.zeros(20, 3), 5).tolist())) == 5
    assert coreset(random(4, 3), 9).tolist() == [0, 1, 2, 3]
    with pytest.raises(UsageError, match="at least one row, not 0"):
        coreset(random(4, 3), 0)
