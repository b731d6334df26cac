"""Verdicts again, without the model: from the scores and maps that `blemish detect --out` keeps.

    judged = judge("results", threshold=0.6)
    judged.results["photos/a.png"].verdict

A score is what the model said, and it stays. Label, verdict, p-value, mask and regions follow from it, from the map and
from limits, and are made again by the code that made them first. Maps are kept to 16 bits, so a pixel whose value lies
within half of 1/65535 of the scale from the threshold may change sides.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blemish.concurrency import BackgroundWriter, Commit
from blemish.errors import OutputError, ProfileError, UsageError
from blemish.files import absolute, output_error
from blemish.outputs.journal import Line, settings_fingerprint
from blemish.outputs.pages import write_results_page
from blemish.outputs.region_files import REGION_FORMATS
from blemish.outputs.results import (
    JOURNAL,
    PAGE,
    RUNS,
    Result,
    ResultKind,
    ResultsFolder,
    TableFormat,
    check_kinds,
    now,
    result_of,
    written_names,
)
from blemish.outputs.verdicts import DRAWN, Criteria, JudgedLine, judge_line, needs_map, pair, verdict_settings
from blemish.types import PathLike, check_threshold

if TYPE_CHECKING:
    from blemish.profile import Limits, Profile


@dataclass
class Judged:
    """What `judge` did.

    Attributes:
        folder: Where the results are.
        results: Results by path as given.
        failures: Reason by path, for each picture that could not be scored.
        before: How many pictures had each verdict before; None stands for no verdict.
        undrawn: Why an overlay shows what it showed before, by path.
        models: What scored: method and backbone, each once.
        written: Names of the files and folders that were written.
        has_old_page: Whether there is a `report.html` of before.
    """

    folder: Path
    results: dict[str, Result] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    before: Counter[str | None] = field(default_factory=Counter)
    undrawn: dict[str, str] = field(default_factory=dict)
    models: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    has_old_page: bool = False


def judge(
    folder: PathLike,
    *,
    threshold: float | None = None,
    mask_threshold: float | None = None,
    review_threshold: float | None = None,
    min_area: int | None = None,
    profile: Profile | None = None,
    out: PathLike | None = None,
    kinds: Iterable[ResultKind] = (),
    tables: Iterable[TableFormat] | None = None,
    page: bool = False,
    on_result: Callable[[Line], object] = lambda line: None,
    on_progress: Callable[[], object] = lambda: None,
) -> Judged:
    """Give verdicts again to the results in a folder of `blemish detect`, without the model.

    What is not given stays as it was. A threshold of pictures alone is also that of pixels, as in `detect`, unless the
    results are of a profile, whose threshold of pixels then stays.

    Args:
        folder: The folder.
        threshold: A picture with score >= threshold is rejected, in [0, 1].
        mask_threshold: The same for pixels, as a fraction of the method's scale.
        review_threshold: A picture with a score from here up to the threshold is to be looked at.
        min_area: Smallest region in pixels of the picture.
        profile: Its thresholds, p-values and scale of heatmaps apply, unless others are given. It has to be one that
            the pictures were compared with: made with the same model, settings and good pictures.
        out: Another folder for the results, with files of its own (links, where the disk has them); None judges in
            place. It may hold earlier verdicts on the same runs.
        kinds: Files that each picture is to have, of heatmap, overlay, mask, regions. What there is and would look
            different is drawn again in any case.
        tables: Tables to write; None = CSV and those that there are.
        page: Write `report.html`, too.
        on_result: Called for each picture, in order, with its journal line.
        on_progress: Called for each picture.

    Raises:
        UsageError: The folder holds no results, a threshold is out of range or missing, or the maps that are needed
            were not kept.
        ProfileError: The profile was made with something else than the results.
        OutputError: The folder cannot be written to, or `out` holds results of other runs.
        ImageError: A map is damaged.
    """
    folder, kinds = Path(folder), tuple(kinds)
    check_kinds(kinds, tables or ())
    for name, value in (("threshold", threshold), ("mask_threshold", mask_threshold)):
        check_threshold(name, value)
    check_threshold("review_threshold", review_threshold)
    if min_area is not None and min_area < 1:
        raise UsageError(f"min_area must be at least 1 pixel, not {min_area}.")
    _check_folder(folder)
    wish = _Wish(threshold, mask_threshold, review_threshold, min_area, profile)
    chosen = _existing_tables(folder if out is None else Path(out)) if tables is None else list(tables)
    if out is not None and absolute(out) != absolute(folder):
        _check_copy(folder, wish, kinds, chosen)
        folder = _copy(folder, Path(out))
    with ResultsFolder(folder) as results:
        judged = Judged(folder, written=written_names(kinds, chosen, page=page))
        sources = [line["provenance"] for line in results.runs.values.values()]
        judged.models = list(dict.fromkeys(f"{source['method']} on {source['backbone']}" for source in sources))
        _check(results, folder, wish, kinds, chosen)
        try:
            _judge_all(results, wish, kinds, judged, on_result, on_progress)
        finally:  # what is judged is written, whatever ends the rest
            results.write_tables(chosen, regions="regions" in kinds)
        if page:
            write_results_page(results, profile, is_own=threshold is None)
        elif wish.changes:
            judged.has_old_page = (folder / PAGE).exists()
    return judged


def number_of_results(folder: PathLike) -> int:
    """Return about how many pictures a folder has results of, from the size of its journal. Raises UsageError."""
    _check_folder(Path(folder))
    with (Path(folder) / JOURNAL).open("rb") as file:
        return sum(1 for _ in file)


def _check_folder(folder: Path) -> None:
    if not (folder / JOURNAL).is_file():
        raise UsageError(f"{folder} holds no results: there is no {JOURNAL}; give a folder of blemish detect --out.")


@dataclass(frozen=True)
class _Wish:
    """What was asked of `judge`."""

    threshold: float | None
    mask_threshold: float | None
    review_threshold: float | None
    min_area: int | None
    profile: Profile | None

    def limits(self) -> Limits | None:
        """Return the limits of the profile with what was given in their place; None without a profile."""
        if self.profile is None:
            return None
        limits = self.profile.limits
        if self.threshold is not None:
            limits = replace(limits, threshold=self.threshold, review_threshold=None, promise=None)
        if self.mask_threshold is not None or limits.mask_threshold is None:
            limits = replace(limits, mask_threshold=self.mask_threshold)
        if self.review_threshold is not None:
            limits = replace(limits, review_threshold=self.review_threshold)
        return limits if self.min_area is None else replace(limits, min_area=self.min_area)

    def criteria(self, line: Line) -> Criteria:
        """Return the criteria for a picture: what was given, else what it was judged by before."""
        limits = self.limits()
        scale = pair(line.get("heatmap_range") or line["map_range"])
        if limits is not None:
            return Criteria.of_limits(limits, limits.heatmap_range or scale)
        threshold, mask, review = line["threshold"], line["mask_threshold"], line.get("review_threshold")
        if self.threshold is not None:
            has_profile = line.get("p_value") is not None
            threshold, mask, review = self.threshold, mask if has_profile else None, None
        review = review if self.review_threshold is None else self.review_threshold
        if review is not None and threshold is None:
            raise UsageError("a threshold of review needs one of rejection: give threshold, too.")
        if review is not None and review > threshold:
            raise UsageError(
                f"the threshold of review, {review:.4g}, lies above that of rejection, {threshold:.4g}; give a "
                "lower one."
            )
        return Criteria(
            threshold=threshold,
            mask_threshold=mask if self.mask_threshold is None else self.mask_threshold,
            review_threshold=review,
            min_area=line.get("min_area", 1) if self.min_area is None else self.min_area,
            heatmap_range=scale,
        )

    def settings(self, before: Mapping[str, Any], line: Line) -> dict[str, Any]:
        """Return what a run's settings would be with these criteria, so that `detect` knows what is complete."""
        limits = self.limits()
        if limits is not None:
            return {**before, **verdict_settings(limits)}
        criteria = self.criteria(line)
        mask = None if self.threshold is not None and self.mask_threshold is None else criteria.mask_threshold
        settings = {**before, "threshold": criteria.threshold, "mask": mask}
        if self.review_threshold is not None or self.min_area is not None:
            settings |= {"review": criteria.review_threshold, "min_area": criteria.min_area}
        return settings

    @property
    def changes(self) -> bool:
        """Whether anything was asked for."""
        return any(value is not None for value in vars(self).values())


def _judge_all(
    results: ResultsFolder,
    wish: _Wish,
    kinds: tuple[ResultKind, ...],
    judged: Judged,
    on_result: Callable[[Line], object],
    on_progress: Callable[[], object],
) -> None:
    files: tuple[Any, ...] = tuple(kind for kind in kinds if kind != "regions")
    date = now()

    def work(line: Line) -> Commit:
        done = judge_line(results.path, line, wish.criteria(line), files)
        return lambda: keep(line, done)

    def keep(before: Line, done: JudgedLine) -> None:
        line = done.line
        judged.before[before.get("verdict")] += 1
        if wish.changes:
            run = results.runs.values.get(line.get("run") or "")
            base = {"judged": before["key"][3]} if run is None else run["settings"]
            line = {
                **line,
                "key": [*line["key"][:3], settings_fingerprint(wish.settings(base, before))],
                "judged": date,
            }
        if wish.profile is not None and wish.profile.path is not None:
            line["provenance"] = {**(line["provenance"] or {}), "profile": Path(wish.profile.path).name}
        if done.undrawn is not None:
            judged.undrawn[line["path"]] = done.undrawn
        line = results.keep(line, done.files)
        judged.results[line["path"]] = result_of(line)
        on_result(line)
        on_progress()

    with BackgroundWriter() as writer:
        for key in list(results.journal.values):
            writer.submit(partial(work, results.journal.line(key)))
    for line in results.journal.failures.values():
        judged.failures[line["path"]] = line["error"]
        on_result({"path": line["path"], "error": line["error"]})
        on_progress()


def _check_copy(folder: Path, wish: _Wish, kinds: Iterable[str], tables: Iterable[str]) -> None:
    """Raise as `_check` does before anything is written, also for a folder that nobody may write to."""
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        try:
            _copy_journals(folder, copy)
        except OSError as error:
            raise output_error(copy, error) from error
        with ResultsFolder(copy) as results:
            _check(results, folder, wish, kinds, tables)


def _check(results: ResultsFolder, folder: Path, wish: _Wish, kinds: Iterable[str], tables: Iterable[str]) -> None:
    """Raise unless all results, whose maps lie in `folder`, can be judged as asked; nothing is changed before."""
    if wish.profile is not None:
        for line in results.runs.values.values():
            _check_profile(wish.profile, line)
    needs_mask = [name for name in ("mask", "regions", *REGION_FORMATS) if name in (*kinds, *tables)]
    lacking: list[str] = []
    for line in results.journal.lines():
        if line.get("error") is not None:
            continue
        if wish.profile is not None and results.settings_of(result_of(line)) is None:
            raise ProfileError(
                f"{line['path']!r} was scored by an earlier version, which did not note all that a profile needs: run "
                "detect again with the profile.",
                wish.profile.path,
            )
        criteria = wish.criteria(line)
        if needs_mask and criteria.threshold is None and criteria.mask_threshold is None:
            raise UsageError(f"{needs_mask[0]} needs a threshold: give one for pictures or for pixels.")
        name = line["files"].get("map-png")
        if needs_map(line, criteria) and not (name and (folder / name).is_file()):
            lacking.append(line["path"])
    if lacking:
        raise UsageError(
            f"{len(lacking):,} of {len(results.journal.values):,} pictures in {folder} have no map, in which "
            "regions at another threshold are found (earlier versions and --no-maps keep none): run detect again with "
            "that threshold."
        )


def _check_profile(profile: Profile, run: Line) -> None:
    """Raise a ProfileError unless a run compared pictures with the memory of this very profile."""
    source, settings = run["provenance"], run["settings"]
    if run["preprocessing"] is None:
        raise ProfileError(
            f"run {run['run']} used an exported file, whose scores no profile fits: give a threshold.", profile.path
        )
    profile.check({**source, "preprocessing": run["preprocessing"]})
    tiling, roi = profile.tiling, profile.limits.roi
    same = {
        "other good pictures": (source["references_fingerprint"], profile.fingerprint),
        "another object name": (settings["object"], profile.object_name if settings["object"] is not None else None),
        "other tiles": (
            (source["tile"], source["overlap"]),
            (None, None) if tiling is None else (tiling.side, tiling.overlap),
        ),
        "another range of values": (
            None if source["value_range"] is None else pair(source["value_range"]),
            profile.value_range,
        ),
        "another region of interest": (settings.get("roi"), None if roi is None else roi.fingerprint),
    }
    for what, (theirs, mine) in same.items():
        if theirs != mine:
            raise ProfileError(
                f"the scores of run {run['run']} were made with {what} than {profile.path or 'the profile'}, so its "
                "thresholds say nothing about them: run detect again with the profile.",
                profile.path,
            )


def _copy(folder: Path, out: Path) -> Path:
    """Copy journals, maps and what is drawn into another folder, which may hold earlier copies; return it."""
    with ResultsFolder(out) as there:
        own = set(there.runs.values)
        if (there.journal.values or there.journal.failures) and not (own and own <= _run_ids(folder)):
            raise OutputError(f"{out} holds results of other runs; choose another folder.", out)
    try:
        _copy_journals(folder, out)
        with ResultsFolder(out) as there:
            for line in list(there.journal.lines()):
                if line.get("error") is not None:
                    continue
                files = {}
                for kind, name in line["files"].items():
                    if kind in ("map-png", *DRAWN) and (folder / name).is_file():
                        _link(folder / name, out / name)
                        files[kind] = name
                there.journal.append({**line, "files": files})
            there.journal.compact()
    except OSError as error:
        raise output_error(out, error) from error
    return out


def _copy_journals(folder: Path, out: Path) -> None:
    for name in (JOURNAL, RUNS):
        if (folder / name).exists():
            shutil.copyfile(folder / name, out / name)


def _run_ids(folder: Path) -> set[str]:
    try:
        return {json.loads(line)["run"] for line in (folder / RUNS).read_text(encoding="utf-8").splitlines()}
    except (OSError, ValueError, KeyError):
        return set()


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, target)


def _existing_tables(folder: Path) -> list[TableFormat]:
    """Return CSV, and the tables that the folder holds, which would be out of date otherwise."""
    files = {name: entry[1][-1] for name, entry in REGION_FORMATS.items()} | {"parquet": "results.parquet"}
    return ["csv", *(name for name, file in files.items() if (folder / file).exists())]  # type: ignore[list-item]
