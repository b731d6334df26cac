"""The report of a folder of results: the page of `blemish.page` from journal lines and maps."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any

from blemish.concurrency import READER_THREADS, prefetch
from blemish.errors import ImageError
from blemish.image_io import MAX_PIXELS
from blemish.maps import encode_map
from blemish.outputs.journal import Line
from blemish.outputs.results import PAGE, ResultsFolder
from blemish.outputs.verdicts import detection_of, pair, read_map
from blemish.page import MAP_SIDE, PagePicture, PageSize, write_page

if TYPE_CHECKING:
    from blemish.profile import Profile


#: In place of the promise of a profile.
_NO_PROMISE = "What the profile promises on false alarms holds at its own thresholds only"


def write_results_page(
    results: ResultsFolder, profile: Profile | None = None, *, is_own: bool = True, max_pixels: int = MAX_PIXELS
) -> PageSize:
    """Write `report.html` with all results in a folder, whichever run they are of.

    A picture without a map is shown without one.

    Args:
        results: The folder.
        profile: The profile that gave the verdicts; the page names it. None names the one that made the scores.
        is_own: Whether the threshold of pictures is the profile's own, at which its promise holds.
        max_pixels: Larger pictures get no preview.

    Raises:
        OutputError: It cannot be written.
    """

    def prepare(line: Line) -> Generator[PagePicture, None, None]:
        # The page is made in any folder, so it reads pictures by their absolute path.
        entry = {**line, "path": line["key"][0]}
        try:
            png = encode_map(detection_of(line, read_map(results.path, line)), MAP_SIDE)
        except (ImageError, KeyError):  # a failure has no map, and a damaged one is no reason to show nothing
            png = None
        yield PagePicture(entry, png)

    def pictures() -> Generator[PagePicture, None, None]:
        for item in prefetch(results.ranked(), prepare, 2 * READER_THREADS):
            if isinstance(item, BaseException):
                raise item
            yield item

    ranges = [line["provenance"]["value_range"] for line in results.runs.values.values()]
    same = ranges[0] if ranges and all(each == ranges[0] for each in ranges) else None
    return write_page(
        results.path / PAGE,
        pictures(),
        title=f"blemish: {results.path.resolve().name}",
        profile=_facts(results, profile, is_own),
        value_range=None if same is None else pair(same),
        max_pixels=max_pixels,
    )


def _facts(results: ResultsFolder, profile: Profile | None, is_own: bool) -> Mapping[str, Any] | None:
    """Return what the page says about the profile; None if the results are of none."""
    if profile is not None:
        promise = profile.limits.promise
        return {
            "name": profile.path or profile.object_name,
            "object_name": profile.object_name,
            "promise": promise if is_own or promise is None else _NO_PROMISE,
        }
    if all(result.p_value is None for result in results.journal.values.values()):
        return None
    scored = (line for line in results.journal.lines() if line.get("error") is None)
    names = {(line["provenance"] or {}).get("profile") for line in scored}
    return {"name": names.pop() if len(names) == 1 else None, "object_name": None, "promise": _NO_PROMISE}
