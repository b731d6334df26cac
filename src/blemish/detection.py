"""What blemish says about one picture: `Detection`, its regions, and where the numbers come from.

Coordinates are pixels of the picture, x to the right and y down. Points lie on pixel corners, so pixel (x, y) is the
square from (x, y) to (x + 1, y + 1), a box is half-open, and polygons enclose exactly the pixels of their region.
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
from scipy import ndimage

from blemish.errors import UsageError

if TYPE_CHECKING:
    from PIL import Image

    from blemish.pictures import Picture

Ring = tuple[tuple[int, int], ...]
"""A closed outline: (x, y) corners, the last joined to the first, no three in a row on one line."""

_EIGHT = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True)
class Provenance:
    """Where a score comes from, so that it can be made again.

    Attributes:
        method: name in the registry, as "winclip".
        backbone: what the user named: "embedded", a hub id, a folder.
        backbone_fingerprint: over the backbone's weights, 16 hex digits.
        weights: name of the trained weights; None for a method without, or with untrained ones.
        weights_fingerprint: over the trained weights, 16 hex digits; None without.
        recipe: the settings of the method, JSON-able.
        version: of blemish.
        precision: "float32", "bfloat16", ...
        device: "cpu", "cuda:0", ...
        references: how many normal reference pictures the method was shown; 0 = zero-shot.
        references_fingerprint: over their pixels, whatever their names and order, 16 hex digits; None without.
    """

    method: str
    backbone: str
    backbone_fingerprint: str
    weights: str | None = None
    weights_fingerprint: str | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    version: str = ""
    precision: str = "float32"
    device: str = "cpu"
    references: int = 0
    references_fingerprint: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return {**vars(self), "recipe": dict(self.recipe)}


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


@dataclass(frozen=True)
class Region:
    """One 8-connected patch of the mask.

    Attributes:
        box: (x0, y0, x1, y1), half-open: the patch lies in columns x0..x1-1 and rows y0..y1-1.
        polygon: rings along pixel edges; the first is the outline (clockwise as seen), the others are holes
            (counter-clockwise). Filled by the even-odd rule they give back exactly the patch.
        area: pixels.
        peak: highest value of the anomaly map inside.
        mean: mean value of the anomaly map inside.
        centroid: (x, y) mean of the pixel centres.
    """

    box: tuple[int, int, int, int]
    polygon: tuple[Ring, ...]
    area: int
    peak: float
    mean: float
    centroid: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return asdict(self)


@dataclass(frozen=True, eq=False, kw_only=True)
class Detection:
    """Score, anomaly map and, with a threshold, the verdict on one picture.

    Attributes:
        score: image score in [0, 1], higher = more anomalous.
        anomaly_map: float32 (H, W) at the picture's own size, raw values, higher = more anomalous; read-only.
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

    def __post_init__(self) -> None:
        values = self.anomaly_map
        width, height = self.size
        if not isinstance(values, np.ndarray) or values.dtype != np.float32:
            given = str(values.dtype) if isinstance(values, np.ndarray) else type(values).__name__
            raise UsageError(f"anomaly_map must be a float32 NumPy array, not {given}.")
        if values.shape != (height, width):
            raise UsageError(
                f"anomaly_map must have the picture's own shape (height, width) = ({height}, {width}), "
                f"not {values.shape}."
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
        """Anomalous pixels, bool (H, W), read-only; None without a threshold."""
        cut = self.mask_value
        if cut is None:
            return None
        mask: npt.NDArray[np.bool_] = self.anomaly_map >= cut
        mask.flags.writeable = False
        return mask

    @cached_property
    def regions(self) -> tuple[Region, ...]:
        """Patches of the mask, highest peak first; empty without a threshold."""
        return () if self.mask is None else find_regions(self.mask, self.anomaly_map, min_area=self.min_area)

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
            "peak": self.peak,
            "regions": [region.to_dict() for region in self.regions],
            "notes": list(self.notes),
            "timing": {**asdict(self.timing), "total": self.timing.total},
            "provenance": None if self.provenance is None else self.provenance.to_dict(),
        }
        if maps:
            from blemish.outputs.rle import encode_mask

            little = np.ascontiguousarray(self.anomaly_map, dtype="<f4")
            result["anomaly_map"] = {
                "dtype": "float32",
                "shape": list(little.shape),
                "base64": base64.b64encode(little.tobytes()).decode("ascii"),
            }
            result["mask"] = None if self.mask is None else encode_mask(self.mask)
        return result

    def heatmap(self, *, legend: bool = False) -> Image.Image:
        """The anomaly map in colours on the fixed scale `map_range`; RGB, the picture's size (plus the legend)."""
        from blemish.outputs.colour import heatmap

        return heatmap(self.anomaly_map, self.map_range, legend=legend)

    def overlay(self, picture: Picture | Image.Image, *, alpha: float = 0.6, legend: bool = False) -> Image.Image:
        """The picture with the anomaly map laid over it; the higher the value, the less of the picture shows."""
        from blemish.outputs.colour import overlay

        return overlay(picture, self.anomaly_map, self.map_range, alpha=alpha, legend=legend)


def find_regions(
    mask: npt.NDArray[np.bool_], values: npt.NDArray[np.float32], *, min_area: int = 1
) -> tuple[Region, ...]:
    """Split a mask into its 8-connected regions.

    Args:
        mask: bool (H, W).
        values: anomaly map (H, W), for the peak and the mean of each region.
        min_area: smaller regions, in pixels, are left out.

    Returns:
        Regions, highest peak first; equal peaks by area, then from top to bottom.
    """
    if mask.shape != values.shape or mask.ndim != 2:
        raise UsageError(f"mask and values must have the same shape (H, W), not {mask.shape} and {values.shape}.")
    labels, count = ndimage.label(mask, structure=_EIGHT)
    if count == 0:
        return ()
    rows, columns = np.nonzero(labels)
    owner = labels[rows, columns]
    inside = values[rows, columns]
    area = np.bincount(owner, minlength=count + 1)
    divisor = np.maximum(area, 1)
    mean = np.bincount(owner, weights=inside, minlength=count + 1) / divisor
    centre_x = np.bincount(owner, weights=columns + 0.5, minlength=count + 1) / divisor
    centre_y = np.bincount(owner, weights=rows + 0.5, minlength=count + 1) / divisor
    peak = np.full(count + 1, -np.inf)
    np.maximum.at(peak, owner, inside)
    kept = area >= min_area
    kept[0] = False
    rings: dict[int, list[Ring]] = {}
    if kept.any():
        for ring in trace(kept[labels]):
            # The pixel to the right of a ring's first edge is inside, whichever way that edge points.
            rings.setdefault(int(labels[_inner_pixel(ring)]), []).append(ring)
    boxes = ndimage.find_objects(labels)
    regions = []
    for label in np.flatnonzero(kept).tolist():
        down, right = boxes[label - 1]
        # The outline is the ring that reaches the left-most column of the region; a hole never does.
        outlines = sorted(rings[label], key=lambda ring: min(x for x, _ in ring))
        regions.append(
            Region(
                box=(right.start, down.start, right.stop, down.stop),
                polygon=tuple(outlines),
                area=int(area[label]),
                peak=float(peak[label]),
                mean=float(mean[label]),
                centroid=(float(centre_x[label]), float(centre_y[label])),
            )
        )
    regions.sort(key=lambda region: (-region.peak, -region.area, region.box[1], region.box[0]))
    return tuple(regions)


def trace(mask: npt.NDArray[np.bool_]) -> list[Ring]:
    """Outlines of a mask along its pixel edges.

    Pixels that touch only at a corner belong together (8-connected), so a ring may touch itself there.

    Args:
        mask: bool (H, W).

    Returns:
        Rings; outer outlines run clockwise as seen, holes counter-clockwise. Even-odd filling gives the mask back.
    """
    height, width = mask.shape
    padded = np.zeros((height + 2, width + 2), dtype=bool)
    padded[1:-1, 1:-1] = mask
    # The four pixels around each corner. An edge leaves a corner with the mask on its right hand.
    nw, ne, sw, se = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    corners = (height + 1) * (width + 1)
    leaving = (se & ~ne, sw & ~se, nw & ~sw, ne & ~nw)  # to the right, down, left, up
    edges = np.concatenate([np.flatnonzero(out) + turn * corners for turn, out in enumerate(leaving)])
    if edges.size == 0:
        return []
    heading, start = np.divmod(edges, corners)
    end = start + np.array([1, width + 1, -1, -width - 1])[heading]
    # Where two edges leave a corner the mask touches itself diagonally: turning left keeps it in one piece.
    follow = np.empty_like(edges)
    todo = np.ones(edges.size, dtype=bool)
    for turn in (-1, 0, 1):
        wanted = (heading + turn) % 4 * corners + end
        place = np.minimum(np.searchsorted(edges, wanted), edges.size - 1)
        found = todo & (edges[place] == wanted)
        follow[found] = place[found]
        todo &= ~found
    bends = heading != heading[follow]
    return _rings(follow.tolist(), bends.tolist(), (end % (width + 1)).tolist(), (end // (width + 1)).tolist())


def _rings(follow: list[int], bends: list[bool], x: list[int], y: list[int]) -> list[Ring]:
    """Walk the cycles of `follow` and keep the corners where the outline bends."""
    rings = []
    seen = bytearray(len(follow))
    for first in range(len(follow)):
        if seen[first]:
            continue
        ring = []
        edge = first
        while not seen[edge]:
            seen[edge] = 1
            if bends[edge]:
                ring.append((x[edge], y[edge]))
            edge = follow[edge]
        rings.append(tuple(ring))
    return rings


def _inner_pixel(ring: Ring) -> tuple[int, int]:
    """(row, column) of the pixel on the right hand of a ring's first edge."""
    (x0, y0), (x1, y1) = ring[:2]
    if y0 == y1:
        return (y0, x0) if x1 > x0 else (y0 - 1, x0 - 1)
    return (y0, x0 - 1) if y1 > y0 else (y0 - 1, x0)
