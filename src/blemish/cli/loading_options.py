"""The options that say which detector `detect` and `scan` load: checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from blemish.errors import UsageError

METHOD, BACKBONE, OBJECT = "anomalyclip", "builtin", "object"


def refuse_fixed(options: Mapping[str, bool], file: str = "the exported file", verb: str = "export") -> None:
    """Raise a UsageError for an option that is given, but fixed in a file."""
    for option, given in options.items():
        if given:
            raise UsageError(f"{option} is fixed in {file}: leave it out, or {verb} again with it")


def load_settings(
    *,
    method: str,
    backbone: str,
    weights: Path | None,
    preset: str | None,
    config: str | None,
    object_name: str,
    reference: Sequence[str] | None,
    profile: bool,
    threshold: float | None,
    mask_threshold: float | None,
    batch_size: int,
    device: str,
    precision: str,
    max_pixels: int | None,
    value_range: Any,
    tile: int | None,
    overlap: float | None,
    model: Path | None,
    backend: str | None,
) -> dict[str, Any]:
    """Check the options of a detector and return those that `load` takes in any case.

    Args:
        profile: Whether a profile is given.
        The others as in `blemish detect`.

    Raises:
        UsageError: A value is out of range, or options do not fit together.
    """
    from blemish.image_io import MAX_PIXELS
    from blemish.types import DEFAULT_OVERLAP, Tiling, check_threshold

    if batch_size < 1:
        raise UsageError(f"--batch-size must be at least 1, not {batch_size}")
    if max_pixels is not None and max_pixels < 1:
        raise UsageError(f"--max-pixels must be at least 1, not {max_pixels}")
    if overlap is not None and tile is None:
        raise UsageError("--overlap is the overlap of tiles: give --tile PIXELS, too")
    check_threshold("--threshold", threshold)
    check_threshold("--mask-threshold", mask_threshold)
    if not object_name.strip():
        raise UsageError('--object is empty; give what the pictures show, such as "metal nut"')
    if model is None and backend not in (None, "torch"):
        raise UsageError(f"--backend {backend} runs an exported file: give --model FILE, from blemish export")
    fixed = {
        "--method": method != METHOD,
        "--preset": preset is not None,
        "--config": config is not None,
        "--object": object_name != OBJECT,
        "--reference": bool(reference),
    }
    if model is not None:
        others = {
            "--backbone": backbone != BACKBONE,
            "--weights": weights is not None,
            "--backend torch": backend == "torch",
        }
        refuse_fixed({**fixed, **others})
    if profile:
        others = {
            "--tile": tile is not None,
            "--value-range": value_range is not None,
            "--model": model is not None,
            "--backend": backend is not None,
        }
        refuse_fixed({**fixed, **others}, "the profile", "fit")
    overlap = DEFAULT_OVERLAP if overlap is None else overlap
    if tile is not None:
        Tiling(tile, overlap)  # reports errors before anything is loaded
    return {
        "threshold": threshold,
        "mask_threshold": mask_threshold,
        "device": device,
        "precision": precision,
        "max_pixels": MAX_PIXELS if max_pixels is None else max_pixels,
        "value_range": value_range,
        "tile": tile,
        "overlap": overlap,
    }
