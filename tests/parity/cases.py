"""One parity case: a folder with case.json (inputs, options, tolerances) and expected.npz (what the reference gave)."""

from __future__ import annotations

import dataclasses
import json
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tiny_clip
import tiny_dinov2
import torch
from numpy.typing import NDArray
from PIL import Image

from blemish.clip import Backbone, Dinov2Backbone, Dinov2Tower, from_openai_state_dict
from blemish.clip.tokenizer import clip_tokenizer

Array = NDArray[Any]


class Row(NamedTuple):
    """One output against its tolerance. `difference` is infinite where it was not computed or has another shape."""

    output: str
    difference: float
    allowed: float
    ok: bool


class Case:
    """A case folder, read on demand."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.data: dict[str, Any] = json.loads((self.folder / "case.json").read_text(encoding="utf-8"))

    @property
    def method(self) -> str:
        return str(self.data["method"])

    @cached_property
    def expected(self) -> dict[str, Array]:
        with np.load(self.folder / "expected.npz") as file:
            return dict(file)

    @cached_property
    def backbone(self) -> Backbone:
        """The tiny CLIP of the case, from its weight stream."""
        overrides = self.data.get("clip_overrides") or {}
        config = dataclasses.replace(tiny_clip.CONFIGS[self.data["clip"]], **overrides)
        state = tiny_clip.state_dict(config, int(self.data["clip_seed"]))
        model = from_openai_state_dict(state, activation="quick_gelu" if config.quick_gelu else "gelu")
        return Backbone(model, clip_tokenizer(), name=self.data["clip"])

    @cached_property
    def dinov2(self) -> Dinov2Backbone:
        """The tiny DINOv2 of the case, from its weight stream."""
        overrides = self.data.get("dinov2_overrides") or {}
        config = dataclasses.replace(tiny_dinov2.CONFIGS[self.data["dinov2"]], **overrides)
        state = tiny_dinov2.state_dict(config, int(self.data["dinov2_seed"]))
        heads = {"num_attention_heads": config.num_attention_heads}
        tower = Dinov2Tower.from_state_dict({name: torch.from_numpy(value) for name, value in state.items()}, heads)
        return Dinov2Backbone(tower, name=self.data["dinov2"])

    @cached_property
    def weights(self) -> dict[str, torch.Tensor]:
        """The extra weights under the authors' names."""
        return {
            entry["key"]: torch.as_tensor(tiny_clip.array(entry["array"], tuple(entry["shape"]), entry["std"]))
            + entry.get("offset", 0)
            for entry in self.data.get("extra_weights", [])
        }

    @cached_property
    def images(self) -> list[Image.Image]:
        return [self.open(name) for name in self.data["image_files"]]

    def open(self, name: str) -> Image.Image:
        """A picture: in the case's folder, in the folder it names, or in `images/` beside or above it."""
        own = [self.folder / self.data.get(key, ".") / name for key in ("dataset_root", "image_dir")]
        above = [parent / "images" / name for parent in (self.folder, *self.folder.resolve().parents)]
        for path in [*own, *above]:
            if path.is_file():
                with Image.open(path) as image:
                    image.load()
                    return image
        raise FileNotFoundError(f"{name} of {self.folder}")

    def pixels(self) -> torch.Tensor:
        return self.backbone.preprocess(self.images, int(self.data["image_size"]))

    def compare(self, outputs: dict[str, Array], exceptions: dict[str, Array] | None = None) -> list[Row]:
        """Every expected output against what was computed.

        `exceptions`: tolerances of single entries (broadcast to an output's shape) that a case states in words.
        """
        at_least = exceptions or {}
        return [
            self._compare(name, expected, outputs.get(name), at_least.get(name))
            for name, expected in self.expected.items()
        ]

    def _compare(self, name: str, expected: Array, found: Array | None, at_least: Array | None) -> Row:
        rule = self._rule(name)
        # nan is expected to be met by nan
        allowed = rule["atol"] + rule.get("rtol", 0) * np.abs(np.nan_to_num(expected.astype(np.float64)))
        allowed = allowed if at_least is None else np.maximum(allowed, at_least)
        largest = float(np.max(allowed, initial=rule["atol"]))
        if found is None or tuple(found.shape) != expected.shape:
            return Row(name, float("inf"), largest, False)
        ours, theirs = np.asarray(found, np.float64), np.asarray(expected, np.float64)
        difference = np.where(np.isnan(ours) & np.isnan(theirs), 0.0, np.abs(ours - theirs))
        beyond = ~(difference <= allowed)
        ok = not beyond.any()
        if not ok and "allowed_outliers" in rule:
            few = beyond.mean() <= rule["allowed_outliers"]
            ok = bool(few and (difference <= rule["outlier_atol"]).all())
        return Row(name, float(np.max(difference, initial=0.0)), largest, bool(ok))

    def _rule(self, name: str) -> dict[str, float]:
        """The tolerance of an output: named, by pattern (the longest that fits), or the default."""
        written = self.data["tolerance"]
        rules = {k: v for k, v in written.items() if isinstance(v, dict) and "atol" in v}
        rules |= written.get("per_output", {}) | written.get("overrides", {})
        if isinstance(written.get("atol"), dict):
            rules |= {key: {"atol": value, "rtol": written.get("rtol", 0)} for key, value in written["atol"].items()}
        elif "atol" in written:
            rules["default"] = {"atol": written["atol"], "rtol": written.get("rtol", 0)}
        fitting = sorted(
            (key for key in rules if key == name or fnmatch(name, key)), key=lambda key: (key == name, len(key))
        )
        return dict(rules[fitting[-1] if fitting else "default"])


def array(tensor: torch.Tensor) -> Array:
    """A tensor as an array, without its gradient."""
    out: Array = tensor.detach().cpu().numpy()
    return out
