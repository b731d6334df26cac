"""What a method asks of an image's forward pass, and what it gets back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from blemish.errors import UsageError

Activation: TypeAlias = Literal["checkpoint", "quick_gelu", "gelu"]
PositionMode: TypeAlias = Literal[
    "dinov2-hub", "dinov2-transformers", "bicubic-offset", "bilinear", "bicubic", "bicubic-antialias"
]
"""How positional embeddings are resized to another grid than the checkpoint's (align_corners=False).

`bicubic-offset` is `bicubic` with a scale of (n + 0.1) / m for m positions that become n, as in Meta's code for DINOv2.
`dinov2-hub` and `dinov2-transformers` are what Meta's code and transformers do: `bicubic-offset` and `bicubic`, and
`bicubic-antialias` on a backbone with register tokens."""
Geometry: TypeAlias = Literal["squash", "squash-bilinear", "squash-torch", "squash-torch-crop", "keep-aspect"]
"""How a picture is resized to the input of side S.

* `squash`: to S x S whatever its aspect ratio, with Pillow's bicubic filter;
* `squash-bilinear`: the same with Pillow's bilinear filter (MuSc on DINOv2);
* `squash-torch`: the same with PyTorch's antialiased bicubic filter on 8 bits (SubspaceAD, transformers 5);
* `squash-torch-crop`: the same to int(S / 0.875), of which the middle S x S are kept;
* `keep-aspect`: the shorter side to S, the longer one to int(S * long / short), with Pillow's bicubic filter; then the
  right and the bottom are cropped to whole patches (AnomalyDINO)."""
Path: TypeAlias = Literal["residual", "middle", "value"]


@dataclass(frozen=True, order=True)
class Tap:
    """One stream of the vision tower, (B, 1 + N, D), raw: without the final layer norm and the projection.

    With x_l the stream after block l, a_l = softmax(Q K^T / sqrt(d)) V the attention output of block l, and
    v_l = softmax(V V^T / sqrt(d)) V its V-V attention output (same weights, from the original stream x_{l-1}; both
    head by head and through the output projection):

    * `residual` is x_l;
    * `middle` is x_l + a_{l+1}, and x_L at the last block L (CLIP-AD's dual path uses it beside `value`);
    * `value` is [x_{start-1}] + v_start + ... + v_l. AnomalyCLIP's DPAM is the seeded sum, which begins with
      x_{start-1}; the dual path of CLIP-AD is the unseeded one, which begins with zero at each stage's first block.

    Attributes:
        layer: Number of the block, from 1 as in the papers.
        path: Which of the three streams.
        start: First block whose V-V attention is added, 1 <= start <= layer; for `value` only.
        seeded: Whether the sum begins with the stream that enters block `start`; for `value` only.

    Raises:
        UsageError: A layer or start is below 1, a start is beyond the layer, or options of `value` are given for
            another path.
    """

    layer: int
    path: Path = "residual"
    start: int = 1
    seeded: bool = True

    def __post_init__(self) -> None:
        if self.path not in ("residual", "middle", "value"):
            raise UsageError(f"there is no path {self.path!r}: choose residual, middle or value")
        if self.layer < 1:
            raise UsageError(f"layers are counted from 1, not {self.layer}")
        if self.path != "value":
            if self.start != 1 or not self.seeded:
                raise UsageError(f"start and seeded belong to the value path, not to {self.path}")
        elif not 1 <= self.start <= self.layer:
            raise UsageError(
                f"a value tap at layer {self.layer} starts between 1 and {self.layer}, not at {self.start}"
            )


@dataclass(frozen=True)
class Request:
    """What one method needs of the image; `a | b` is what both need.

    Attributes:
        taps: Streams to return.
        class_token: Whether to return the class token after the last block.
        windows: Side lengths of square windows in patches, each at least 1 (WinCLIP).

    Raises:
        UsageError: A window is smaller than a patch.
    """

    taps: frozenset[Tap] = field(default_factory=frozenset)
    class_token: bool = True
    windows: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        # Callers may give any iterable; the stored values have the declared types.
        object.__setattr__(self, "taps", frozenset(self.taps))
        object.__setattr__(self, "windows", tuple(sorted(set(self.windows))))
        if any(side < 1 for side in self.windows):
            raise UsageError(f"a window is at least one patch wide, not {min(self.windows)}")

    def __or__(self, other: Request) -> Request:
        return Request(
            taps=self.taps | other.taps,
            class_token=self.class_token or other.class_token,
            windows=self.windows + other.windows,
        )


@dataclass(frozen=True)
class Computation:
    """How the image is computed. Methods share a pass only if these values agree.

    Attributes:
        size: Side of the square input in pixels; of a kept aspect ratio the shorter side before the crop.
        activation: The checkpoint's own activation (`checkpoint`), or its replacement; `gelu` is the exact one (erf).
        position: How positional embeddings are resized to another grid than the checkpoint's.
        geometry: How pictures are resized to the input.
    """

    size: int
    activation: Activation = "checkpoint"
    position: PositionMode = "bicubic-antialias"
    geometry: Geometry = "squash"


@dataclass(frozen=True)
class ImageFeatures:
    """Result of one pass over B images. D is the vision width, N = rows * columns of the patch grid.

    Attributes:
        taps: Stream of each tap, (B, 1 + N, D) float32; row 0 is the class token, then patches row by row.
        class_token: (B, D) after the last block, raw; None if it was not requested.
        windows: Raw class tokens of the windows of each side length, (B, n_windows, D), row-major by top left patch.
        grid: Rows and columns of patches.
        precision: Type of the matrix products that the taps come from.
    """

    taps: Mapping[Tap, Tensor]
    class_token: Tensor | None
    windows: Mapping[int, Tensor]
    grid: tuple[int, int]
    precision: torch.dtype = torch.float32
