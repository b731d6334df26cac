"""A profile: what `fit` learns from the good pictures of one product, in one small file that everything reads.

A profile holds the memory bank of the good pictures, the limits with their promise (thresholds, scale of heatmaps,
region of interest), and what these depend on: method, config, backbone, weights, precision, preprocessing, tiles. It
is a
value: a detector is made with it, and nothing changes it afterwards.

The file is a safetensors file. Its header has the entries `format` ("blemish-profile"), `version` and `profile` (JSON);
its tensors are those of the memory bank, and PNGs of the region of interest and of the known defects as the model sees
them. Nothing in it is executed. The memory is stored in half precision where that loses nothing: it was rounded before
the scores of the good pictures were computed, so the file gives the very scores that the thresholds were made for.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors.torch import load as from_safetensors
from torch import Tensor

from blemish.calibration import Calibration, Scheme
from blemish.clip import Tap
from blemish.errors import ProfileError, UsageError
from blemish.files import absolute, parse_json, write_atomically
from blemish.methods import load_class
from blemish.methods.base import MemoryBank, ReferenceMethod
from blemish.methods.builtin import preset_of
from blemish.methods.checkpoints import check_sum, to_bytes
from blemish.roi import Roi
from blemish.types import PathLike, Preset, Tiling, ValueRange, check_threshold

SUFFIX = ".profile"
FORMAT = "blemish-profile"
#: The format of a profile with known defects; one without is of format 1, which older versions read.
VERSION = 2
#: Safetensors allows no longer header.
_MAX_HEADER_BYTES = 100_000_000
_ROI, _DEFECTS = "roi", "known_defects/"
#: What has to be equal before a profile is used, with the remedy if it is not.
_SAME = {
    "method": ("the method", "load that method"),
    "config": ("the config", "leave out the other config"),
    "backbone_fingerprint": ("the backbone", "give the same backbone"),
    "weights_fingerprint": ("the weights of the method", "give the same weights"),
    "precision": ("the precision", "load with that precision"),
    "preprocessing": ("the preprocessing", "use the version of blemish that made it"),
}


@dataclass(frozen=True)
class GoodPicture:
    """One of the good pictures that a profile was made of.

    Attributes:
        name: Its file as it was given, or "picture 3".
        fingerprint: Hash of its pixels, 16 hex digits, whatever the file's name.
        images: Its entries in the memory bank: 1, or its number of tiles; 0 for one that only calibrates.
        score: Image score against the memory without itself; None for one that is only in the memory.
        level: The highest value of its map at which a region of `min_area` pixels appears, made in the same way.
        peak: The highest value of that map.
        usual: The median of that map.
        size: (width, height) in pixels.
        suspicious: Whether it looks unlike the other good pictures.
        selected: Whether it was added because of its score, such as a false alarm; the promise does not count on it.
    """

    name: str
    fingerprint: str
    images: int
    score: float | None = None
    level: float | None = None
    peak: float | None = None
    usual: float | None = None
    size: tuple[int, int] = (0, 0)
    suspicious: bool = False
    selected: bool = False

    @property
    def calibrates(self) -> bool:
        """Whether thresholds depend on its score. A selected one that is a reference only makes other scores lower."""
        return self.score is not None and not (self.selected and self.images > 0)


@dataclass(frozen=True)
class KnownDefect:
    """A picture with a defect that a profile should catch, kept as the model sees it, so that it can be scored again.

    Attributes:
        name: Its file as it was given, or "picture 3".
        fingerprint: Hash of its pixels, 16 hex digits, as of a `GoodPicture`.
        score: Image score with the profile's memory.
        size: (width, height) in pixels.
        tiles: The resized picture, or each of its tiles, as a PNG.
    """

    name: str
    fingerprint: str
    score: float
    size: tuple[int, int]
    tiles: tuple[bytes, ...] = field(repr=False, compare=False)


Named = TypeVar("Named", GoodPicture, KnownDefect)


def find_named(entries: Sequence[Named], name: str) -> list[Named]:
    """Return the pictures that a person can mean by a path, the name of a file, or a fingerprint."""
    return [
        entry
        for entry in entries
        if name in (entry.name, entry.fingerprint, Path(entry.name).name) or absolute(name) == absolute(entry.name)
    ]


@dataclass(frozen=True, kw_only=True, eq=False)
class Limits:
    """What turns a score and a map into a verdict.

    Attributes:
        threshold: A picture with score >= threshold is anomalous; None = no label.
        mask_threshold: The same for pixels, as a fraction of the method's `map_range`.
        review_threshold: A picture with a score from here up to `threshold` is to be looked at; None = no such class.
        min_area: Smallest region in pixels.
        heatmap_range: (low, high): what good pictures reach is transparent, and the threshold of pixels is in the
            middle. None draws on the method's scale.
        scores: Image scores of good pictures, which p-values count.
        scheme: How these scores came about: see `blemish.calibration`.
        contaminated: Number of bad pictures that may be among them.
        removed: Number of good pictures that were left out because they look unlike the others.
        promise: What the threshold promises, as a sentence; None without a promise.
        roi: The part of the picture that counts; None = all of it.
    """

    threshold: float | None = None
    mask_threshold: float | None = None
    review_threshold: float | None = None
    min_area: int = 1
    heatmap_range: tuple[float, float] | None = None
    scores: tuple[float, ...] = ()
    scheme: Scheme = "leave-one-out"
    contaminated: int = 0
    removed: int = 0
    promise: str | None = None
    roi: Roi | None = None

    def __post_init__(self) -> None:
        check_threshold("threshold", self.threshold)
        check_threshold("mask_threshold", self.mask_threshold)
        check_threshold("review_threshold", self.review_threshold)
        if self.review_threshold is not None and self.threshold is not None and self.review_threshold > self.threshold:
            raise UsageError(
                f"the threshold of review, {self.review_threshold:.4g}, lies above that of rejection, "
                f"{self.threshold:.4g}; give review the larger false-alarm rate"
            )

    @property
    def calibration(self) -> Calibration | None:
        """The scores of good pictures; None without."""
        if not self.scores:
            return None
        scores = np.asarray(self.scores, np.float32)
        return Calibration(scores, self.scheme, contaminated=self.contaminated, removed=self.removed)

    def p_value(self, score: float) -> float | None:
        """Return the share of good pictures that look at least as odd; None without scores of good pictures."""
        calibration = self.calibration
        return None if calibration is None else calibration.p_value(score)

    @property
    def fingerprint(self) -> str:
        """Hash of all values, 16 hex digits."""
        text = json.dumps(self.to_dict(), sort_keys=True).encode()
        return hashlib.sha256(text + (b"" if self.roi is None else self.roi.to_png())).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the region of interest as JSON-able values."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "roi"}
        return {**values, "scores": list(self.scores), "heatmap_range": _list(self.heatmap_range)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], roi: Roi | None = None) -> Limits:
        """Return what `to_dict` wrote."""
        scale = values.get("heatmap_range")
        lists = {"scores": tuple(values.get("scores", ())), "heatmap_range": None if scale is None else tuple(scale)}
        return cls(**{**_known(cls, values), **lists, "roi": roi})


@dataclass(frozen=True, kw_only=True, eq=False)
class Profile:
    """What the good pictures of one product say, and what it was made with. `Detector.fit` makes one.

    Attributes:
        memory: Memory bank of the good pictures.
        limits: Thresholds with their promise, scale of heatmaps, region of interest.
        good: The good pictures.
        known_defects: Pictures with defects that it should catch; they change no threshold.
        method: Name of the method.
        config: Settings of the method, JSON-able.
        object_name: What the pictures show.
        backbone: Name of the backbone.
        backbone_fingerprint: Hash of its weights, 16 hex digits.
        weights: Name of the method's weights; None for a method without.
        weights_fingerprint: Hash of the method's weights; None without.
        precision: "float32", "bfloat16", ...
        preprocessing: How pictures become the model's input.
        map_range: The method's fixed scale of maps made with this memory.
        tiling: How pictures are cut; None = not at all.
        value_range: The values that become black and white in pictures of more than 8 bits; None = by the rule of
            `read_image`.
        options: What was asked of `fit`: rule, promises, smallest region.
        false_alarms: The promised false-alarm rate; None for a rule that promises none.
        guarantee: What is promised, in numbers and as a sentence; empty for a rule without a promise.
        notes: What was noticed while fitting.
        created: Date, ISO 8601.
        version: Version of blemish.
        path: Its file; None for one from memory.
    """

    memory: MemoryBank
    limits: Limits
    good: tuple[GoodPicture, ...]
    method: str
    config: Mapping[str, Any]
    object_name: str
    backbone: str
    backbone_fingerprint: str
    weights: str | None
    weights_fingerprint: str | None
    precision: str
    preprocessing: Mapping[str, Any]
    map_range: tuple[float, float]
    known_defects: tuple[KnownDefect, ...] = ()
    tiling: Tiling | None = None
    value_range: ValueRange | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    false_alarms: float | None = None
    guarantee: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    created: str = ""
    version: str = ""
    path: str | None = None

    def __repr__(self) -> str:
        return f"Profile({self.object_name!r}, {self.method}, {len(self.good)} good pictures)"

    @property
    def preset(self) -> Preset | None:
        """The preset of the built-in model that it was made with; None for another backbone or input size."""
        return preset_of(self.method, self.backbone, self.config)

    @property
    def fingerprint(self) -> str:
        """Hash of the pixels of the pictures in the memory, 16 hex digits."""
        return self.memory.fingerprint

    @property
    def suspicious(self) -> tuple[GoodPicture, ...]:
        """The good pictures that look unlike the others, the oddest first."""
        odd = [picture for picture in self.good if picture.suspicious]
        return tuple(sorted(odd, key=lambda picture: -(picture.score or 0.0)))

    def missed_defects(self, threshold: float | None = None) -> tuple[KnownDefect, ...]:
        """Return the known defects below a threshold, the lowest score first.

        Args:
            threshold: Threshold of pictures; None = the profile's.

        Raises:
            UsageError: There is no threshold.
        """
        threshold = self.limits.threshold if threshold is None else threshold
        if threshold is None:
            raise UsageError("the profile has no threshold that a known defect could miss; give one")
        missed = [defect for defect in self.known_defects if defect.score < threshold]
        return tuple(sorted(missed, key=lambda defect: defect.score))

    def check(self, facts: Mapping[str, Any]) -> None:
        """Raise a ProfileError unless a detector has what the profile was made with.

        Args:
            facts: `method`, `config`, `backbone`, `backbone_fingerprint`, `weights`, `weights_fingerprint`,
                `precision` and `preprocessing` of the detector.
        """
        name = self.path or "the profile"
        for key, (what, remedy) in _SAME.items():
            mine, other = _plain(getattr(self, key)), _plain(facts[key])
            if isinstance(mine, dict) and isinstance(other, dict):
                # A later version may have more fields, whose defaults change nothing.
                differing = sorted(k for k in mine if mine[k] != other.get(k))
                mine, other = ({k: values.get(k) for k in differing} for values in (mine, other))
            if mine == other:
                continue
            label = key.removesuffix("_fingerprint")
            if label != key:
                mine, other = f"{getattr(self, label)} ({mine})", f"{facts[label]} ({other})"
            raise ProfileError(
                f"{name} was made with other settings: {what} was {mine}, and it is {other} here; {remedy}, or fit "
                "again",
                self.path,
            )

    def summary(self) -> dict[str, Any]:
        """Return everything but the memory as JSON-able values, for a person to read."""
        scores = [picture.score for picture in self.good if picture.score is not None and picture.calibrates]
        return {
            **self._header(),
            "fingerprint": self.fingerprint,
            "preset": self.preset,
            "scores": {
                "pictures": len(scores),
                "lowest": min(scores, default=None),
                "median": float(np.median(scores)) if scores else None,
                "highest": max(scores, default=None),
            },
            "roi": None
            if self.limits.roi is None
            else {"source": self.limits.roi.source, "share": self.limits.roi.share},
        }

    def save(self, path: PathLike) -> Path:
        """Write the profile, whole or not at all.

        Args:
            path: The file; ".profile" is added if it has no suffix.

        Returns:
            The file.

        Raises:
            OutputError: It cannot be written.
        """
        path = Path(path)
        path = path if path.suffix else path.with_suffix(SUFFIX)
        tensors, facts = _memory_parts(self.memory)
        if self.limits.roi is not None:
            tensors[_ROI] = _as_tensor(self.limits.roi.to_png())
        for number, defect in enumerate(self.known_defects):
            tensors |= {f"{_DEFECTS}{number}/{tile}": _as_tensor(png) for tile, png in enumerate(defect.tiles)}
        header = {**self._header(), "memory": facts}
        version = VERSION if self.known_defects else 1
        metadata = {"format": FORMAT, "version": str(version), "profile": json.dumps(header, sort_keys=True)}
        data = to_bytes(tensors, metadata)
        write_atomically(path, lambda stream: stream.write(data))
        return path

    def _header(self) -> dict[str, Any]:
        skipped = ("memory", "limits", "good", "known_defects", "tiling", "path")
        return {
            **{f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self) if f.name not in skipped},
            "limits": self.limits.to_dict(),
            "good": [dataclasses.asdict(picture) for picture in self.good],
            "known_defects": [
                {name: value for name, value in dataclasses.asdict(defect).items() if name != "tiles"}
                for defect in self.known_defects
            ],
            "tile": None if self.tiling is None else self.tiling.side,
            "overlap": None if self.tiling is None else self.tiling.overlap,
            "roi_source": None if self.limits.roi is None else self.limits.roi.source,
        }


def read_profile(path: PathLike) -> Profile:
    """Read a profile.

    Raises:
        UsageError: There is no such file.
        ProfileError: The file is no profile, is cut short or damaged, or is of a later version.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        if path.exists():
            raise ProfileError(f"{path} cannot be read: {error.strerror or error}", path) from error
        raise UsageError(f"there is no profile {path}; make one with `blemish fit`") from error
    header = _checked_header(data, path)
    try:
        tensors = from_safetensors(data)
        check_sum(data)
        png = tensors.pop(_ROI, None)
        roi = None if png is None else Roi.from_png(png.numpy().tobytes(), header["roi_source"] or "mask")
        tile, overlap = header.pop("tile"), header.pop("overlap")
        defects = header.pop("known_defects", [])
        pngs = {name: tensors.pop(name).numpy().tobytes() for name in sorted(tensors) if name.startswith(_DEFECTS)}
        values = {
            **_known(Profile, header),
            "memory": _memory(header["method"], header["memory"], tensors),
            "limits": Limits.from_dict(header["limits"], roi),
            "good": tuple(_good_picture(picture) for picture in header["good"]),
            "known_defects": tuple(_known_defect(values, pngs, number) for number, values in enumerate(defects)),
            "map_range": tuple(header["map_range"]),
            "notes": tuple(header["notes"]),
            "value_range": None if header.get("value_range") is None else tuple(header["value_range"]),
            "tiling": None if tile is None else Tiling(tile, overlap),
            "path": str(path),
        }
        return Profile(**values)
    except UsageError:  # an unknown method, which says so itself
        raise
    except Exception as error:  # whatever is wrong inside, the file is of no use
        raise ProfileError(f"{path} is damaged ({type(error).__name__}: {error}); fit again", path) from error


def _good_picture(values: Mapping[str, Any]) -> GoodPicture:
    return GoodPicture(**{**_known(GoodPicture, values), "size": tuple(values.get("size", (0, 0)))})


def _known_defect(values: Mapping[str, Any], pngs: Mapping[str, bytes], number: int) -> KnownDefect:
    own = f"{_DEFECTS}{number}/"
    tiles = tuple(pngs[f"{own}{tile}"] for tile in range(sum(name.startswith(own) for name in pngs)))
    return KnownDefect(**{**_known(KnownDefect, values), "size": tuple(values["size"]), "tiles": tiles})


def _as_tensor(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def is_profile(path: PathLike) -> bool:
    """Return whether a file is named like a profile."""
    return Path(path).suffix.lower() == SUFFIX


def _checked_header(data: bytes, path: Path) -> dict[str, Any]:
    """Return the profile's part of the header. Raises ProfileError for a file that is none, or not whole."""
    no_profile = ProfileError(f"{path} is no profile; `blemish fit` makes one", path)
    length = struct.unpack("<Q", data[:8])[0] if len(data) >= 8 else 0
    if not 2 <= length <= _MAX_HEADER_BYTES or data[8:9] != b"{":
        raise no_profile
    cut_short = ProfileError(f"{path} is cut short; copy it again, or fit again", path)
    if len(data) < 8 + length:
        raise cut_short if FORMAT.encode() in data else no_profile
    try:
        entries = parse_json(data[8 : 8 + length])
        metadata = entries.pop("__metadata__", {})
        end = max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
        if metadata.get("format") != FORMAT:
            raise no_profile
        version = int(metadata["version"])
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise no_profile from error
    if version > VERSION:
        raise ProfileError(
            f"{path} has the format {version} of a later blemish, and this one reads {VERSION}; update blemish", path
        )
    if len(data) < 8 + length + end:
        raise cut_short
    try:
        header: dict[str, Any] = parse_json(metadata["profile"])
    except (ValueError, KeyError, TypeError) as error:
        raise ProfileError(f"{path} has a damaged header ({error}); fit again", path) from error
    return header


def rounded(memory: MemoryBank) -> MemoryBank:
    """Return a memory bank whose values fit into half precision; what does not fit stays as it is."""

    def half(values: Tensor) -> Tensor:
        if values.dtype != torch.float32:
            return values
        low = values.half().float()
        return low if bool(low.isfinite().all()) else values

    tensors, facts = _memory_parts(memory, half=False)
    return _rebuild(type(memory), {name: half(values) for name, values in tensors.items()}, facts)


def to_device(memory: MemoryBank, device: torch.device) -> MemoryBank:
    """Return a memory bank on a device."""
    tensors, facts = _memory_parts(memory, half=False)
    # Sums in double precision stay where they are: not every device computes in it.
    moved = {name: values if values.dtype == torch.float64 else values.to(device) for name, values in tensors.items()}
    return _rebuild(type(memory), moved, facts)


def _memory_parts(memory: MemoryBank, *, half: bool = True) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a memory bank by name, and its other fields."""
    tensors: dict[str, Tensor] = {}
    facts: dict[str, Any] = {}
    for entry in dataclasses.fields(memory):
        value = getattr(memory, entry.name)
        if isinstance(value, Tensor):
            tensors[f"field/{entry.name}"] = value
        elif isinstance(value, Mapping):
            facts[entry.name] = {}
            for key, rows in value.items():
                tensors[f"{entry.name}/{_key_text(key)}"] = rows
        else:
            facts[entry.name] = value
    return ({name: halved(values) for name, values in tensors.items()} if half else tensors), facts


def _memory(method: str, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> MemoryBank:
    """Return the memory bank of a method from what `_memory_parts` returned."""
    cls = load_class(method)
    if not issubclass(cls, ReferenceMethod):
        raise ValueError(f"{method} has no memory")
    full = {name: values.float() if values.dtype == torch.float16 else values for name, values in tensors.items()}
    return _rebuild(cls.Memory, full, facts)


def _rebuild(cls: type[MemoryBank], tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> MemoryBank:
    values: dict[str, Any] = {
        name: {} if isinstance(value, dict) else tuple(value) if isinstance(value, list) else value
        for name, value in facts.items()
    }
    for name, rows in tensors.items():
        kind, _, key = name.partition("/")
        if kind == "field":
            values[key] = rows
        else:
            values[kind][_key(key)] = rows
    return cls(**values)


def halved(values: Tensor) -> Tensor:
    """Return values in half precision if that loses nothing."""
    if values.dtype != torch.float32:
        return values
    low = values.half()
    return low if torch.equal(low.float(), values) else values


def _key_text(key: Any) -> str:
    if isinstance(key, Tap):
        return f"tap {key.layer} {key.path} {key.start} {int(key.seeded)}"
    return f"{type(key).__name__} {key}"


def _key(text: str) -> Tap | int | str:
    kind, _, rest = text.partition(" ")
    if kind == "tap":
        layer, path, start, seeded = rest.split(" ")
        return Tap(int(layer), path, int(start), bool(int(seeded)))  # type: ignore[arg-type]
    return int(rest) if kind == "int" else rest


def _known(cls: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries that a class has fields for, since a newer blemish may have written more."""
    names = {entry.name for entry in dataclasses.fields(cls)}
    return {name: value for name, value in values.items() if name in names}


def _plain(value: Any) -> Any:
    """Return a value as JSON gives it back."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _list(value: tuple[float, float] | None) -> list[float] | None:
    return None if value is None else list(value)


def roi_text(roi: Roi) -> str:
    """Return a region of interest as text, for the header of an exported file."""
    return base64.b64encode(roi.to_png()).decode("ascii")


def roi_from_text(text: str, source: str = "mask") -> Roi:
    """Return what `roi_text` wrote."""
    return Roi.from_png(base64.b64decode(text), source)
