"""`blemish fit`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from blemish.cli.console import (
    CHANGES,
    COMPUTING,
    METHOD_OPTIONS,
    PICTURES,
    RESULTS,
    VERDICTS,
    Range,
    Threshold,
    config_changes,
    count,
    note,
    one_line,
    print_json,
    progress,
)
from blemish.cli.detect import checked_weights
from blemish.cli.loading_options import BACKBONE, OBJECT, refuse_fixed
from blemish.errors import UsageError
from blemish.types import Preset

if TYPE_CHECKING:
    from blemish.detector import Detector
    from blemish.profile import Profile

Words = Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")]


def fit(
    *good: str,
    out: Annotated[Path | None, Parameter(group=RESULTS)] = None,
    method: Annotated[str | None, Parameter(group=METHOD_OPTIONS)] = None,
    object_name: Annotated[str, Parameter(name="--object", group=METHOD_OPTIONS)] = OBJECT,
    false_alarms: Annotated[Threshold, Parameter(group=VERDICTS)] = None,
    review: Annotated[Threshold, Parameter(group=VERDICTS)] = None,
    min_area: Annotated[int, Parameter(group=VERDICTS)] = 1,
    roi: Annotated[str | None, Parameter(group=VERDICTS)] = None,
    bad: Annotated[Words, Parameter(group=VERDICTS)] = None,
    known_defects: Annotated[Words, Parameter(group=VERDICTS)] = None,
    rule: Annotated[
        Literal["conformal", "mean-std", "percentile", "f1", "recall", "cost"], Parameter(group=VERDICTS)
    ] = "conformal",
    recall: Annotated[Threshold, Parameter(group=VERDICTS)] = None,
    cost: Annotated[str | None, Parameter(group=VERDICTS)] = None,
    robust: Annotated[bool, Parameter(negative="", group=VERDICTS)] = False,
    profile: Annotated[Path | None, Parameter(group=CHANGES)] = None,
    add: Annotated[Words, Parameter(group=CHANGES)] = None,
    add_rejected: Annotated[Words, Parameter(group=CHANGES)] = None,
    remove: Annotated[Words, Parameter(group=CHANGES)] = None,
    backbone: Annotated[str, Parameter(group=METHOD_OPTIONS)] = BACKBONE,
    weights: Annotated[Path | None, Parameter(group=METHOD_OPTIONS)] = None,
    tile: Annotated[int | None, Parameter(group=PICTURES)] = None,
    overlap: Annotated[float | None, Parameter(group=PICTURES)] = None,
    recursive: Annotated[bool, Parameter(group=PICTURES)] = False,
    max_pixels: Annotated[int | None, Parameter(group=PICTURES)] = None,
    value_range: Annotated[Range, Parameter(group=PICTURES)] = None,
    preset: Annotated[Preset | None, Parameter(group=METHOD_OPTIONS)] = None,
    config: Annotated[str | None, Parameter(group=METHOD_OPTIONS)] = None,
    device: Annotated[str, Parameter(group=COMPUTING)] = "auto",
    precision: Annotated[Literal["auto", "float32", "bfloat16", "float16"], Parameter(group=COMPUTING)] = "auto",
    json: Annotated[bool, Parameter(group=RESULTS)] = False,
) -> int:
    """Make a profile of the good pictures of one product: memory, thresholds with a promise, scale of heatmaps.

    Args:
        good: Pictures of flawless parts: files, folders, patterns.
        out: File to write, such as part.profile. [default: with --profile that file]
        method: A few-shot method; `blemish methods` lists them. [default: joint]
        object_name: What the pictures show, such as "metal nut", for methods that use the name.
        false_alarms: Share of good parts that are rejected, at most: 1% or 0.01. [default: 1%, or the smallest that so
            many pictures can promise]
        review: Share of good parts that are reviewed or rejected, at most; more than --false-alarms.
        min_area: Smallest region in pixels.
        roi: What counts in a picture: a mask picture (white counts), a polygon "x,y x,y x,y", or a JSON file with one.
        bad: Pictures with defects: how many are caught is reported, and the rules f1, recall and cost need them.
        known_defects: Pictures with defects that the profile keeps, resized for the model: after each change it says
            how many of them are caught. With --profile they are added to it.
        rule: Rule of the thresholds; only conformal promises something.
        recall: Share of the bad pictures that the rule recall catches, at least. [default: 95%]
        cost: For the rule cost: cost of a missed defect and of a false alarm, such as 10:1. [default: 1:1]
        robust: Leave out good pictures that look unlike the others.
        profile: A profile to change, for --add, --add-rejected, --remove and --known-defects.
        add: Good pictures that are added to --profile; those that it has are not needed.
        add_rejected: Good pictures that were rejected, or chosen by their scores in another way. The profile learns
            from them, and its promise does not count on them.
        remove: Pictures that are taken out of --profile, good ones or known defects: files or fingerprints, as
            `blemish info` lists them.
        backbone: `builtin`, or any CLIP model: a hub id, a folder, a checkpoint file.
        weights: Weights of the method: a file, or a name from `blemish weights list`. [default: the shipped ones]
        tile: Cut larger pictures into tiles of this side in pixels, as in detect.
        overlap: Overlap of neighbouring tiles, as a fraction of their side. [default: 0.25]
        recursive: Search subfolders, too.
        max_pixels: Refuse larger pictures.
        value_range: LOW,HIGH: the values that become black and white in pictures of more than 8 bits, as in detect.
        preset: fast scores with the built-in model in at most half the time per picture, a little less accurately.
            [default: default]
        config: Fields of the method's config to change, as JSON: '{"size": 448}'.
        device: auto, cpu, cuda, cuda:1, ...
        precision: Precision of the vision tower, as in detect; the profile holds for that precision only.
        json: Print the profile's description as one JSON object.
    """
    start = time.perf_counter()
    if profile is not None:
        _refuse(good, "--profile changes a profile: give more pictures with --add")
        if not (add or add_rejected or remove or known_defects):
            raise UsageError(
                "--profile changes a profile: give --add, --add-rejected, --remove or --known-defects PICTURES, too"
            )
        fixed = {
            "--method": method is not None,
            "--object": object_name != OBJECT,
            "--false-alarms": false_alarms is not None,
            "--review": review is not None,
            "--min-area": min_area != 1,
            "--roi": roi is not None,
            "--bad": bool(bad),
            "--rule": rule != "conformal",
            "--recall": recall is not None,
            "--cost": cost is not None,
            "--robust": robust,
            "--tile": tile is not None,
            "--overlap": overlap is not None,
            "--value-range": value_range is not None,
            "--preset": preset is not None,
            "--config": config is not None,
        }
        refuse_fixed(fixed, "the profile", "fit")
        changes = _Changes(add or (), add_rejected or (), remove or (), known_defects or ())
        detector = _changed(profile, changes, backbone, weights, recursive, max_pixels, device, precision)
        return _finish(detector, out or profile, start, json)
    if add or add_rejected or remove:
        raise UsageError("--add, --add-rejected and --remove change a profile: give --profile FILE, too")
    if out is None:
        raise UsageError("the profile needs a name: give --out part.profile")
    if not good:
        raise UsageError("no good pictures are given: give files, folders or patterns")
    if overlap is not None and tile is None:
        raise UsageError("--overlap is the overlap of tiles: give --tile PIXELS, too")
    if rule in ("f1", "recall", "cost") and not bad:
        raise UsageError(f"--rule {rule} needs pictures with defects: give --bad PICTURES")
    options: dict[str, Any] = {
        "false_alarms": false_alarms,
        "review": review,
        "min_area": min_area,
        "roi": roi,
        "rule": rule,
        "robust": robust,
        **_costs(cost),
    }
    if recall is not None:
        options["recall"] = recall

    from blemish.image_io import MAX_PIXELS, find_images
    from blemish.loading import FIT_METHOD
    from blemish.methods import info, list_methods
    from blemish.types import DEFAULT_OVERLAP

    method = method or FIT_METHOD
    if not info(method).few_shot:
        names = [name for name in list_methods() if info(name).few_shot]
        raise UsageError(f"{method} compares with no good pictures; the methods that do are {', '.join(names)}")
    pictures = list(find_images(good, recursive=recursive))
    defects = list(find_images(bad, recursive=recursive)) if bad else None
    known = list(find_images(known_defects, recursive=recursive)) if known_defects else []
    weights = checked_weights(method, backbone, weights, object_name)

    from blemish.limits import FitOptions, require_enough
    from blemish.loading import load

    require_enough(len(pictures), FitOptions(**options, bad=defects))
    detector = load(
        method,
        backbone=backbone,
        weights=weights,
        object_name=object_name,
        device=device,
        precision=precision,
        max_pixels=max_pixels or MAX_PIXELS,
        value_range=value_range,
        preset=preset,
        config=config_changes(config) or None,
        tile=tile,
        overlap=DEFAULT_OVERLAP if overlap is None else overlap,
    )
    with progress(len(pictures), "fitting") as advance:
        detector = detector.fit(pictures, bad=defects, on_progress=advance, **options)
    if known:
        detector = detector.with_known_defects(known)
    return _finish(detector, out, start, json)


@dataclass(frozen=True)
class _Changes:
    """The words of the options that change a profile."""

    add: Sequence[str]
    add_rejected: Sequence[str]
    remove: Sequence[str]
    known_defects: Sequence[str]


def _changed(
    profile: Path,
    changes: _Changes,
    backbone: str,
    weights: Path | None,
    recursive: bool,
    max_pixels: int | None,
    device: str,
    precision: Any,
) -> Detector:
    from blemish.image_io import MAX_PIXELS, find_images
    from blemish.loading import load
    from blemish.profile import find_named, read_profile

    read = read_profile(profile)
    more, rejected, defects = (
        list(find_images(words, recursive=recursive)) if words else []
        for words in (changes.add, changes.add_rejected, changes.known_defects)
    )
    detector = load(
        profile=read,
        backbone=backbone,
        weights=weights,
        device=device,
        precision=precision,
        max_pixels=max_pixels or MAX_PIXELS,
    )
    known = [name for name in changes.remove if find_named(read.known_defects, name)]
    if known:
        detector = detector.without_known_defects(known)
    if names := [name for name in changes.remove if name not in known]:
        detector = detector.without_good(names)
    with progress(len(more) + len(rejected) + len(defects), "fitting") as advance:
        if more:
            detector = detector.with_more_good(more, on_progress=advance)
        if rejected:
            detector = detector.with_more_good(rejected, selected=True, on_progress=advance)
        if defects:
            detector = detector.with_known_defects(defects, on_progress=advance)
    return detector


def _finish(detector: Detector, out: Path, start: float, json: bool) -> int:
    profile = detector.profile
    assert profile is not None
    path = profile.save(out)
    if json:
        print_json({"path": str(path), "bytes": path.stat().st_size, **profile.summary()})
        return 0
    _print(profile, path, time.perf_counter() - start)
    return 0


def _print(profile: Profile, path: Path, seconds: float) -> None:
    from blemish.cli.info import limits_sentences

    pictures = count(len(profile.good), "good picture")
    size = path.stat().st_size / 1e6
    preset = "" if profile.preset in (None, "default") else f", preset {profile.preset}"
    name = one_line(str(path))
    print(f"{name} ({size:.1f} MB): {profile.object_name!r} from {pictures}, by {profile.method}{preset}.")
    for sentence in limits_sentences(profile):
        print(sentence)
    for sentence in profile.notes:
        note(one_line(sentence))
    print(f"Done in {seconds:.1f} s. Use it: blemish detect PICTURES --profile {one_line(str(path))}")


def _refuse(words: Sequence[str], sentence: str) -> None:
    if words:
        raise UsageError(sentence)


def _costs(text: str | None) -> dict[str, float]:
    if text is None:
        return {}
    try:
        miss, false_alarm = map(float, text.split(":"))
    except ValueError as error:
        raise UsageError(f"--cost is MISS:FALSE-ALARM, such as 10:1, not {text}") from error
    return {"miss_cost": miss, "false_alarm_cost": false_alarm}
