"""Exact nearest neighbours in a memory bank, block by block, and coresets that make a bank smaller.

The search is that of float32; nothing is approximate. Blocks of rows bound the memory that it takes and keep the
products in the processor's cache. On a processor with bfloat16 units, products in bfloat16 first rule out the rows that
cannot be among the nearest, by a bound on their rounding error.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from blemish.errors import UsageError
from blemish.methods.ops import has_bfloat16_units

#: Products of queries and rows that are held at once: 8 MB fit into a processor's cache; a GPU needs larger blocks.
_PRODUCTS, _PRODUCTS_ON_GPU = 1 << 21, 1 << 27
#: Queries that are compared at once.
_QUERIES = 1024
#: Rows that a traced graph compares at once with all queries, whose number it does not know.
_TRACED_ROWS = 4096
#: The same in bfloat16: 2 MB, which the maxima are taken of at once.
_SCREENED_PRODUCTS = 1 << 20
#: From so many queries and rows, and up to so many neighbours, products in bfloat16 first are worth their while.
_SCREENED_QUERIES, _SCREENED_ROWS, _SCREENED_K = 128, 1024, 8
#: Rows that are ruled out as one, and the groups or rows that may be left for a query; with more it is searched anew.
_GROUP, _LEFT = 16, 48
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
    that cancellation does not blur small ones: a query that is itself a row has the distance 0. In a traced graph all
    queries are compared with fixed blocks of rows in float32.

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
        if torch.compiler.is_compiling():
            squared, index = _search(own, rows, _bias(rows), k, max(k, _TRACED_ROWS))
            return Neighbours(squared.reshape(*shape, k), index.reshape(*shape, k))
        parts = torch.split(own, _QUERIES)
        if _screens(own, rows, k):
            coarse, longest = _screen(rows)
            results = [_screened_search(part, rows, coarse, longest, k) for part in parts]
        else:
            bias = _bias(rows)
            results = [_search(part, rows, bias, k, _block(part, k)) for part in parts]
        squared, index = (torch.cat(values) for values in zip(*results, strict=True))
    return Neighbours(squared.reshape(*shape, k), index.reshape(*shape, k))


def _bias(rows: Tensor) -> Tensor:
    """Return -|b|^2 / 2 of each row (R,)."""
    return rows.square().sum(1).mul_(-0.5)


def _block(queries: Tensor, k: int) -> int:
    """Return how many rows are compared at once with so many queries, at least k."""
    products = _PRODUCTS if queries.device.type == "cpu" else _PRODUCTS_ON_GPU
    return max(k, products // max(len(queries), 1))


def _search(queries: Tensor, rows: Tensor, bias: Tensor, k: int, block: int) -> tuple[Tensor, Tensor]:
    """Return squared distances and numbers (Q, k) of the rows with the largest a . b - |b|^2 / 2.

    `block` rows are compared at once.
    """
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
    if k == 1:
        return squared, index
    # ONNX has no stable sort.
    is_traced = torch.compiler.is_compiling()
    squared, order = squared.topk(k, largest=False) if is_traced else squared.sort(dim=1, stable=True)
    return squared, index.gather(1, order)


def _screens(queries: Tensor, rows: Tensor, k: int) -> bool:
    """Return whether products in bfloat16 first are faster than float32 alone."""
    enough = len(queries) >= _SCREENED_QUERIES and len(rows) >= _SCREENED_ROWS and k <= _SCREENED_K
    return enough and queries.device.type == "cpu" and has_bfloat16_units(queries.device)


@dataclass(frozen=True)
class _Latest:
    """What `_screen` returned for the rows of the latest search."""

    rows: weakref.ref[Tensor]
    version: int
    screen: tuple[Tensor, Tensor]


_latest: _Latest | None = None


def _screen(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return `_coarse_rows` and the largest length of a row.

    Those of the latest rows are kept while the rows are, since a memory bank is searched for each batch.
    """
    global _latest
    keep = torch.is_inference_mode_enabled()  # what is made there cannot be used where gradients are computed
    version = 0 if rows.is_inference() else rows._version
    latest = _latest
    if keep and latest is not None and latest.rows() is rows and latest.version == version:
        return latest.screen
    length = torch.linalg.vector_norm(rows, dim=1)
    screen = _coarse_rows(rows, length), length.amax()
    if keep:
        _latest = _Latest(weakref.ref(rows, _forget), version, screen)
    return screen


def _forget(_: object) -> None:
    global _latest
    _latest = None


def _coarse_rows(rows: Tensor, length: Tensor) -> Tensor:
    """Return (R', D + 4) bfloat16: `_coarse_queries` times it is -|a - b|^2 / 2.

    R' is a multiple of `_GROUP`; the added rows are infinitely far away.
    """
    coarse = torch.zeros(-(-len(rows) // _GROUP) * _GROUP, rows.shape[1] + 4, dtype=torch.bfloat16)
    coarse[len(rows) :, -4] = -torch.inf
    coarse[: len(rows), :-4], coarse[: len(rows), -2:] = rows, 1
    coarse[: len(rows), -4:-2] = _two_halves(length)
    return coarse


def _coarse_queries(queries: Tensor, length: Tensor) -> Tensor:
    """Return (Q, D + 4) bfloat16 for `_coarse_rows`."""
    return torch.cat([queries.bfloat16(), torch.ones(len(queries), 2).bfloat16(), _two_halves(length)], dim=1)


def _two_halves(length: Tensor) -> Tensor:
    """Return two bfloat16 numbers (N, 2) whose sum is -length^2 / 2 up to 2^-16 of it."""
    bias = length.square().mul_(-0.5)
    high = bias.bfloat16()
    return torch.stack([high, (bias - high.float()).bfloat16()], dim=1)


def _slack(length: Tensor, longest: Tensor, width: int) -> Tensor:
    """Return how much the product in bfloat16 differs from -|a - b|^2 / 2 at most, before it is rounded itself: (Q,).

    Rounding to bfloat16 changes a number by at most 2^-8 of it, so a . b by at most (2^-7 + 2^-16) |a| |b|. The second
    term bounds what is lost in `_two_halves`, in the lengths, and by summing up `width` + 4 products in float32.
    """
    return (2**-7 + 2**-16) * length * longest + (width + 512) * 2**-24 * (length + longest).square()


def _screened_search(queries: Tensor, rows: Tensor, coarse: Tensor, longest: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return what `_search` returns: products in bfloat16 rule out nearly all rows, float32 decides between the rest.

    With h, the estimate of |a - b|^2 / 2, the k nearest rows are among those whose h is at most that of the k-th best
    and twice the `_slack`; 2^-7 more is for the rounding of both h to bfloat16.

    Args:
        queries: (Q, D).
        rows: (R, D).
        coarse: The rows as `_coarse_rows` returns them.
        longest: The largest length of a row, ().
        k: Number of neighbours.

    Returns:
        Squared distances and numbers (Q, k), the nearest first.
    """
    length = torch.linalg.vector_norm(queries, dim=1)
    slack = _slack(length, longest, queries.shape[1])
    coarse_queries = _coarse_queries(queries, length)
    block = max(_SCREENED_ROWS, _SCREENED_PRODUCTS // len(queries)) // _GROUP * _GROUP
    best = torch.empty(0, len(queries), dtype=torch.bfloat16)
    floor = torch.empty(0)
    left_over = torch.zeros(len(queries), dtype=torch.int64)
    candidates = []
    for start in range(0, len(coarse), block):
        likeness = functional.linear(coarse[start : start + block], coarse_queries).view(-1, _GROUP, len(queries))
        groups = likeness.amax(1)
        # The k best groups have k rows at floor as good as the last of them.
        best = torch.cat([best, groups])
        best = best.amax(0, keepdim=True) if k == 1 else best.topk(k, dim=0).values
        worst = best[-1].float()
        floor = worst - 2 * slack - (2**-7 + 2**-12) * (worst.abs() + 2 * slack)
        near = groups >= floor
        left_over += near.sum(0)
        near &= left_over <= _LEFT
        group, query = near.nonzero().unbind(1)
        values = likeness[group, :, query]
        hit, member = (values >= floor[query, None]).nonzero().unbind(1)
        candidates.append((query[hit], start + group[hit] * _GROUP + member, values[hit, member]))
    query, row, value = (torch.cat(parts) for parts in zip(*candidates, strict=True))
    kept = value >= floor[query]  # the bound has risen since the first blocks
    count = query[kept].bincount(minlength=len(queries))
    # Too many rows are alike, or numbers are not finite.
    crowded = (left_over > _LEFT) | (count > _LEFT) | (count < k)
    kept &= ~crowded[query]
    query, order = query[kept].sort(stable=True)
    row, count = row[kept][order], count.masked_fill(crowded, 0)
    place = torch.arange(len(query)) - (count.cumsum(0) - count)[query]
    squared = torch.full((len(queries), max(k, int(count.max()))), torch.inf)
    index = torch.zeros(squared.shape, dtype=torch.int64)
    # `index_select` is several times faster than an index here.
    differences = queries.index_select(0, query).sub_(rows.index_select(0, row))
    squared[query, place] = differences.square_().sum(1)
    index[query, place] = row
    squared, order = squared.sort(dim=1, stable=True)
    squared, index = squared[:, :k], index.gather(1, order[:, :k])
    if crowded.any():
        left = queries[crowded]
        squared[crowded], index[crowded] = _search(left, rows, _bias(rows), k, _block(left, k))
    return squared, index


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
