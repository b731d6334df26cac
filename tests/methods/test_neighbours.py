"""The search against all distances computed at once, and the coreset against the plain greedy selection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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


@pytest.mark.parametrize("k", [1, 3])
def test_a_traced_graph_finds_the_same(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    queries, rows = random(2, 25, 8), 3 + random(300, 8, seed=1)
    expected = nearest(queries, rows, k)
    monkeypatch.setattr(neighbours, "_TRACED_ROWS", 64)  # the last of five blocks is smaller

    class Search(torch.nn.Module):
        def forward(self, queries: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return nearest(queries, rows, k)

    batch = {"queries": {0: torch.export.Dim("batch")}}
    traced = torch.export.export(Search(), (random(3, 25, 8),), dynamic_shapes=batch, strict=False).module()
    squared, row = traced(queries)
    torch.testing.assert_close(squared, expected.squared, rtol=1e-6, atol=0)
    assert torch.equal(row, expected.row)


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


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.nn.functional.normalize(random(*shape, seed=seed), dim=-1)


def far_apart() -> tuple[torch.Tensor, torch.Tensor]:
    return unit(200, 48), unit(2003, 48, seed=1)


def closer_than_bfloat16_tells() -> tuple[torch.Tensor, torch.Tensor]:
    """Twenty rows about each query, whose distances differ by less than the rounding of their coordinates."""
    queries = unit(150, 48)
    offsets = unit(20, 150, 48, seed=1) * (0.02 + 1e-4 * torch.arange(20)[:, None, None])
    return queries, (queries + offsets).flatten(0, 1)


def in_groups_of_equals() -> tuple[torch.Tensor, torch.Tensor]:
    return unit(200, 48), unit(300, 48, seed=1).repeat(5, 1)


def all_alike() -> tuple[torch.Tensor, torch.Tensor]:
    """More rows than are examined for a query are the same for bfloat16."""
    return 1 + 1e-3 * random(200, 48), 1 + 1e-3 * random(1500, 48, seed=1)


def with_zeros() -> tuple[torch.Tensor, torch.Tensor]:
    queries, rows = unit(200, 48), unit(1500, 48, seed=1)
    queries[::7], rows[::3] = 0, 0
    return queries, rows


def of_many_lengths() -> tuple[torch.Tensor, torch.Tensor]:
    lengths = 10 ** torch.linspace(-3, 6, 1500)
    return unit(200, 48) * lengths[:200, None], unit(1500, 48, seed=1) * lengths.flip(0)[:, None]


def far_from_the_origin() -> tuple[torch.Tensor, torch.Tensor]:
    return 3000 + random(200, 48), 3000 + random(1500, 48, seed=1)


@pytest.fixture
def screened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Take the way of processors with bfloat16 units; the numbers of queries that were searched anew in float32."""
    again: list[int] = []

    def search(queries: torch.Tensor, *others: Any) -> tuple[torch.Tensor, torch.Tensor]:
        again.append(len(queries))
        return plain(queries, *others)

    plain = neighbours._search
    monkeypatch.setattr(neighbours, "_search", search)
    monkeypatch.setattr(neighbours, "has_bfloat16_units", lambda device: True)
    return again


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize(
    ("make", "most_again"),
    [
        (far_apart, 0),
        (closer_than_bfloat16_tells, 0),
        (in_groups_of_equals, 0),
        (with_zeros, 200),
        (all_alike, 200),
        (of_many_lengths, 200),
        (far_from_the_origin, 200),
    ],
)
def test_bfloat16_first_finds_the_same(
    make: Callable[[], tuple[torch.Tensor, torch.Tensor]], most_again: int, k: int, screened: list[int]
) -> None:
    queries, rows = make()
    found = nearest(queries, rows, k)
    assert sum(screened) <= most_again
    assert make is not all_alike or sum(screened) == 200
    exact = (queries.double()[:, None] - rows.double()).square().sum(-1)
    expected = exact.topk(k, largest=False).values
    # What float32 alone confuses: the rounding of |b|^2 / 2 - a . b.
    blur = 0 if most_again == 0 else 1e-6 * (expected + rows.norm(dim=1)[found.row].double().square())
    assert bool(((exact.gather(1, found.row) - expected).abs() <= 1e-6 * expected + blur).all())
    torch.testing.assert_close(found.squared.double(), exact.gather(1, found.row), rtol=1e-5, atol=0)
    assert all(len(set(row)) == k for row in found.row.tolist())


def test_bfloat16_first_in_blocks_and_with_odd_numbers(screened: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    queries, rows = far_apart()
    whole = nearest(queries, rows, 3)
    monkeypatch.setattr(neighbours, "_SCREENED_PRODUCTS", 1)
    monkeypatch.setattr(neighbours, "_QUERIES", 130)
    for found in (nearest(queries, rows, 3), nearest(queries.reshape(2, 100, 48), rows, 3)):
        assert torch.equal(found.squared.reshape(200, 3), whole.squared)
        assert torch.equal(found.row.reshape(200, 3), whole.row)
    assert torch.equal(nearest(rows, rows).squared, torch.zeros(2003, 1))
    assert nearest(rows, rows).row[:, 0].tolist() == list(range(2003))
    queries[5] = torch.nan
    assert bool(nearest(queries, rows).squared[5].isnan())
    assert torch.equal(nearest(queries, rows).squared[6:, 0], whole.squared[6:, 0])


def test_the_coarse_rows_of_a_memory_bank_are_kept(screened: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    make, made = neighbours._coarse_rows, []

    def counted(rows: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        made.append(len(rows))
        return make(rows, length)

    monkeypatch.setattr(neighbours, "_coarse_rows", counted)
    queries, rows = far_apart()
    alone = nearest(queries, rows)
    assert len(made) == 1
    with torch.inference_mode():
        for _ in range(3):
            assert torch.equal(nearest(queries, rows).squared, alone.squared)
        assert len(made) == 2
        assert torch.equal(nearest(queries, rows.clone()).squared, alone.squared)
        assert len(made) == 3
    rows[alone.row[0, 0]] = queries[0]
    with torch.inference_mode():
        assert float(nearest(queries, rows).squared[0, 0]) == 0
    assert neighbours._latest is not None
    del rows
    assert neighbours._latest is None


@pytest.mark.parametrize("make", [far_apart, closer_than_bfloat16_tells, with_zeros, of_many_lengths])
def test_bound_of_the_rounding(make: Callable[[], tuple[torch.Tensor, torch.Tensor]]) -> None:
    queries, rows = make()
    length, lengths = queries.norm(dim=1), rows.norm(dim=1)
    coarse = neighbours._coarse_rows(rows, lengths)
    product = (coarse @ neighbours._coarse_queries(queries, length).T)[: len(rows)].double()
    exact = (queries.double() - rows.double()[:, None]).square().sum(-1) / -2
    slack = neighbours._slack(length, lengths.amax(), 48).double()
    assert bool(((product - exact).abs() <= slack + 2**-8 * (exact.abs() + slack)).all())


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
