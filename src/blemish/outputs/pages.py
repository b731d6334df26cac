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


def write_results_page(
    results: ResultsFolder, profile: Profile | None = None, *, max_pixels: int = MAX_PIXELS
) -> PageSize:
    """Write `report.html` with all results in a folder, whichever run they are of.

    A picture without a map is shown without one.

    Args:
        results: The folder.
        profile: The profile that gave the verdicts; the page names it.
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
        profile=None if profile is None else _facts(profile),
        value_range=None if same is None else pair(same),
        max_pixels=max_pixels,
    )


def _facts(profile: Profile) -> Mapping[str, Any]:
    return {
        "name": profile.path or profile.object_name,
        "object_name": profile.object_name,
        "promise": profile.limits.promise,
    }
