"""The result for one picture: `Detection`, and the provenance of its numbers.

Coordinates are those of `blemish.regions`: pixels of the picture, points on pixel corners.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from blemish import draw
from blemish.calibration import Verdict, verdict
from blemish.errors import OutputError, UsageError, suggest
from blemish.files import output_name, safe_name, write_atomically
from blemish.image_io import read_image
from blemish.maps import encode_map
from blemish.regions import Region, encode_mask, fill_polygon, find_regions
from blemish.types import ImageSource, PathLike, check_threshold

if TYPE_CHECKING:
    import supervision

FileKind: TypeAlias = Literal["map", "map-png", "map-tiff", "heatmap", "overlay", "mask"]
FILE_KINDS: tuple[FileKind, ...] = get_args(FileKind)
"""Files that `Detection.save` writes."""

#: Longest side of a JPEG file.
_MAX_JPEG_SIDE = 65500
#: Height that a legend adds at most.
_MAX_LEGEND = 100
#: Largest picture that is drawn as PNG unless somebody asks for a format: about 1 MB.
_MAX_PNG_PIXELS = 500_000


@dataclass(frozen=True)
class Provenance:
    """Where a score comes from, so that it can be reproduced.

    Attributes:
        method: Name of the method, such as "winclip".
        backbone: Name of the backbone: "builtin", a hub id, a folder.
        backbone_fingerprint: Hash of the backbone's weights, 16 hex digits.
        weights: Name of the method's weights; None for a method without, or with untrained ones.
        weights_fingerprint: Hash of the method's weights, 16 hex digits; None without.
        config: Settings of the method, JSON-able.
        version: Version of blemish.
        precision: "float32", "bfloat16", ...
        device: "cpu", "cuda:0", ...
        references: Number of reference pictures; 0 = zero-shot.
        references_fingerprint: Hash of their pixels, whatever their names and order, 16 hex digits; None without.
        backend: What computes: "torch", or "onnx" and "openvino" for an exported file.
        model: Name of the exported file; None for "torch".
        model_fingerprint: Hash of that file, 16 hex digits; None for "torch".
        tile: Side of the tiles in pixels; None = pictures are scored whole.
        overlap: Overlap of neighbouring tiles, as a fraction of their side; None without tiles.
        profile: Name of the profile's file; None without a profile, or for one from memory.
        value_range: The values that were given as black and white for pictures of more than 8 bits; None = by the rule
            of `read_image`.
        preset: "default" or "fast", where the built-in model has the input size of that preset; else None. The config
            says the same in numbers.
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
    profile: str | None = None
    value_range: tuple[float, float] | None = None
    preset: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dictionary for JSON."""
        return {**vars(self), "config": dict(self.config)}


@dataclass(frozen=True)
class Timing:
    """Seconds spent on one picture; what a batch shares is divided equally."""

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


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Detection:
    """Score, anomaly map and, with a threshold, the label, mask and regions of one picture.

    Attributes:
        score: Image score in [0, 1], higher = more anomalous.
        anomaly_map: float32 (H, W) at the picture's own size, raw values, higher = more anomalous; read-only. With a
            `map_step` above 1 (large pictures in tiles) it is smaller: (ceil(height / step), ceil(width / step)).
        map_range: (low, high), the method's fixed scale that maps are drawn on; values outside are drawn as the ends.
        size: (width, height) of the picture.
        path: File of the picture; None for one from memory.
        threshold: A picture with score >= threshold is anomalous; None = no label.
        mask_threshold: A pixel with value >= low + mask_threshold * (high - low) is anomalous; by default `threshold`.
        min_area: Smallest region in pixels; smaller ones are left out of `regions` (not of `mask`).
        notes: What was done to the picture while reading it.
        timing: Seconds spent.
        provenance: Where the numbers come from; None if unknown.
        map_step: Side, in pixels of the picture, of the squares that one value of the map is the mean over. `mask`,
            `heatmap` and `overlay` have the map's size; `size`, `regions` and `min_area` are in pixels of the picture.
        review_threshold: A picture with a score from here up to `threshold` is to be looked at; None = no such class.
        p_value: Share of good pictures that look at least as odd as this one, in (0, 1]; None without a profile.
        heatmap_range: (low, high), the scale that maps are drawn on; None = `map_range`. With a profile, what good
            pictures reach is below its low end, and the threshold of pixels is its middle.
        model_map: float32 (rows, columns), the map as the model gave it, of which `anomaly_map` is nothing but the
            bilinear enlargement; None where there is more to it (tiles, a region of interest, ...). Files of maps are
            small with it.

    Raises:
        UsageError: A value is out of range, or the shapes do not agree.
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
    review_threshold: float | None = None
    p_value: float | None = None
    heatmap_range: tuple[float, float] | None = None
    model_map: npt.NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        values = self.anomaly_map
        if self.map_step < 1:
            raise UsageError(f"map_step must be at least 1, not {self.map_step}.")
        width, height = (-(-side // self.map_step) for side in self.size)
        if not isinstance(values, np.ndarray) or values.dtype != np.float32:
            kind = str(values.dtype) if isinstance(values, np.ndarray) else type(values).__name__
            raise UsageError(f"anomaly_map must be a float32 NumPy array, not {kind}.")
        if values.shape != (height, width):
            raise UsageError(
                f"anomaly_map must have the picture's own shape (height, width) = ({height}, {width})"
                f"{f' at map_step {self.map_step}' * (self.map_step > 1)}, not {values.shape}."
            )
        if values.size == 0:
            raise UsageError("anomaly_map is empty; a picture has at least one pixel.")
        # Two reductions instead of a mask of the whole map: NaN and infinity both survive min or max.
        if not (math.isfinite(float(values.min())) and math.isfinite(float(values.max()))):
            raise UsageError("anomaly_map holds NaN or infinity; try precision float32.")
        if not 0.0 <= self.score <= 1.0:
            raise UsageError(f"score must be in [0, 1], not {self.score}.")
        low, high = self.map_range
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise UsageError(f"map_range must be two finite numbers with low < high, not {self.map_range}.")
        check_threshold("threshold", self.threshold)
        check_threshold("mask_threshold", self.mask_threshold)
        check_threshold("review_threshold", self.review_threshold)
        if self.min_area < 1:
            raise UsageError(f"min_area must be at least 1 pixel, not {self.min_area}.")
        # The mask and the regions are cached, so the map must not change.
        view = values.view()
        view.flags.writeable = False
        object.__setattr__(self, "anomaly_map", view)
        if self.mask_threshold is None:
            object.__setattr__(self, "mask_threshold", self.threshold)

    def __repr__(self) -> str:
        return f"Detection(score={self.score:.4f}, label={self.label}, size={self.size}, path={self.path!r})"

    @property
    def label(self) -> int | None:
        """1 = rejected (score >= threshold), 0 = not; None without a threshold."""
        return None if self.threshold is None else int(self.score >= self.threshold)

    @property
    def verdict(self) -> Verdict | None:
        """ "reject" if the score reaches the threshold, else "review" if it reaches that of review, else "pass".

        None without a threshold.
        """
        if self.threshold is None:
            return None
        return verdict(
            self.score, self.threshold if self.review_threshold is None else self.review_threshold, self.threshold
        )

    @property
    def oddity(self) -> str | None:
        """The p-value as a sentence for a person; None without a profile."""
        if self.p_value is None:
            return None
        share = 100 * self.p_value
        number = f"{share:.0f}" if share >= 10 else f"{share:.2g}"  # not 1e+02
        return f"of 100 good parts, at most about {number} look as odd as this"

    @property
    def mask_value(self) -> float | None:
        """Lowest value of the anomaly map at which a pixel is anomalous; None without a threshold."""
        if self.mask_threshold is None:
            return None
        low, high = self.map_range
        return low + self.mask_threshold * (high - low)

    @cached_property
    def mask(self) -> npt.NDArray[np.bool_] | None:
        """Anomalous pixels, bool, of the map's shape, read-only; None without a threshold."""
        lowest = self.mask_value
        if lowest is None:
            return None
        mask: npt.NDArray[np.bool_] = self.anomaly_map >= lowest
        mask.flags.writeable = False
        return mask

    @cached_property
    def regions(self) -> tuple[Region, ...]:
        """Connected regions of the mask, highest peak first; empty without a threshold."""
        if self.mask is None:
            return ()
        return find_regions(self.mask, self.anomaly_map, min_area=self.min_area, step=self.map_step, size=self.size)

    @property
    def scale(self) -> tuple[float, float]:
        """(low, high), the scale that maps are drawn on: `heatmap_range`, else `map_range`."""
        return self.heatmap_range or self.map_range

    @property
    def peak(self) -> float:
        """Highest value of the anomaly map."""
        return float(self.anomaly_map.max())

    def with_threshold(
        self,
        threshold: float | None,
        mask_threshold: float | None = None,
        *,
        review_threshold: float | None = None,
        min_area: int | None = None,
    ) -> Detection:
        """Return the same numbers under other thresholds.

        Args:
            threshold: Threshold of the image score; None gives no label.
            mask_threshold: Threshold of the pixels, as a fraction of `map_range`; None = the same as `threshold`.
            review_threshold: Threshold of the image score from which a picture is to be looked at.
            min_area: Smallest region in pixels; None keeps the present one.
        """
        return replace(
            self,
            threshold=threshold,
            mask_threshold=mask_threshold,
            review_threshold=review_threshold,
            min_area=self.min_area if min_area is None else min_area,
        )

    def to_dict(self, maps: bool = False) -> dict[str, Any]:
        """Return everything as JSON-able values.

        Args:
            maps: Add "anomaly_map" as {"dtype": "float32", "shape": [H, W], "base64": little-endian rows} and "mask"
                as COCO run lengths {"size": [H, W], "counts": [...]} (or None).
        """
        result: dict[str, Any] = {
            "path": self.path,
            "size": list(self.size),
            "score": float(self.score),
            "label": self.label,
            "verdict": self.verdict,
            "p_value": self.p_value,
            "threshold": self.threshold,
            "review_threshold": self.review_threshold,
            "mask_threshold": self.mask_threshold,
            "min_area": self.min_area,
            "map_range": [float(end) for end in self.map_range],
            "heatmap_range": [float(end) for end in self.scale],
            "map_step": self.map_step,
            "peak": self.peak,
            "regions": [region.to_dict() for region in self.regions],
            "notes": list(self.notes),
            "timing": {**asdict(self.timing), "total": self.timing.total},
            "provenance": None if self.provenance is None else self.provenance.to_dict(),
        }
        if maps:
            little = np.ascontiguousarray(self.anomaly_map, dtype="<f4")
            result["anomaly_map"] = {
                "dtype": "float32",
                "shape": list(little.shape),
                "base64": base64.b64encode(little.tobytes()).decode("ascii"),
            }
            result["mask"] = None if self.mask is None else encode_mask(self.mask)
        return result

    def to_supervision(self) -> supervision.Detections:
        """Return the regions as `supervision.Detections`: boxes, masks, and the peak within `map_range` as confidence.

        Masks have the picture's size; every region is of class 0, "anomaly". There are none without a threshold.

        Raises:
            UsageError: supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise UsageError("supervision is not installed; run: pip install 'blemish[supervision]'") from error
        if not self.regions:
            return supervision.Detections.empty()
        width, height = self.size
        low, high = self.map_range
        peaks = np.array([region.peak for region in self.regions])
        return supervision.Detections(
            xyxy=np.array([region.box for region in self.regions], dtype=np.float32),
            mask=np.stack([fill_polygon(region.polygon, (height, width)) for region in self.regions]),
            confidence=np.clip((peaks - low) / (high - low), 0, 1).astype(np.float32),
            class_id=np.zeros(len(self.regions), dtype=int),
            data={"class_name": np.array(["anomaly"] * len(self.regions))},
        )

    def heatmap(self, *, legend: bool = False) -> Image.Image:
        """Return the anomaly map in colours on the fixed scale `heatmap_range`; RGB, the map's size (plus the
        legend).
        """
        return draw.heatmap(self.anomaly_map, self.scale, legend=legend)

    def overlay(
        self,
        picture: ImageSource | None = None,
        *,
        alpha: float = 0.6,
        legend: bool | None = None,
        outlines: bool | None = None,
    ) -> Image.Image:
        """Return the picture with the anomaly map over it; the higher the value, the less of the picture is visible.

        Args:
            picture: The picture; None reads it from `path`.
            alpha: Opacity at the upper end of the scale, in [0, 1].
            legend: Add a colour bar below and, with a threshold, its mark, the score and the verdict. None adds it
                where there is a profile.
            outlines: Draw the outlines of regions. None draws them where there is a profile.

        Raises:
            UsageError: There is neither a picture nor a path, or the sizes differ.
            ImageError: The picture cannot be read.
        """
        if picture is None:
            if self.path is None:
                raise UsageError("the picture came from memory; give it to be drawn on.")
            picture = self.path
        image = read_image(picture).image
        if self.map_step > 1 and image.size == self.size:
            image = image.reduce(self.map_step)
        drawn = draw.overlay(image, self.anomaly_map, self.scale, alpha=alpha)
        has_profile = self.p_value is not None
        if has_profile if outlines is None else outlines:
            step = self.map_step
            drawn = draw.outlined(
                drawn, [[(x / step, y / step) for x, y in ring] for region in self.regions for ring in region.polygon]
            )
        if has_profile if legend is None else legend:
            drawn = draw.with_legend(drawn, self.scale, threshold=self.mask_value, caption=self._caption)
        return drawn

    @property
    def _caption(self) -> str | None:
        """Verdict, score and p-value in one line; None without a threshold."""
        if self.threshold is None:
            return None
        odd = "" if self.p_value is None else f", p {self.p_value:.2g}"
        return f"{self.verdict}: score {self.score:.3f}, threshold {self.threshold:.3f}{odd}"

    def save(
        self,
        folder: PathLike,
        kinds: FileKind | Iterable[FileKind] = ("overlay",),
        *,
        picture: ImageSource | None = None,
        name: str | None = None,
        root: PathLike | None = None,
        image_format: Literal["auto", "png", "jpg"] = "auto",
    ) -> dict[FileKind, Path]:
        """Write files, each of which appears whole or not at all.

            folder/overlay/<name>.png    the anomaly map in colours over the picture, RGB
            folder/heatmap/<name>.png    the anomaly map in colours, RGB
            folder/mask/<name>.png       0 normal, 255 anomalous, L; only with a threshold
            folder/map/<name>.npy        raw float32 (H, W)
            folder/map/<name>.png        values as 16-bit grey, which `blemish.maps.decode_map` reads ("map-png")
            folder/map/<name>.tiff       raw float32 as TIFF ("map-tiff")

        Args:
            folder: Folder for results; created if it does not exist.
            kinds: What to write.
            picture: The picture to draw on; None reads it from `path`.
            name: Name of the files, parts separated by "/"; None = the picture's path below `root`.
            root: Folder that names are relative to; None = the working directory.
            image_format: Format of heatmaps and overlays. "auto" is PNG for small pictures and JPEG for larger ones,
                whose PNG would be several times the size of a photo. Masks are always PNG.

        Returns:
            The files by kind.

        Raises:
            UsageError: A kind is unknown, or a picture from memory has no name.
            OutputError: A file cannot be written.
            ImageError: The picture cannot be read.
        """
        kinds = {kinds} if isinstance(kinds, str) else set(kinds)
        for kind in sorted(kinds.difference(FILE_KINDS)):
            raise UsageError(f"cannot save {kind!r}{suggest(kind, FILE_KINDS)}; choose from {', '.join(FILE_KINDS)}.")
        if image_format not in ("auto", "png", "jpg"):
            raise UsageError(f"unknown image format {image_format!r}; choose auto, png or jpg.")
        if image_format == "auto":
            fits_jpeg = max(self.anomaly_map.shape) + _MAX_LEGEND < _MAX_JPEG_SIDE
            image_format = "jpg" if self.anomaly_map.size > _MAX_PNG_PIXELS and fits_jpeg else "png"
        if name is not None:
            stem = Path(*[safe_name(part) for part in name.split("/") if part] or ["_"])
        elif self.path is not None:
            stem = output_name(self.path, root)
        else:
            raise UsageError("the picture came from memory; give a name for its files.")

        def path_of(kind: FileKind, suffix: str) -> Path:
            return Path(folder) / kind / stem.with_name(f"{stem.name}.{suffix}")

        def save_map(file: IO[bytes]) -> None:
            np.save(file, self.anomaly_map, allow_pickle=False)

        # Not durable: a picture has several files, and to wait for the disk takes as long as to draw them.
        written: dict[FileKind, Path] = {}
        if "heatmap" in kinds:
            written["heatmap"] = _write_image(path_of("heatmap", image_format), self.heatmap())
        if "overlay" in kinds:
            written["overlay"] = _write_image(path_of("overlay", image_format), self.overlay(picture))
        if "mask" in kinds and self.mask is not None:
            mask = Image.fromarray(self.mask.astype(np.uint8) * np.uint8(255))
            written["mask"] = _write_image(path_of("mask", "png"), mask)
        if "map" in kinds:
            written["map"] = path_of("map", "npy")
            write_atomically(written["map"], save_map, durable=False)
        if "map-png" in kinds:
            png = encode_map(self, small=True)
            written["map-png"] = path_of("map", "png")
            write_atomically(written["map-png"], lambda file: file.write(png), durable=False)
        if "map-tiff" in kinds:
            values = Image.fromarray(self.anomaly_map)
            written["map-tiff"] = path_of("map", "tiff")
            write_atomically(
                written["map-tiff"],
                lambda file: values.save(file, "TIFF", compression="tiff_adobe_deflate"),
                durable=False,
            )
        return written


def _write_image(path: Path, image: Image.Image) -> Path:
    """Write an image of mode L or RGB as PNG or JPEG, by its suffix."""
    if path.suffix == ".jpg" and max(image.size) > _MAX_JPEG_SIDE:
        raise OutputError(
            f"cannot write {str(path)!r}: {image.width} x {image.height} is more than the {_MAX_JPEG_SIDE} pixels per "
            "side of a JPEG file; choose png.",
            path,
        )

    def fill(file: IO[bytes]) -> None:
        if path.suffix == ".jpg":
            image.save(file, "JPEG", quality=90)
        else:
            draw.save_png(image, file)

    write_atomically(path, fill, durable=False)
    return path
