"""One picture under other criteria: its verdict and files are made again from its journal line and its map."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blemish.calibration import verdict
from blemish.detection import Detection, FileKind, Provenance, Timing
from blemish.errors import ImageError
from blemish.image_io import MAX_PIXELS, LoadedImage, read_image
from blemish.maps import DecodedMap, decode_map
from blemish.outputs.journal import FileKey, Line, file_key
from blemish.outputs.results import ResultKind

if TYPE_CHECKING:
    from blemish.profile import Limits

#: Files that can be made of a map again.
DRAWN: tuple[ResultKind, ...] = ("heatmap", "overlay", "mask", "regions")
#: What a verdict consists of.
_VERDICT = ("label", "verdict", "p_value", "threshold", "review_threshold", "mask_threshold", "min_area", "regions")


@dataclass(frozen=True, kw_only=True)
class Criteria:
    """What a score and a map become a verdict by.

    Attributes:
        threshold: As in `Detection`.
        mask_threshold: As in `Detection`; None = `threshold`.
        review_threshold: As in `Detection`.
        min_area: As in `Detection`.
        heatmap_range: As in `Detection`.
        p_value: Returns the p-value of a score; None keeps those that there are.
    """

    threshold: float | None
    mask_threshold: float | None
    review_threshold: float | None
    min_area: int
    heatmap_range: tuple[float, float]
    p_value: Callable[[float], float | None] | None = None

    @classmethod
    def of_limits(cls, limits: Limits, scale: tuple[float, float]) -> Criteria:
        """Return the criteria of limits; `scale` is what heatmaps are drawn on."""
        return cls(
            threshold=limits.threshold,
            mask_threshold=limits.mask_threshold,
            review_threshold=limits.review_threshold,
            min_area=limits.min_area,
            heatmap_range=scale,
            p_value=limits.p_value,
        )


@dataclass(frozen=True)
class JudgedLine:
    """A journal line under other criteria, with its files. `undrawn` says why its overlay could not be drawn."""

    line: Line
    files: Mapping[FileKind, Path]
    undrawn: str | None = None


def verdict_settings(limits: Limits) -> dict[str, Any]:
    """Return what of a run's settings makes verdicts of scores."""
    settings: dict[str, Any] = {"threshold": limits.threshold, "mask": limits.mask_threshold}
    return {**settings, "limits": limits.fingerprint} if limits.scores else settings


def read_map(folder: Path, line: Line) -> DecodedMap:
    """Return the map of a picture.

    Raises:
        ImageError: It is missing or damaged.
    """
    name = line["files"].get("map-png")
    if name is None:
        raise ImageError(f"there is no map of {line['path']!r}; run detect again, which keeps maps.", line["path"])
    try:
        return decode_map((folder / name).read_bytes())
    except OSError as error:
        raise ImageError(f"the map {name} cannot be read: {error.strerror or error}.", folder / name) from error
    except ImageError as error:
        raise ImageError(f"the map {name} cannot be read: {error}", folder / name) from error


def detection_of(line: Line, values: DecodedMap) -> Detection:
    """Return the detection of a journal line and its map."""
    source, timing = line["provenance"], line["timing"]
    return Detection(
        score=line["score"],
        anomaly_map=values.values,
        map_range=pair(line["map_range"]),
        size=(line["size"][0], line["size"][1]),
        path=line["path"],
        threshold=line["threshold"],
        mask_threshold=line["mask_threshold"],
        min_area=line.get("min_area", 1),
        notes=tuple(line["notes"]),
        timing=Timing(**_known(Timing, timing)),
        provenance=None if source is None else Provenance(**_known(Provenance, source)),
        map_step=values.step,
        review_threshold=line.get("review_threshold"),
        p_value=line.get("p_value"),
        heatmap_range=pair(line.get("heatmap_range") or line["map_range"]),
    )


def judge_line(
    folder: Path, line: Line, criteria: Criteria, kinds: Iterable[FileKind] = (), *, max_pixels: int = MAX_PIXELS
) -> JudgedLine:
    """Return a result under other criteria, and write its files where they change; thread-safe.

    Overlays, heatmaps and masks that there are and that would look different are drawn again.

    Args:
        folder: The folder of results.
        line: The journal line.
        criteria: What to judge by.
        kinds: Files that it is to have; maps stay as they are.
        max_pixels: A larger picture is not read to be drawn on.

    Raises:
        ImageError: The map is needed, and it is missing or damaged.
        OutputError: A file cannot be written.
    """
    values: DecodedMap | None = None
    fields_ = _verdict(line, criteria)
    if needs_map(line, criteria):
        values = read_map(folder, line)
        detection = _under(detection_of(line, values), fields_, criteria)
        fields_["regions"] = [region.to_dict() for region in detection.regions]
    elif _has_same_regions(line, fields_):
        fields_["regions"] = line["regions"]
    new = {**line, **fields_, "heatmap_range": list(criteria.heatmap_range)}
    files: dict[FileKind, Path] = {kind: folder / name for kind, name in line["files"].items()}
    if new["mask_threshold"] is None:
        files.pop("mask", None)
    draw = _to_draw(line, new, files, kinds)
    if not draw:
        return JudgedLine(new, files)
    detection = _under(detection_of(line, values or read_map(folder, line)), fields_, criteria)
    undrawn = None
    picture = None
    if "overlay" in draw:
        try:
            picture = _picture(line, max_pixels)
        except ImageError as error:
            undrawn, draw = str(error), draw - {"overlay"}
    files |= detection.save(folder, draw, picture=picture, name=line["name"])
    return JudgedLine(new, files, undrawn)


def needs_map(line: Line, criteria: Criteria) -> bool:
    """Return whether the regions of a picture have to be found in its map: below its peak, and not known already."""
    fields_ = _verdict(line, criteria)
    lowest = _mask_value(line["map_range"], fields_["mask_threshold"])
    return lowest is not None and line["peak"] >= lowest and not _has_same_regions(line, fields_)


def _verdict(line: Line, criteria: Criteria) -> dict[str, Any]:
    """Return the fields of a verdict, without regions."""
    score, threshold, review = line["score"], criteria.threshold, criteria.review_threshold
    mask_threshold = threshold if criteria.mask_threshold is None else criteria.mask_threshold
    return {
        "label": None if threshold is None else int(score >= threshold),
        "verdict": None if threshold is None else verdict(score, threshold if review is None else review, threshold),
        "p_value": line.get("p_value") if criteria.p_value is None else criteria.p_value(score),
        "threshold": threshold,
        "review_threshold": review,
        "mask_threshold": mask_threshold,
        "min_area": criteria.min_area,
        "regions": [],
    }


def _under(detection: Detection, fields_: Mapping[str, Any], criteria: Criteria) -> Detection:
    """Return a detection under the criteria whose fields of a verdict are given."""
    names = ("threshold", "mask_threshold", "review_threshold", "min_area", "p_value")
    return replace(detection, **{name: fields_[name] for name in names}, heatmap_range=criteria.heatmap_range)


def _has_same_regions(line: Line, fields_: Mapping[str, Any]) -> bool:
    return all(line.get(name, 1) == fields_[name] for name in ("mask_threshold", "min_area"))


def _mask_value(map_range: Iterable[float], mask_threshold: float | None) -> float | None:
    low, high = map_range
    return None if mask_threshold is None else low + mask_threshold * (high - low)


def _to_draw(line: Line, new: Line, files: Mapping[FileKind, Path], kinds: Iterable[FileKind]) -> set[FileKind]:
    """Return the files to be drawn: those asked for that are missing, and those that would look different."""
    scale = list(line.get("heatmap_range") or line["map_range"]) != new["heatmap_range"]
    mask = any(line.get(name) != new[name] for name in ("mask_threshold",))
    # Outlines, score and verdict are drawn where there is a profile.
    words = any(line.get(name) != new[name] for name in _VERDICT)
    is_lettered = line.get("p_value") is not None or new["p_value"] is not None
    stale = {"heatmap": scale, "overlay": scale or (words and is_lettered), "mask": mask}
    drawn: set[FileKind] = {kind for kind, is_stale in stale.items() if is_stale and kind in files}  # type: ignore[misc]
    missing = {kind for kind in kinds if kind in stale and not (kind in files and files[kind].is_file())}
    return (drawn | missing) - ({"mask"} if new["mask_threshold"] is None else set())


def _picture(line: Line, max_pixels: int) -> LoadedImage:
    """Return the picture as it was read when it was scored. Raises ImageError."""
    file, size, modified = line["key"][:3]
    if file_key(file) not in (None, FileKey(file, size, modified)):
        raise ImageError(f"{line['path']!r} has changed since it was scored.", file)
    value_range = (line["provenance"] or {}).get("value_range")
    picture = read_image(file, max_pixels=max_pixels, value_range=None if value_range is None else pair(value_range))
    if list(picture.image.size) != list(line["size"]):
        raise ImageError(f"{line['path']!r} has another size than when it was scored.", file)
    return picture


def _known(cls: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries that a class has fields for; lists become tuples."""
    names = {entry.name for entry in fields(cls)}
    plain = {name: value for name, value in values.items() if name in names}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()}


def pair(values: Iterable[float]) -> tuple[float, float]:
    """Return two numbers of JSON as a tuple."""
    low, high = values
    return (float(low), float(high))
