"""What an exported file says about itself: what was exported, and how the file is fed and read.

It is kept twice: whole, as JSON, for blemish, and in the words of OpenVINO's Model API (`model_info`) for others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from blemish.detection import Provenance
from blemish.errors import WeightsError

FORMAT = 2
#: Under what the JSON stands in a file's metadata.
KEY = "blemish"
#: Input: (B, 3, H, W) float32 RGB in [0, 1], any height and width.
IMAGE = "image"
#: Outputs, always: (B,) float32 in [0, 1]; (B, S, S) float32, where 0 and 1 are the ends of the method's fixed scale.
SCORE, MAP = "pred_score", "anomaly_map"
#: Outputs with a threshold: (B,) and (B, S, S), bool.
LABEL, MASK = "pred_label", "pred_mask"


@dataclass(frozen=True)
class Header:
    """What a file was made of and how it is used."""

    provenance: Provenance
    """Of the detector that was exported."""
    object_name: str | None
    """What its pictures show, folded in; None for a method that is told nothing."""
    size: int
    """S: the graph brings every picture to S x S pixels and gives maps of that size."""
    map_range: tuple[float, float]
    """Between what the method's raw maps lie; the file's are brought to 0..1."""
    threshold: float | None = None
    mask_threshold: float | None = None
    calibration: int = 0
    """How many pictures the int8 ranges were taken from; 0 for a file in float32."""

    @property
    def precision(self) -> str:
        """Of the vision tower: "float32" or "int8"."""
        return "int8" if self.calibration else "float32"

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the graph's outputs, in order."""
        return (SCORE, MAP) if self.threshold is None else (SCORE, LABEL, MAP, MASK)

    def to_json(self) -> str:
        """One line, sorted: the same header gives the same bytes."""
        values = {**asdict(self), "provenance": self.provenance.to_dict()}
        return json.dumps({"format": FORMAT, **values}, sort_keys=True)

    def model_info(self) -> dict[str, str]:
        """The keys that OpenVINO's Model API reads, for a file with a verdict in it and for wrappers of older releases.

        The graph does by itself what most of them ask a wrapper to do; these say what is left: numbers in [0, 1]
        (`scale_values`), in the order RGB where a camera gives BGR (`reverse_input_channels`).
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
            "interpolation_mode": "CUBIC",
            "pad_value": "0",
        }
        if self.threshold is not None:
            info |= {"image_threshold": str(self.threshold), "pixel_threshold": str(self.pixel_threshold)}
        return info

    @property
    def pixel_threshold(self) -> float | None:
        """From where on a pixel of the file's map is anomalous: `mask_threshold`, else `threshold`."""
        return self.threshold if self.mask_threshold is None else self.mask_threshold


def from_json(text: str | None, path: Path) -> Header:
    """What `to_json` wrote. Raises WeightsError."""
    if text is None:
        raise WeightsError(f"{path} was not exported by blemish, or lost its metadata: run blemish export again", path)
    try:
        values: dict[str, Any] = json.loads(text)
        found = values.pop("format")
        if found == FORMAT:
            values["provenance"] = Provenance(**_known(Provenance, values["provenance"]))
            values["map_range"] = tuple(map(float, values["map_range"]))
            return Header(**_known(Header, values))
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} has damaged metadata ({error}): run blemish export again", path) from error
    raise WeightsError(f"{path} is of format {found}, and this blemish reads {FORMAT}: run blemish export again", path)


def _known(kind: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that a class has fields for: a newer blemish may have written more."""
    names = {one.name for one in fields(kind)}
    return {name: value for name, value in values.items() if name in names}
