"""Representative vector selection (CLIP-AD): many sentence embeddings, one vector that stands for them.

Every function takes unit vectors as the rows of an array (n, E) and gives a vector (E,) of any length. Means are taken
in float32 like the code's: the float16 that they are rounded to shows their last digits.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist
from torch import Tensor

from blemish.methods.base import Method
from blemish.methods.configs import Config, require
from blemish.methods.ensemble import sentence_units
from blemish.prompts import PromptSet

Selection: TypeAlias = Literal["mean", "pca", "kde", "dbscan", "mean-shift"]
Array: TypeAlias = NDArray[np.floating]

#: Width of the Gaussian kernel in the paper's density estimate.
BANDWIDTH = 0.3


@dataclass(frozen=True, kw_only=True)
class RepresentativeConfig(Config):
    """The text side that all of CLIP-AD shares; the defaults are its scripts'."""

    rep_vec: Selection = "dbscan"
    """How the vector is selected that stands for all sentences of a state."""
    dbscan_eps: float = 0.5
    """Neighbours are at most this far apart. The code takes 0.5 for every data set but VisA, and 1.5 for VisA, which
    joins nearly all sentences."""
    dbscan_min_samples: int = 15
    """A cluster's core has at least this many neighbours, itself included. 15 in the code, 25 for VisA."""
    half_text: bool = True
    """Round the vector to float16, as the code does for every selection but the mean."""

    def check(self) -> None:
        super().check()
        require(self.dbscan_eps > 0, f"dbscan_eps has to be greater than 0, not {self.dbscan_eps}")
        require(self.dbscan_min_samples >= 1, f"dbscan_min_samples has to be at least 1, not {self.dbscan_min_samples}")


#: What it adds to other configs.
_OWN = frozenset(RepresentativeConfig.__annotations__)


class RepresentativeTexts(Method):
    """The text side that all of CLIP-AD shares, for a config that is a `RepresentativeConfig`."""

    PROMPTS: ClassVar[PromptSet]

    @property
    def text_key(self) -> Hashable:
        chosen = (getattr(self.config, field.name) for field in fields(RepresentativeConfig) if field.name in _OWN)
        return self.PROMPTS, self.config.activation, *chosen

    def text_features(self, object_names: Sequence[str]) -> Tensor:
        """The representative of each state's sentences, normalised: (C, 2, E), float32, without gradient."""
        with torch.no_grad():
            pairs = [[u.cpu().numpy() for u in sentence_units(self, self.PROMPTS, name)] for name in object_names]
        vectors = [[represent(units, self.config) for units in pair] for pair in pairs]
        shape = (len(object_names), 2, self.backbone.embed_dim)
        return torch.from_numpy(np.array(vectors, np.float32).reshape(shape)).to(self.device)


def represent(units: Array, config: RepresentativeConfig) -> NDArray[np.float32]:
    """The unit vector (E,) that the config selects for (n, E) unit vectors."""
    vector = select(units, config)
    if config.rep_vec == "mean" or not config.half_text:
        return (vector / np.linalg.norm(vector)).astype(np.float32)
    # the code's dtypes: half vector, norm summed in float32 and rounded to half, quotient rounded to half
    half = vector.astype(np.float16).astype(np.float32)
    norm = np.linalg.norm(half).astype(np.float16).astype(np.float32)
    return (half / norm).astype(np.float16).astype(np.float32)


def select(units: Array, config: RepresentativeConfig) -> Array:
    """The vector before rounding and normalisation."""
    selections: dict[str, Callable[[Array], Array]] = {
        "mean": mean,
        "pca": pca,
        "kde": kde,
        "dbscan": lambda e: dbscan(e, config.dbscan_eps, config.dbscan_min_samples),
        "mean-shift": mean_shift,
    }
    return selections[config.rep_vec](units)


def mean(rows: Array) -> Array:
    """The plain mean."""
    out: Array = rows.mean(axis=0)
    return out


def pca(rows: Array) -> Array:
    """The first principal component of the E entries as samples and the n sentences as variables.

    Not a direction in the space of the embeddings but a weighted sum of them, each freed of the mean of its entries;
    the sign is the one that points along the mean.
    """
    exact = rows.astype(np.float64)
    centred = exact.T - exact.mean(axis=1)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    vector: Array = centred @ vectors[:, -1]
    return vector if vector @ mean(rows) >= 0 else -vector


def kernel_sums(rows: Array, bandwidth: float = BANDWIDTH) -> Array:
    """The sum of the Gaussian kernels around all rows at each row, itself included: (n,), a density up to a factor."""
    out: Array = np.exp(-cdist(rows, rows, "sqeuclidean") / (2 * bandwidth**2)).sum(axis=1)
    return out


def kde(rows: Array) -> Array:
    """The mean weighted by the density of the rows at each row."""
    weights = kernel_sums(rows)
    out: Array = weights @ rows / weights.sum()
    return out


def dbscan(rows: Array, eps: float, min_samples: int) -> Array:
    """The mean of the largest cluster; of several equal ones the first.

    Where there is no cluster at all (the code fails there) it is the mean of all rows.
    """
    labels = clusters(rows, eps, min_samples)
    sizes = np.bincount(labels[labels >= 0])
    return mean(rows[labels == sizes.argmax()] if len(sizes) else rows)


def clusters(rows: Array, eps: float, min_samples: int) -> NDArray[np.int64]:
    """DBSCAN: the cluster of each row, numbered from 0 by their first core row, -1 where there is none.

    Core rows have at least `min_samples` rows, themselves included, within `eps`; core rows within `eps` of each other
    are of one cluster. Other rows join the first cluster with a core row within `eps`.
    """
    near = cdist(rows, rows) <= eps
    core = near.sum(axis=1) >= min_samples
    found = np.full(len(rows), -1)
    if not core.any():
        return found
    _, component = connected_components(near[np.ix_(core, core)], directed=False)
    _, first = np.unique(component, return_index=True)
    number = first.argsort().argsort()[component]  # numbered by where they begin
    beyond = len(rows)
    reached = np.where(near[:, core], number, beyond).min(axis=1)
    found = np.where(reached == beyond, -1, reached)
    found[core] = number
    return found


def mean_shift(rows: Array) -> Array:
    """Mean shift with a flat kernel of bandwidth 2, as in the code.

    No two unit vectors are further apart than 2: every window holds all rows, and the one cluster's centre is the mean.
    """
    return mean(rows)
