"""The arithmetic that methods share: prompt ensembles, cosines, softmax, bilinear upsampling, Gaussian smoothing.

Everything here runs in float32 even under autocast: half-precision cosines divided by 0.07 lose the map's last digits.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from blemish.clip import Backbone, ImageBackbone
from blemish.errors import UsageError
from blemish.methods.registry import METHODS
from blemish.prompts import PromptSet

if TYPE_CHECKING:
    from blemish.methods.base import Method

#: Where Linux says whose processor it is.
_CPU_INFO = Path("/proc/cpuinfo")


def require_words(backbone: ImageBackbone, method: str) -> Backbone:
    """Return the backbone. Raises UsageError if it reads no words, which the method needs."""
    if isinstance(backbone, Backbone):
        return backbone
    others = [name for name, info in METHODS.items() if not info.needs_text]
    raise UsageError(
        f"{method} compares pictures with words, which the backbone {backbone.name} does not read: choose a method "
        f"that needs none ({', '.join(others)}) or a CLIP"
    )


def normalise(features: Tensor) -> Tensor:
    """Divide by the L2 norm along the last axis, without an epsilon, in float32."""
    features = features.float()
    unit: Tensor = features / torch.linalg.vector_norm(features, dim=-1, keepdim=True)
    return unit


def encode_sentences(method: Method, prompts: PromptSet, name: str) -> tuple[Tensor, Tensor]:
    """Encode the normal and the anomalous sentences about an object.

    Returns:
        (T0, E) and (T1, E) float32, each row of length 1, in the order of the prompts.
    """
    normal, anomalous = prompts.sentences(name)
    backbone = require_words(method.backbone, method.info.name)
    ids = backbone.tokenize([*normal, *anomalous]).to(method.device)
    units = normalise(backbone.encode_text(ids, activation=method.config.activation))
    return units[: len(normal)], units[len(normal) :]


def ensemble_texts(method: Method, prompts: PromptSet, object_names: Sequence[str]) -> Tensor:
    """Return the normalised mean of the unit vectors of each state's sentences: (C, 2, E) float32."""
    pairs = (encode_sentences(method, prompts, name) for name in object_names)
    return normalise(torch.stack([torch.stack([units.mean(dim=0) for units in pair]) for pair in pairs]))


def cosine_logits(features: Tensor, text: Tensor, temperature: float) -> Tensor:
    """Return the cosine with each of the two texts, divided by the temperature.

    Args:
        features: (B, N, E) patches or (B, E) images, not normalised.
        text: (2, E) for all images or (B, 2, E), normalised; row 0 is normal, row 1 anomalous.
        temperature: Greater than 0.

    Returns:
        (B, N, 2) or (B, 2), float32.
    """
    single = features.dim() == 2
    with torch.autocast(features.device.type, enabled=False):
        rows = (features.unsqueeze(1) if single else features).float()
        # The product comes before the division, which then runs over two numbers for each patch and not over E.
        logits: Tensor = rows @ text.float().mT / (torch.linalg.vector_norm(rows, dim=-1, keepdim=True) * temperature)
    return logits.squeeze(1) if single else logits


def nearest_distance(features: Tensor, rows: Tensor) -> Tensor:
    """Return the cosine distance to the nearest row of a memory bank: the minimum of 1 - cos, not below 0.

    Args:
        features: (B, N, D), not normalised.
        rows: (R, D), not normalised; R is at least 1.

    Returns:
        (B, N) in [0, 2], float32.
    """
    with torch.autocast(features.device.type, enabled=False):
        cosine = normalise(features) @ normalise(rows).mT
    # Rounding can put the cosine of a row with itself above 1.
    return (1 - cosine.amax(dim=-1)).clamp_min(0)


def mean_of_largest(values: Tensor, fraction: float) -> Tensor:
    """Return the mean of the largest values of each row: (B, n) -> (B,); of at least one value."""
    return values.topk(max(1, int(fraction * values.shape[1])), dim=1).values.mean(1)


def anomalous_probability(logits: Tensor) -> Tensor:
    """Return the anomalous entry of the softmax over (normal, anomalous): (..., 2) -> (...) float32 in [0, 1]."""
    return logits.float().softmax(dim=-1)[..., 1]


def as_grid(patches: Tensor, grid: tuple[int, int]) -> Tensor:
    """Reshape patch values (B, N), row by row, to (B, rows, columns)."""
    return patches.reshape(patches.shape[0], *grid)


def resize(anomaly_map: Tensor, height: int, width: int) -> Tensor:
    """Resize a map (H, W) to (height, width), bilinear, with pixel centres aligned."""
    if anomaly_map.shape == (height, width):
        return anomaly_map.clone()
    resized = F.interpolate(anomaly_map[None, None], (height, width), mode="bilinear", align_corners=False)
    return resized[0, 0]


def upsample(maps: Tensor, size: int, *, align_corners: bool = False) -> Tensor:
    """Upsample bilinearly: (B, h, w) -> (B, size, size) float32."""
    return F.interpolate(maps.float().unsqueeze(1), (size, size), mode="bilinear", align_corners=align_corners)[:, 0]


def probability_map(logits: Tensor, grid: tuple[int, int], size: int) -> Tensor:
    """Return the anomalous probability of every pixel: upsampling with aligned corners comes before the softmax.

    Args:
        logits: (B, N, 2) of the patches, row by row.
        grid: Rows and columns of patches.
        size: Side of the map in pixels.

    Returns:
        (B, size, size) in [0, 1], float32.
    """
    # With two classes the softmax is the sigmoid of the difference, and upsampling is linear.
    difference = logits[..., 1].float() - logits[..., 0].float()
    return upsample(as_grid(difference, grid), size, align_corners=True).sigmoid_()


def min_max(values: Tensor) -> Tensor:
    """Stretch the values of a set to [0, 1]; nan where all are equal."""
    low, high = values.aminmax()
    return (values - low) / (high - low)


def smooth(maps: Tensor, sigma: float) -> Tensor:
    """Smooth as `scipy.ndimage.gaussian_filter(map, sigma)` does: (B, H, W) -> (B, H, W) float32.

    Borders are reflected (d c b a | a b c d | d c b a) and the kernel ends at 4 sigma. A sigma of 0 changes nothing.
    """
    maps = maps.float()
    if sigma == 0:
        return maps
    height, width = maps.shape[-2:]
    rows, columns = _gaussian(height, float(sigma), maps.device), _gaussian(width, float(sigma), maps.device)
    with torch.autocast(maps.device.type, enabled=False):
        return rows @ maps @ columns.mT


def upsample_smoothly(maps: Tensor, size: int, sigma: float) -> Tensor:
    """Return `smooth(upsample(maps, size), sigma)`: (B, h, w) -> (B, size, size) float32.

    Both steps are linear and act on each axis separately, so one narrow matrix per axis does both.
    """
    if sigma == 0:
        return upsample(maps, size)
    height, width = maps.shape[-2:]
    rows, columns = (_upsample_and_smooth_matrix(length, size, float(sigma), maps.device) for length in (height, width))
    with torch.autocast(maps.device.type, enabled=False):
        return rows @ maps.float() @ columns.mT


def enlarge_smoothly(maps: Tensor, height: int, width: int, sigma: float) -> Tensor:
    """Enlarge maps (..., h, w) bilinearly to (..., height, width) and smooth them there as SciPy's Gaussian filter."""
    rows, columns = (
        _enlarge_and_smooth_matrix(length, size, sigma)
        for length, size in zip(maps.shape[-2:], (height, width), strict=True)
    )
    enlarged: Tensor = rows @ maps @ columns.T
    return enlarged


@lru_cache(maxsize=32)
def _enlarge_and_smooth_matrix(length: int, size: int, sigma: float) -> Tensor:
    """Return the matrix (size, length) of one axis of `enlarge_smoothly`."""
    from scipy.ndimage import gaussian_filter1d  # only here: SciPy takes a while to import

    enlarged = bilinear_matrix(length, size, False, torch.device("cpu")).double().numpy()
    return torch.from_numpy(gaussian_filter1d(enlarged, sigma, axis=0) if sigma else enlarged).float()


@lru_cache(maxsize=32)
def bilinear_matrix(length: int, size: int, align_corners: bool, device: torch.device) -> Tensor:
    """Return bilinear upsampling of one axis as a matrix U (size, length): `upsample` is U_rows g U_columns^T."""
    unit = torch.eye(length, device=device).unsqueeze(0)
    with torch.no_grad():
        return F.interpolate(unit, size, mode="linear", align_corners=align_corners)[0].T.contiguous()


@lru_cache(maxsize=32)
def _upsample_and_smooth_matrix(length: int, size: int, sigma: float, device: torch.device) -> Tensor:
    """Return the matrix (size, length) that upsamples one axis and smooths it."""
    # The bilinear weights are those of `upsample`, which are float32.
    bilinear = F.interpolate(torch.eye(length).unsqueeze(0), size, mode="linear", align_corners=False)[0].T
    return (torch.from_numpy(gaussian_matrix(size, sigma)) @ bilinear.double()).float().to(device)


@lru_cache(maxsize=32)
def _gaussian(size: int, sigma: float, device: torch.device) -> Tensor:
    return torch.from_numpy(gaussian_matrix(size, sigma).astype(np.float32)).to(device)


def gaussian_matrix(size: int, sigma: float) -> NDArray[np.float64]:
    """Return the smoothing of one axis as a matrix (size, size) whose rows sum to 1.

    Unlike a convolution, the matrix needs no care where the kernel is longer than the map: the reflection is folded in
    as often as needed.
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


def has_bfloat16_units(device: torch.device) -> bool:
    """Return whether it computes bfloat16 faster than float32.

    Tensor cores (Ampere and later) and AMX do, and so does AVX512_BF16 on processors of AMD. On those of Intel
    AVX512_BF16 alone is slower than float32: `clip` takes 1.55 times as long.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and (_has_unit("amx_tile") or (_has_unit("avx512_bf16") and _is_by_amd()))


def _has_unit(name: str) -> bool:
    """Return whether PyTorch finds a unit in the processor."""
    check = getattr(torch.cpu, f"_is_{name}_supported", None)
    return check is not None and bool(check())


@lru_cache(maxsize=1)
def _is_by_amd() -> bool:
    """Return whether the processor is AMD's; not known of systems without /proc."""
    try:
        text = _CPU_INFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return re.search(r"^vendor_id\s*:\s*AuthenticAMD\s*$", text, re.MULTILINE) is not None
