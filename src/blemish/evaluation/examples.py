"""The pictures that a reader should see: what a method gets most right, and most wrong.

Scores of different categories are not on one scale, so a picture is judged among its own category: by how many
pictures of the other label are on the wrong side of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from blemish.datasets.samples import Sample
from blemish.evaluation.record import SMALL, Record
from blemish.files import write_atomically

Kind: TypeAlias = Literal["found", "missed", "false alarm", "quiet"]
KINDS: tuple[Kind, ...] = get_args(Kind)
#: Pictures of each kind.
EACH = 4


def wrongness(labels: NDArray[np.int64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share of the other label that each picture of a category is on the wrong side of, (n,) in [0, 1].

    For an anomalous picture: the normal ones with a score at least as high. For a normal picture: the anomalous ones
    with a score at most as high. 0 where there is no other label.
    """
    normal, anomalous = np.sort(scores[labels == 0]), np.sort(scores[labels == 1])
    above = (normal.size - np.searchsorted(normal, scores, side="left")) / max(normal.size, 1)
    below = np.searchsorted(anomalous, scores, side="right") / max(anomalous.size, 1)
    return np.where(labels == 1, above, below)


def order(
    kind: Kind, labels: NDArray[np.int64], scores: NDArray[np.float64], wrong: NDArray[np.float64]
) -> NDArray[np.intp]:
    """The pictures of a kind, the most telling first; ties go by score, then by place."""
    high_first = kind in ("found", "false alarm")
    worst_first = kind in ("missed", "false alarm")
    ranked = np.lexsort((-scores if high_first else scores, -wrong if worst_first else wrong))
    wanted = 1 if kind in ("found", "missed") else 0
    kept: NDArray[np.intp] = ranked[labels[ranked] == wanted]
    return kept


def choose(labels: NDArray[np.int64], scores: NDArray[np.float64], each: int = EACH) -> dict[Kind, list[int]]:
    """The places of the most telling pictures of each kind in one category."""
    wrong = wrongness(labels, scores)
    return {kind: order(kind, labels, scores, wrong)[:each].tolist() for kind in KINDS}


def save(record: Record, name: str, category: str, samples: Sequence[Sample]) -> None:
    """Keep small maps of these pictures: (k, h, w) float16, the longer side at most `SMALL`. Raises OutputError."""
    if not samples:
        return
    small = []
    for sample in samples:
        values = torch.from_numpy(record.read_map(name, sample))
        side = min(SMALL, len(values))
        small.append(functional.adaptive_avg_pool2d(values[None, None], side)[0, 0].numpy().astype(np.float16))
    stacked = np.stack(small)
    path = record.examples_path(name, category)
    write_atomically(path, lambda stream: np.save(stream, stacked, allow_pickle=False))


def load(record: Record, name: str, category: str, identities: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """The small maps of a category's examples by picture; none where they are gone."""
    with contextlib.suppress(OSError, ValueError, EOFError):
        stacked = np.load(record.examples_path(name, category), allow_pickle=False)
        if len(stacked) == len(identities):
            return {identity: row.astype(np.float32) for identity, row in zip(identities, stacked, strict=True)}
    return {}
