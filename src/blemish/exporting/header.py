"""The header of an exported file: what was exported, and the names of inputs and outputs.

It is stored twice: as JSON for blemish, and as entries of OpenVINO's Model API (`model_info`) for other programs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from blemish.clip import Geometry
from blemish.detection import Provenance
from blemish.errors import WeightsError
from blemish.files import has_type, parse_json

FORMAT = 3
#: Formats that can be read; 2 knows no tiles, no raw maps and no other geometry.
READABLE = (2, 3)
#: Largest side of a model's input in pixels.
_MAX_SIDE = 2**14
#: Key of the JSON in the file's metadata.
KEY = "blemish"
#: Input: (B, 3, H, W) float32 RGB in [0, 1], any height and width.
IMAGE = "image"
#: Outputs of every file: scores (B,) and maps (B, S, S), float32 in [0, 1], where 0 and 1 are the ends of `map_range`.
SCORE, MAP = "pred_score", "anomaly_map"
#: Further outputs of a file with a threshold: labels (B,) and masks (B, S, S), bool.
LABEL, MASK = "pred_label", "pred_mask"
#: Further output of a file that changes the method's map, by smoothing or a region of interest: the map before that,
#: (B, h, w) float32 in [0, 1]. blemish makes the map of a picture from it, at the picture's own size.
RAW = "raw_map"


@dataclass(frozen=True)
class Header:
    """What was exported, and how the file is used."""

    provenance: Provenance
    """Provenance of the exported detector."""
    object_name: str | None
    """Name of the object, which is constant in the file; None for a method that does not use it."""
    size: int
    """Side S of the model's input and of the maps in pixels."""
    map_range: tuple[float, float]
    """Range of the method's raw maps; the file's maps are scaled to [0, 1]."""
    threshold: float | None = None
    """Score from which on an image is anomalous."""
    mask_threshold: float | None = None
    """Value of the file's map from which on a pixel is anomalous; None for `threshold`."""
    calibration: int = 0
    """Number of images that int8 was calibrated on; 0 for a file in float32."""
    display_range: tuple[float, float] | None = None
    """Scale on which raw maps are drawn; None for `map_range`."""
    limits: Mapping[str, Any] | None = None
    """Limits of the profile that the file was made with, as `Limits.to_dict` gives them; None without a profile."""
    roi: str | None = None
    """Region of interest of the profile as a PNG in base64; the graph's scores and maps keep to it."""
    raw: str = MAP
    """Name of the output with the method's map as it is."""
    geometry: Geometry = "squash"
    """How pictures are resized to S x S: see `blemish.clip.Geometry`."""
    smoothing: float | None = None
    """Standard deviation, in pixels of the map S x S, with which the graph smooths the raw map, and in pixels of the
    picture, with which blemish does; None if maps are only enlarged."""
    tile: int | None = None
    """Side in pixels of the tiles that larger pictures are cut into; the graph takes one. None scores them whole."""
    overlap: float | None = None
    """Overlap of neighbouring tiles, as a fraction of their side."""

    @property
    def precision(self) -> str:
        """Precision of the vision tower: "float32" or "int8"."""
        return "int8" if self.calibration else "float32"

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the graph's outputs, in order."""
        names = (SCORE, MAP) if self.threshold is None else (SCORE, LABEL, MAP, MASK)
        return names if self.raw == MAP else (*names, self.raw)

    def to_json(self) -> str:
        """Return one line of JSON with sorted keys, so that equal headers give equal bytes."""
        values = {**asdict(self), "provenance": self.provenance.to_dict()}
        return json.dumps({"format": FORMAT, **values}, sort_keys=True)

    def model_info(self) -> dict[str, str]:
        """Return the entries of OpenVINO's Model API.

        The graph itself resizes and normalises. What remains for a wrapper is to scale values to [0, 1]
        (`scale_values`) and to swap BGR to RGB (`reverse_input_channels`).
        """
        info = {
            "model_type": "AnomalyDetection",
            "task": "segmentation",
            "labels": "Normal Anomalous",
            "normalization_scale": "1.0",
            "mean_values": "0.0 0.0 0.0",
            "scale_values": "255.0 255.0 255.0",
            "reverse_input_channels": "True",
            "resize_type": "standard",
            "interpolation_mode": "LINEAR" if self.geometry == "squash-bilinear" else "CUBIC",
            "pad_value": "0",
        }
        if self.threshold is not None:
            info |= {"image_threshold": str(self.threshold), "pixel_threshold": str(self.pixel_threshold)}
        return info

    @property
    def pixel_threshold(self) -> float | None:
        """Value of the file's map from which on a pixel is anomalous: `mask_threshold`, else `threshold`."""
        return self.threshold if self.mask_threshold is None else self.mask_threshold


def from_json(text: str | None, path: Path) -> Header:
    """Parse what `to_json` wrote; `path` is for messages. Raises WeightsError."""
    if text is None:
        raise WeightsError(f"{path} was not exported by blemish, or lost its metadata: export it again", path)
    try:
        values: dict[str, Any] = parse_json(text, finite=True)
        version = values.pop("format")
        if version in READABLE:
            provenance = _fields(Provenance, values["provenance"])
            if provenance.get("value_range") is not None:
                provenance["value_range"] = tuple(map(float, provenance["value_range"]))
            values["provenance"] = Provenance(**provenance)
            values["map_range"] = tuple(map(float, values["map_range"]))
            if values.get("display_range") is not None:
                values["display_range"] = tuple(map(float, values["display_range"]))
            _check_types(Provenance, provenance)
            _check_types(Header, {**_fields(Header, values), "provenance": values["provenance"]})
            if not 1 <= values["size"] <= _MAX_SIDE:
                raise ValueError(f"a side of {values['size']} pixels")
            return Header(**_fields(Header, values))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise WeightsError(f"{path} has damaged metadata ({error}): export it again", path) from error
    raise WeightsError(f"{path} has format {version}, and this blemish reads {FORMAT}: export it again", path)


def _check_types(cls: type[Any], values: Mapping[str, Any]) -> None:
    """Raise a TypeError unless the values have the types of a class's fields."""
    kinds = get_type_hints(cls)
    for name, value in values.items():
        if not has_type(value, kinds[name]):
            raise TypeError(f"{name!r} is of a wrong type")


def _fields(cls: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries that a class has fields for, since a newer blemish may have written more."""
    names = {field.name for field in fields(cls)}
    return {name: value for name, value in values.items() if name in names}
