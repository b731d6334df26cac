"""Exact nearest neighbours in a memory bank, block by block, and coresets that make a bank smaller.

The search compares everything with everything in float32; nothing is approximate. Blocks of rows bound the memory that
it takes and keep the products in the processor's cache.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from blemish.errors import UsageError

#: Products of queries and rows that are held at once: 8 MB fit into a processor's cache; a GPU needs larger blocks.
_PRODUCTS, _PRODUCTS_ON_GPU = 1 << 21, 1 << 27
#: Queries that are compared at once.
_QUERIES = 1024
#: Rows whose distances `coreset` keeps up to date while it chooses.
_POOL = 1024


class Neighbours(NamedTuple):
    """The nearest rows of each query, the nearest first."""

    squared: Tensor
    """Squared L2 distances (..., k), float32, at least 0."""
    row: Tensor
    """Numbers of the rows (..., k), int64."""


def nearest(queries: Tensor, rows: Tensor, k: int = 1) -> Neighbours:
    """Find the k rows with the smallest L2 distance to each query.

    The rows are found by |b|^2 / 2 - a . b; the distances of those found are then computed from the differences, so
    that cancellation does not blur small ones: a query that is itself a row has the distance 0.

    Args:
        queries: (..., D).
        rows: (R, D), at least k.
        k: Number of neighbours, at least 1.

    Raises:
        UsageError: There are fewer than k rows.
    """
    if not 1 <= k <= len(rows):
        raise UsageError(f"{k} nearest neighbours were asked for, and the memory bank has {len(rows):,} rows")
    shape = queries.shape[:-1]
    with torch.autocast(queries.device.type, enabled=False):
        own, rows = queries.reshape(-1, queries.shape[-1]).float(), rows.float()
        bias = rows.square().sum(1).mul_(-0.5)
        parts = [_search(part, rows, bias, k) for part in torch.split(own, _QUERIES)]
        squared, index = (torch.cat(values) for values in zip(*parts, strict=True))
    return Neighbours(squared.reshape(*shape, k), index.reshape(*shape, k))


def _search(queries: Tensor, rows: Tensor, bias: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return squared distances and numbers (Q, k) of the rows with the largest a . b - |b|^2 / 2."""
    products = _PRODUCTS if queries.device.type == "cpu" else _PRODUCTS_ON_GPU
    block = max(k, products // max(len(queries), 1))
    best = index = None
    for start in range(0, len(rows), block):
        likeness = functional.linear(queries, rows[start : start + block], bias[start : start + block])
        few = min(k, likeness.shape[1])
        # The maximum alone is faster than a selection of one.
        nearby, numbers = likeness.max(dim=1, keepdim=True) if few == 1 else likeness.topk(few, dim=1)
        numbers += start
        if best is not None and index is not None:
            nearby, numbers = torch.cat([best, nearby], dim=1), torch.cat([index, numbers], dim=1)
            nearby, chosen = nearby.topk(min(k, nearby.shape[1]), dim=1)
            numbers = numbers.gather(1, chosen)
        best, index = nearby, numbers
    assert index is not None
    squared = torch.cat([(queries - rows[column]).square().sum(1, keepdim=True) for column in index.unbind(1)], dim=1)
    squared, order = squared.sort(dim=1, stable=True)
    return squared, index.gather(1, order)


def coreset(rows: Tensor, size: int, *, seed: int = 0) -> Tensor:
    """Choose rows that stand for all: greedy k-center selection, as in PatchCore (Roth et al., CVPR 2022, Algorithm 1).

    The first row is drawn, and each next one is the row that is farthest from those chosen so far. The same rows are
    chosen as if all distances were updated after each choice. Distances only shrink, so it is enough to keep those of
    the farthest rows up to date until one of the others may be farther. Unlike PatchCore's code nothing is projected
    to fewer dimensions.

    Args:
        rows: (R, D).
        size: Number of rows to choose, at least 1.
        seed: Seed of the first choice.

    Returns:
        Numbers of the chosen rows (min(size, R),) int64, ascending.

    Raises:
        UsageError: `size` is below 1.
    """
    if size < 1:
        raise UsageError(f"a coreset has at least one row, not {size}")
    if size >= len(rows):
        return torch.arange(len(rows), device=rows.device)
    rows = rows.float()
    first = int(torch.randint(len(rows), (1,), generator=torch.Generator().manual_seed(seed)))
    chosen, known = [first], 0
    distance = torch.full((len(rows),), torch.inf, device=rows.device)  # to the first `known` chosen rows, squared
    while len(chosen) < size:
        distance = _shrink(distance, rows, rows[chosen[known:]])
        distance[chosen] = -1
        known = len(chosen)
        bounds, pool = distance.topk(min(_POOL + 1, len(rows)))
        outside = float(bounds[-1]) if len(pool) > _POOL else -1.0
        pool = pool[:_POOL]
        near, there = bounds[:_POOL].clone(), rows[pool]
        while len(chosen) < size:
            best = int(near.argmax())
            if near[best] < outside:
                break
            chosen.append(int(pool[best]))
            near = torch.minimum(near, (there - there[best]).square_().sum(1))
            near[best] = -1
    return torch.tensor(sorted(chosen), device=rows.device)


def _shrink(distance: Tensor, rows: Tensor, centres: Tensor) -> Tensor:
    """Return the smaller of the distances known (R,) and the squared ones to the nearest of these centres (C, D)."""
    parts = torch.split(rows, _QUERIES)
    return torch.minimum(distance, torch.cat([nearest(part, centres).squared[:, 0] for part in parts]))
