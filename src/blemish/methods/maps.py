"""The arithmetic between features and an anomaly map: cosines, softmax, bilinear upsampling, Gaussian smoothing.

Everything here runs in float32 even under autocast: half-precision cosines divided by 0.07 lose the map's last digits.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor


def normalise(features: Tensor) -> Tensor:
    """Divides by the L2 norm along the last axis, without an epsilon, in float32."""
    features = features.float()
    unit: Tensor = features / torch.linalg.vector_norm(features, dim=-1, keepdim=True)
    return unit


def cosine_logits(features: Tensor, text: Tensor, temperature: float) -> Tensor:
    """Cosine with each of the two texts, divided by the temperature.

    Args:
        features: (B, N, E) patches or (B, E) pictures, not normalised.
        text: (2, E) for all pictures or (B, 2, E), normalised; row 0 normal, row 1 anomalous.
        temperature: greater than 0.

    Returns:
        (B, N, 2) or (B, 2), float32.
    """
    single = features.dim() == 2
    with torch.autocast(features.device.type, enabled=False):
        rows = (features.unsqueeze(1) if single else features).float()
        # the product before the division: it is the features that are large
        logits: Tensor = rows @ text.float().mT / (torch.linalg.vector_norm(rows, dim=-1, keepdim=True) * temperature)
    return logits.squeeze(1) if single else logits


def nearest_distance(features: Tensor, rows: Tensor) -> Tensor:
    """Cosine distance to the nearest of the remembered rows: the least 1 - cos, not below 0.

    Args:
        features: (B, N, D), not normalised.
        rows: (R, D), not normalised, R at least 1.

    Returns:
        (B, N) in [0, 2], float32.
    """
    with torch.autocast(features.device.type, enabled=False):
        cosine = normalise(features) @ normalise(rows).mT
    # rounding can put the cosine of a row with itself above 1
    return (1 - cosine.amax(dim=-1)).clamp_min(0)


def anomalous_probability(logits: Tensor) -> Tensor:
    """Softmax over the last axis (normal, anomalous), anomalous entry: (..., 2) -> (...) in [0, 1], float32."""
    return logits.float().softmax(dim=-1)[..., 1]


def as_grid(patches: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, N) patch values, row-major, to (B, rows, columns)."""
    return patches.reshape(patches.shape[0], *grid)


def upsample(maps: Tensor, size: int, *, align_corners: bool = False) -> Tensor:
    """Bilinear upsampling (B, h, w) -> (B, size, size), float32, no antialias."""
    return F.interpolate(maps.float().unsqueeze(1), (size, size), mode="bilinear", align_corners=align_corners)[:, 0]


def probability_map(logits: Tensor, grid: tuple[int, int], size: int) -> Tensor:
    """The anomalous probability at every pixel: logits upsampled with aligned corners, and only then the softmax.

    Args:
        logits: (B, N, 2), of patches row by row.
        grid: (rows, columns) of patches.
        size: side in pixels.

    Returns:
        (B, size, size) in [0, 1], float32.
    """
    # of two classes the softmax is the sigmoid of the difference, and upsampling is linear
    difference = logits[..., 1].float() - logits[..., 0].float()
    return upsample(as_grid(difference, grid), size, align_corners=True).sigmoid_()


def min_max(values: Tensor) -> Tensor:
    """Values of a set, stretched so that the least is 0 and the greatest 1; nan where all are equal."""
    least, greatest = values.aminmax()
    return (values - least) / (greatest - least)


def smooth(maps: Tensor, sigma: float) -> Tensor:
    """Gaussian smoothing (B, H, W) -> (B, H, W), float32, equal to `scipy.ndimage.gaussian_filter(map, sigma)`.

    Same borders (reflect: d c b a | a b c d | d c b a) and same kernel (cut off after 4 sigma). sigma 0: no change.
    """
    maps = maps.float()
    if sigma == 0:
        return maps
    height, width = maps.shape[-2:]
    rows, columns = _gaussian(height, float(sigma), maps.device), _gaussian(width, float(sigma), maps.device)
    with torch.autocast(maps.device.type, enabled=False):
        return rows @ maps @ columns.mT


def upsample_smoothly(maps: Tensor, size: int, sigma: float) -> Tensor:
    """`smooth(upsample(maps, size), sigma)`: (B, h, w) -> (B, size, size), float32.

    Both act on each axis alone and are linear, so that one narrow matrix an axis does both.
    """
    if sigma == 0:
        return upsample(maps, size)
    height, width = maps.shape[-2:]
    rows, columns = (_enlarging(length, size, float(sigma), maps.device) for length in (height, width))
    with torch.autocast(maps.device.type, enabled=False):
        return rows @ maps.float() @ columns.mT


@lru_cache(maxsize=32)
def _enlarging(length: int, size: int, sigma: float, device: torch.device) -> Tensor:
    """(size, length): bilinear upsampling of one axis, then smoothing."""
    # in float32, as `upsample` has it: where between two patches a pixel lies is rounded too
    bilinear = F.interpolate(torch.eye(length).unsqueeze(0), size, mode="linear", align_corners=False)[0].T
    return (torch.from_numpy(gaussian_matrix(size, sigma)) @ bilinear.double()).float().to(device)


@lru_cache(maxsize=32)
def _gaussian(size: int, sigma: float, device: torch.device) -> Tensor:
    return torch.from_numpy(gaussian_matrix(size, sigma).astype(np.float32)).to(device)


def gaussian_matrix(size: int, sigma: float) -> NDArray[np.float64]:
    """The smoothing of one axis as a (size, size) matrix, rows summing to 1.

    A matrix product does in one step what a separable convolution does, also where the kernel is longer than the map:
    the reflection is then folded in as often as needed.
    """
    radius = int(4.0 * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    kernel /= kernel.sum()
    source = (np.arange(size)[:, None] + offsets) % (2 * size)
    source = np.where(source < size, source, 2 * size - 1 - source)
    matrix = np.zeros((size, size))
    np.add.at(matrix, (np.arange(size)[:, None], source), kernel)
    return matrix
