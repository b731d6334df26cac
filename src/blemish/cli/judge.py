"""`blemish judge`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from blemish.cli import EXIT_FAILED, EXIT_OK
from blemish.cli.console import RESULTS, VERDICTS, Threshold, choices, count, note, one_line, print_json, progress
from blemish.cli.ranking import counted, note_failures, ranking, verdicts
from blemish.errors import UsageError

if TYPE_CHECKING:
    from blemish.outputs.judging import Judged

KINDS = ("heatmap", "overlay", "mask", "regions")
FORMATS = ("csv", "parquet", "coco", "yolo", "labelme", "cvat", "label-studio")
#: Pictures that are named; the others are only counted.
_NAMED = 5


def judge(
    results: Path,
    *,
    threshold: Annotated[Threshold, Parameter(group=VERDICTS)] = None,
    review_threshold: Annotated[Threshold, Parameter(group=VERDICTS)] = None,
    mask_threshold: Annotated[Threshold, Parameter(group=VERDICTS)] = None,
    min_area: Annotated[int | None, Parameter(group=VERDICTS)] = None,
    profile: Annotated[Path | None, Parameter(group=VERDICTS)] = None,
    out: Annotated[Path | None, Parameter(group=RESULTS)] = None,
    save: Annotated[str | None, Parameter(group=RESULTS)] = None,
    format: Annotated[str | None, Parameter(group=RESULTS)] = None,
    report: Annotated[bool, Parameter(negative="", group=RESULTS)] = False,
    json: Annotated[bool, Parameter(group=RESULTS)] = False,
) -> int:
    """Give verdicts again, without the model.

    Args:
        results: Folder that `blemish detect --out` wrote.
        threshold: Pictures with this score or a higher one are rejected; from 0 to 1, or in percent (80%).
        review_threshold: Pictures with a score from here up to the threshold are to be looked at.
        mask_threshold: Threshold for pixels, as a fraction of the method's scale. [default: the picture threshold, or
            that of the profile]
        min_area: Smallest region in pixels of the picture.
        profile: A profile whose thresholds, p-values and scale of heatmaps apply. It must have the model, the settings
            and the good pictures that the results were made with.
        out: Another folder for the new results; the old ones stay as they are. [default: the folder itself]
        save: Comma list of heatmap, overlay, mask, regions: files to write for each picture. Files that show another
            verdict are written again in any case. Overlays need the pictures.
        format: Comma list of csv, parquet, and of coco, yolo, labelme, cvat, label-studio for regions. [default: csv
            and those that the folder has]
        report: Write report.html, one page without network to look at the results, move the threshold and review them.
        json: Print one JSON object per picture on standard output, and nothing else there.
    """
    kinds: Any = [] if save is None else choices("--save", save, KINDS)
    tables: Any = None if format is None else choices("--format", format, FORMATS)
    if min_area is not None and min_area < 1:
        raise UsageError(f"--min-area must be at least 1 pixel, not {min_area}")

    from blemish.outputs.judging import judge as judge_folder
    from blemish.outputs.judging import number_of_results

    read = None
    if profile is not None:
        from blemish.profile import read_profile

        read = read_profile(profile)
    start, total = time.perf_counter(), number_of_results(results)
    finished = 0

    def on_result(line: dict[str, Any]) -> None:
        nonlocal finished
        finished += line["error"] is None
        if json:
            print_json(line)

    with progress(total, "judging") as bar, _stopping(lambda: f"{finished:,} of {total:,} pictures judged"):
        judged = judge_folder(
            results,
            threshold=threshold,
            mask_threshold=mask_threshold,
            review_threshold=review_threshold,
            min_area=min_area,
            profile=read,
            out=out,
            kinds=kinds,
            tables=tables,
            page=report,
            on_result=on_result,
            on_progress=bar,
        )
    _summarize(judged, time.perf_counter() - start, json)
    return EXIT_FAILED if judged.undrawn else EXIT_OK


@contextmanager
def _stopping(state: Callable[[], str]) -> Iterator[None]:
    """Let Ctrl-C say what is finished."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted: {state()}; the same command judges all.") from None


def _summarize(judged: Judged, seconds: float, json: bool) -> None:
    scored = list(judged.results.values())
    if not json:
        print(ranking(scored, p_values=any(result.p_value is not None for result in scored)))
    output = note if json else print
    now = counted(scored)
    review = bool(now["review"] or judged.before["review"])
    words = "ranked only, since there is no threshold" if now[None] == len(scored) else verdicts(now, review=review)
    before = f" (before: {verdicts(judged.before, review=review)})" if judged.before[None] < len(scored) else ""
    output(f"{count(len(scored), 'picture')}, {words}{before}. Judged without the model in {seconds:.1f} s.")
    if len(judged.models) > 1:
        output(f"The scores are of several models, whose thresholds differ: {', '.join(judged.models)}.")
    output(f"Results are in {judged.folder}: {', '.join(judged.written)}.")
    if judged.has_old_page:
        output(f"{judged.folder / 'report.html'} shows the verdicts of before: --report writes it again.")
    if judged.undrawn:
        note(f"{count(len(judged.undrawn), 'overlay')} could not be drawn, so an old one shows the verdict of before:")
        for path, reason in list(judged.undrawn.items())[:_NAMED]:
            note(f"  {one_line(path)}: {one_line(reason)}")
        if len(judged.undrawn) > _NAMED:
            note(f"  ... and {len(judged.undrawn) - _NAMED:,} more")
    note_failures(judged.failures, len(scored))
