"""Several pictures in one file: pages of TIFF and GIF, slices of volumes, frames of DICOM and of videos.

Such a picture is named by its file and its number from 1: `scan.tif#2`, `clip.mp4#31`. `read_image` reads these names.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from blemish.errors import ImageError, UsageError
from blemish.files import split_page
from blemish.image_io import medical, video
from blemish.image_io.find import DICOM, NIFTI, VIDEO, kind_of
from blemish.image_io.pillow import count_frames, identify, note_number, open_file, quiet_pillow, read_head
from blemish.image_io.read import LoadedImage, image_errors
from blemish.image_io.tiff import is_tiff, read_pages
from blemish.types import ImageSource


@dataclass(frozen=True)
class Every:
    """Which of the pictures in a file are taken. One field is set.

    Attributes:
        nth: Every n-th one.
        seconds: One in so many seconds; for videos.
        motion: Those that differ from the last one taken; for videos.
    """

    nth: int = 0
    seconds: float = 0.0
    motion: bool = False

    @classmethod
    def parse(cls, name: str, text: str) -> Every:
        """Return what a text means: `30`, `0.5s` or `motion`. Raises UsageError."""
        word = text.strip().lower()
        if word == "motion":
            return cls(motion=True)
        try:
            if word.endswith("s") and 0 < float(word[:-1]) < math.inf:
                return cls(seconds=float(word[:-1]))
            if int(word) > 0:
                return cls(nth=int(word))
        except ValueError:
            pass
        raise UsageError(f"{name} must be a number of frames (30), of seconds (0.5s), or motion, not {text!r}.")

    def __str__(self) -> str:
        if self.motion:
            return "those with motion"
        if self.seconds:
            return "one a second" if self.seconds == 1 else f"one in {self.seconds:g} s"
        if self.nth == 1:
            return "all"
        end = "th" if self.nth % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(self.nth % 10, "th")
        return f"every {self.nth:,}{end}"

    def take(self, file: str, times: Sequence[float]) -> list[int]:
        """Return the numbers, from 0, of the frames of a video that are taken."""
        if self.motion:
            return [number for number in video.moving_frames(file) if number < len(times)]
        if self.nth:
            return list(range(0, len(times), self.nth))
        taken: list[int] = []
        due = 0.0
        for number, time in enumerate(times):
            if time >= due - 1e-6:
                taken.append(number)
                due = (math.floor(time / self.seconds + 1e-6) + 1) * self.seconds
        return taken


@dataclass(frozen=True)
class Expanded:
    """Pictures after files with several of them were taken apart.

    Attributes:
        paths: Names of pictures, as `read_image` takes them.
        times: Seconds from the beginning of the video, by name; of video frames only.
        notes: A sentence on each video.
    """

    paths: tuple[Path, ...]
    times: dict[str, float]
    notes: tuple[str, ...]


def expand(paths: Iterable[Path], *, pages: bool = False, every: Every | None = None) -> Expanded:
    """Take files with several pictures apart.

    A file that cannot be read stays as it is, so that reading it reports the error.

    Args:
        paths: Picture files.
        pages: Whether pages, slices and frames are pictures of their own; else only the first one is read. Videos are
            always taken apart.
        every: Which of them are taken; None = all, of videos one a second.
    """
    result: list[Path] = []
    times: dict[str, float] = {}
    notes: list[str] = []
    for path in paths:
        file = os.fspath(path)
        is_video = kind_of(file) is VIDEO and VIDEO.installed
        if not (is_video or pages) or split_page(file)[1] is not None:
            result.append(path)
            continue
        try:
            if is_video:
                stamps = video.frame_times(file)
                rule = Every(seconds=1.0) if every is None else every
                taken = rule.take(file, stamps)
                notes.append(f"{file}: {len(taken):,} of {len(stamps):,} frames, {rule}.")
                times |= {f"{file}#{number + 1}": round(stamps[number], 6) for number in taken}
            else:
                taken = list(range(0, count_pictures(file), every.nth if every is not None and every.nth else 1))
        except (ImageError, OSError):
            taken = []
        result += (
            [Path(f"{file}#{number + 1}") for number in taken] if len(taken) > 1 or (is_video and taken) else [path]
        )
    return Expanded(tuple(result), times, tuple(notes))


def count_pictures(path: str) -> int:
    """Return how many pages, slices or frames a file has. Raises ImageError."""
    kind = kind_of(path)
    with image_errors(repr(path), path), quiet_pillow(), open_file(path, repr(path), path) as stream:
        head = read_head(stream, repr(path), path)
        if kind is NIFTI and NIFTI.installed:
            return medical.count_nifti(path)
        if kind is VIDEO and VIDEO.installed:
            return len(video.frame_times(path))
        if (head[128:132] == b"DICM" or kind is DICOM) and DICOM.installed:
            return medical.count_dicom(path)
        return len(read_pages(stream)) if is_tiff(head) else count_frames(identify(stream, repr(path), path))


def in_order(paths: Iterable[str], *, max_pixels: int) -> Iterator[ImageSource]:
    """Yield sources for `read_image`: frames of a video decoded one after another, all others as they are.

    Decoding a video once is much faster than going to each frame. A frame that the video lacks, or that is larger than
    `max_pixels`, stays a name, so that reading it reports the error.
    """

    def video_of(path: str) -> str:
        file, number = split_page(path)
        return file if number is not None and kind_of(file) is VIDEO and VIDEO.installed else ""

    for file, group in itertools.groupby(paths, video_of):
        if not file:
            yield from group
            continue
        names = {number - 1: name for name in group if (number := split_page(name)[1]) is not None}
        try:
            times = video.frame_times(file)
            for index, image in video.read_frames(file, list(names)):
                notes: list[str] = []
                note_number(index, len(times), "frame", notes)
                if image.width * image.height > max_pixels:
                    break
                yield LoadedImage(image, names.pop(index), (*notes, f"at {times[index]:.3f} s"))
        except Exception:  # a decoder may raise anything; what is left reports it
            pass
        yield from names.values()
