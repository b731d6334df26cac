"""What a method asks of the image, and what it gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from blemish.errors import UsageError

Activation: TypeAlias = Literal["checkpoint", "quick_gelu", "gelu"]
PositionMode: TypeAlias = Literal["bilinear", "bicubic", "bicubic-antialias"]
Path: TypeAlias = Literal["residual", "middle", "value"]


@dataclass(frozen=True, order=True)
class Tap:
    """One residual-like stream of the vision tower, raw: no final layer norm, no projection.

    With x_l the stream after block l, a_l the attention output of block l and v_l its V-V attention output
    (values attend to values with the same weights, read from the original stream):

    * `residual` is x_l;
    * `middle` is x_l + a_{l+1}, and x_L at the last block L;
    * `value` is [x_{start-1}] + v_start + ... + v_l, beginning with x_{start-1} only if `seeded`.

    Attributes:
        layer: block, counted from 1 as in the papers.
        path: which stream.
        start: `value` only: first block whose V-V attention is added, 1 <= start <= layer.
        seeded: `value` only: the sum begins with the stream that enters block `start`, else with zero.

    Raises:
        UsageError: for a layer or start below 1, a start beyond the layer, or options of `value` on another path.
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
        taps: streams to hand out.
        class_token: hand out the class token after the last block.
        windows: side lengths of square windows in patches, each >= 1 (WinCLIP).
    """

    taps: frozenset[Tap] = field(default_factory=frozenset)
    class_token: bool = True
    windows: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        # Any iterable will do; what is stored is what the type says.
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
    """How the image is computed. Methods share a pass only if these agree.

    Attributes:
        size: side of the square input in pixels.
        activation: `checkpoint` is what the checkpoint was trained with; the others replace it (`gelu` is exact, erf).
        position: how positional embeddings are resized when the grid is not the checkpoint's (align_corners False).
    """

    size: int
    activation: Activation = "checkpoint"
    position: PositionMode = "bicubic-antialias"


@dataclass(frozen=True)
class ImageFeatures:
    """What one pass over B pictures handed out. D is the vision width, N = rows * columns of the patch grid.

    Attributes:
        taps: each (B, 1 + N, D); row 0 is the class token, then patches row by row.
        class_token: (B, D) after the last block, raw; None if not asked for.
        windows: side -> (B, n_windows, D) raw class tokens, windows row-major by their top left patch.
        grid: (rows, columns) of patches.
        precision: of the products that made the taps, which are float32 themselves.
    """

    taps: Mapping[Tap, Tensor]
    class_token: Tensor | None
    windows: Mapping[int, Tensor]
    grid: tuple[int, int]
    precision: torch.dtype = torch.float32
