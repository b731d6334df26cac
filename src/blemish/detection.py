"""What blemish says about one picture: `Detection`, and where the numbers come from.

Coordinates are those of `blemish.regions`: pixels of the picture, points on pixel corners.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from blemish.errors import UsageError
from blemish.regions import Region, find_regions, trace

if TYPE_CHECKING:
    from PIL import Image

    from blemish.image_io import LoadedImage

__all__ = ["Detection", "Provenance", "Region", "Timing", "find_regions", "trace"]


@dataclass(frozen=True)
class Provenance:
    """Where a score comes from, so that it can be made again.

    Attributes:
        method: name in the registry, as "winclip".
        backbone: what the user named: "builtin", a hub id, a folder.
        backbone_fingerprint: over the backbone's weights, 16 hex digits.
        weights: name of the trained weights; None for a method without, or with untrained ones.
        weights_fingerprint: over the trained weights, 16 hex digits; None without.
        config: the settings of the method, JSON-able.
        version: of blemish.
        precision: "float32", "bfloat16", ...
        device: "cpu", "cuda:0", ...
        references: how many normal reference pictures the method was shown; 0 = zero-shot.
        references_fingerprint: over their pixels, whatever their names and order, 16 hex digits; None without.
        backend: what computes: "torch", or "onnx" and "openvino" for an exported file.
        model: name of the exported file; None for torch.
        model_fingerprint: over the bytes of that file, 16 hex digits; None for torch.
        tile: side of the tiles that pictures are cut into, in pixels; None = pictures are scored whole.
        overlap: of neighbouring tiles, as a fraction of their side; None without tiles.
    """

    method: str
    backbone: str
    backbone_fingerprint: str
    weights: str | None = None
    weights_fingerprint: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    version: str = ""
    precision: str = "float32"
    device: str = "cpu"
    references: int = 0
    references_fingerprint: str | None = None
    backend: str = "torch"
    model: str | None = None
    model_fingerprint: str | None = None
    tile: int | None = None
    overlap: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return {**vars(self), "config": dict(self.config)}


@dataclass(frozen=True)
class Timing:
    """Seconds spent on one picture; what a batch shares (preprocess, encode, score) is divided equally."""

    read: float = 0.0
    preprocess: float = 0.0
    encode: float = 0.0
    score: float = 0.0

    @property
    def total(self) -> float:
        """Sum of the four, in seconds."""
        return self.read + self.preprocess + self.encode + self.score

    def __add__(self, other: Timing) -> Timing:
        return Timing(
            self.read + other.read,
            self.preprocess + other.preprocess,
            self.encode + other.encode,
            self.score + other.score,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Detection:
    """Score, anomaly map and, with a threshold, the verdict on one picture.

    Attributes:
        score: image score in [0, 1], higher = more anomalous.
        anomaly_map: float32 (H, W) at the picture's own size, raw values, higher = more anomalous; read-only. With a
            `map_step` above 1 (large pictures in tiles) smaller by that: (ceil(height / step), ceil(width / step)).
        map_range: (lo, hi), the method's fixed scale that maps are drawn on; values outside are drawn as the ends.
        size: (width, height) of the picture.
        path: the picture's file; None for one that came from memory.
        threshold: a picture with score >= threshold is anomalous; None = no verdict.
        mask_threshold: a pixel with value >= lo + mask_threshold * (hi - lo) is anomalous; takes `threshold` where
            that is given and this is not.
        min_area: smaller regions, in pixels, are left out of `regions` (not of `mask`).
        notes: what was done to the picture while reading it.
        timing: seconds spent.
        provenance: where the numbers come from; None if unknown.
        map_step: one value of the map is the mean over `map_step` x `map_step` pixels of the picture. `mask`,
            `heatmap` and `overlay` have the map's size; `size`, `regions` and `min_area` are in pixels of the picture.
    """

    score: float
    anomaly_map: npt.NDArray[np.float32]
    map_range: tuple[float, float]
    size: tuple[int, int]
    path: str | None = None
    threshold: float | None = None
    mask_threshold: float | None = None
    min_area: int = 1
    notes: tuple[str, ...] = ()
    timing: Timing = Timing()
    provenance: Provenance | None = None
    map_step: int = 1

    def __post_init__(self) -> None:
        values = self.anomaly_map
        if self.map_step < 1:
            raise UsageError(f"map_step must be at least 1, not {self.map_step}.")
        width, height = (-(-side // self.map_step) for side in self.size)
        if not isinstance(values, np.ndarray) or values.dtype != np.float32:
            given = str(values.dtype) if isinstance(values, np.ndarray) else type(values).__name__
            raise UsageError(f"anomaly_map must be a float32 NumPy array, not {given}.")
        if values.shape != (height, width):
            raise UsageError(
                f"anomaly_map must have the picture's own shape (height, width) = ({height}, {width})"
                f"{f' at map_step {self.map_step}' * (self.map_step > 1)}, not {values.shape}."
            )
        if values.size == 0:
            raise UsageError("anomaly_map is empty; a picture has at least one pixel.")
        # One reduction instead of a mask of the whole map: NaN and infinity both survive min or max.
        if not (math.isfinite(float(values.min())) and math.isfinite(float(values.max()))):
            raise UsageError("anomaly_map holds NaN or infinity; try precision float32.")
        if not 0.0 <= self.score <= 1.0:
            raise UsageError(f"score must be in [0, 1], not {self.score}.")
        low, high = self.map_range
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise UsageError(f"map_range must be two finite numbers with lo < hi, not {self.map_range}.")
        for name in ("threshold", "mask_threshold"):
            number = getattr(self, name)
            if number is not None and not math.isfinite(number):
                raise UsageError(f"{name} must be a finite number or None, not {number}.")
        if self.min_area < 1:
            raise UsageError(f"min_area must be at least 1 pixel, not {self.min_area}.")
        # The mask and the regions are cached, so nobody may write into the map behind them.
        view = values.view()
        view.flags.writeable = False
        object.__setattr__(self, "anomaly_map", view)
        if self.mask_threshold is None:
            object.__setattr__(self, "mask_threshold", self.threshold)

    @property
    def anomalous(self) -> bool | None:
        """True if score >= threshold; None without a threshold."""
        return None if self.threshold is None else bool(self.score >= self.threshold)

    @property
    def mask_value(self) -> float | None:
        """The value of the anomaly map from which a pixel is anomalous; None without a threshold."""
        if self.mask_threshold is None:
            return None
        low, high = self.map_range
        return low + self.mask_threshold * (high - low)

    @cached_property
    def mask(self) -> npt.NDArray[np.bool_] | None:
        """Anomalous pixels, bool (H, W) as the map, read-only; None without a threshold."""
        cut = self.mask_value
        if cut is None:
            return None
        mask: npt.NDArray[np.bool_] = self.anomaly_map >= cut
        mask.flags.writeable = False
        return mask

    @cached_property
    def regions(self) -> tuple[Region, ...]:
        """Patches of the mask, highest peak first; empty without a threshold."""
        if self.mask is None:
            return ()
        return find_regions(self.mask, self.anomaly_map, min_area=self.min_area, step=self.map_step, size=self.size)

    @property
    def peak(self) -> float:
        """Highest value of the anomaly map."""
        return float(self.anomaly_map.max())

    def with_threshold(
        self, threshold: float | None, mask_threshold: float | None = None, *, min_area: int | None = None
    ) -> Detection:
        """The same numbers under another threshold.

        Args:
            threshold: for the image score; None takes the verdict away.
            mask_threshold: for the pixels, as a fraction of `map_range`; None = the same number as `threshold`.
            min_area: smallest region in pixels; None keeps the present one.
        """
        return replace(
            self,
            threshold=threshold,
            mask_threshold=mask_threshold,
            min_area=self.min_area if min_area is None else min_area,
        )

    def to_dict(self, maps: bool = False) -> dict[str, Any]:
        """Everything as JSON-able values.

        Args:
            maps: add "anomaly_map" as {"dtype": "float32", "shape": [H, W], "base64": little-endian rows} and "mask"
                as COCO run lengths {"size": [H, W], "counts": [...]} (or None).
        """
        result: dict[str, Any] = {
            "path": self.path,
            "size": list(self.size),
            "score": float(self.score),
            "anomalous": self.anomalous,
            "threshold": self.threshold,
            "mask_threshold": self.mask_threshold,
            "map_range": [float(end) for end in self.map_range],
            "map_step": self.map_step,
            "peak": self.peak,
            "regions": [region.to_dict() for region in self.regions],
            "notes": list(self.notes),
            "timing": {**asdict(self.timing), "total": self.timing.total},
            "provenance": None if self.provenance is None else self.provenance.to_dict(),
        }
        if maps:
            from blemish.rle import encode_mask

            little = np.ascontiguousarray(self.anomaly_map, dtype="<f4")
            result["anomaly_map"] = {
                "dtype": "float32",
                "shape": list(little.shape),
                "base64": base64.b64encode(little.tobytes()).decode("ascii"),
            }
            result["mask"] = None if self.mask is None else encode_mask(self.mask)
        return result

    def heatmap(self, *, legend: bool = False) -> Image.Image:
        """The anomaly map in colours on the fixed scale `map_range`; RGB, the map's size (plus the legend)."""
        from blemish.draw import heatmap

        return heatmap(self.anomaly_map, self.map_range, legend=legend)

    def overlay(self, picture: LoadedImage | Image.Image, *, alpha: float = 0.6, legend: bool = False) -> Image.Image:
        """The picture with the anomaly map laid over it; the higher the value, the less of the picture shows."""
        from blemish.draw import overlay

        image: Any = getattr(picture, "image", picture)
        if self.map_step > 1 and image.size == self.size:
            picture = image.reduce(self.map_step)
        return overlay(picture, self.anomaly_map, self.map_range, alpha=alpha, legend=legend)
