"""Frames of video files, by PyAV (extra `video`)."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from blemish.errors import ImageError
from blemish.image_io.pillow import check_size, note_number

if TYPE_CHECKING:
    import av

#: Side of the reduced frames that are compared, and the mean difference (of 255) that is motion.
_SIDE, _MOTION = 32, 4.0


def frame_times(file: str) -> tuple[float, ...]:
    """Return the time of each frame in seconds from the first one, in the order in which they are shown.

    Packets are counted, not decoded.

    Raises:
        ImageError: It is no video, or it is damaged.
    """
    status = os.stat(file)  # noqa: PTH116
    return _frame_times(file, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=64)
def _frame_times(file: str, modified: int, size: int) -> tuple[float, ...]:
    with _open(file) as container:
        stream = container.streams.video[0]
        stamps = sorted(packet.pts for packet in container.demux(stream) if packet.pts is not None)
        base = float(stream.time_base or 1)
    return tuple((stamp - stamps[0]) * base for stamp in stamps)


def read_frame(
    file: str, index: int, name: str, path: str | None, max_pixels: int | None, notes: list[str]
) -> Image.Image:
    """Read one frame of a video, RGB; `index` is from 0. Raises ImageError like `read_image`."""
    times = frame_times(file)
    if index >= len(times):
        raise ImageError(f"{name} has no frame {index + 1}; it has {len(times):,}.", path)
    with _open(file) as container:
        stream = container.streams.video[0]
        check_size((stream.width, stream.height), name, path, max_pixels)
        target = times[index]
        first: float | None = None
        if index > 0:
            # To the last key frame before it; frames up to it are decoded.
            start = next((packet.pts for packet in container.demux(stream) if packet.pts is not None), 0)
            container.seek(start + round(target / float(stream.time_base or 1)), stream=stream, backward=True)
            first = start * float(stream.time_base or 1)
        for frame in container.decode(stream):
            at = float(frame.time or 0.0) - (first if first is not None else float(frame.time or 0.0))
            if at >= target - 1e-6:
                note_number(index, len(times), "frame", notes)
                notes.append(f"at {target:.3f} s")
                return _picture(frame)
    raise ImageError(f"{name} is cut short before frame {index + 1}; leave the frame out.", path)


def read_frames(file: str, indices: Sequence[int]) -> Iterator[tuple[int, Image.Image]]:
    """Decode a video once and yield (index, RGB image) of the wanted frames, in order.

    It ends early where the video does.
    """
    requested = sorted(set(indices))
    position = 0
    with _open(file) as container:
        for index, frame in enumerate(container.decode(container.streams.video[0])):
            if position == len(requested):
                return
            if index == requested[position]:
                position += 1
                yield index, _picture(frame)


def moving_frames(file: str) -> list[int]:
    """Return the numbers, from 0, of frames that differ from the last one taken; the first frame is one of them.

    Frames are compared in grey at 32 x 32 pixels; a mean difference above 4 of 255 is motion.
    """
    taken: list[int] = []
    last: np.ndarray[Any, Any] | None = None
    with _open(file) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for index, frame in enumerate(container.decode(stream)):
            small = frame.to_image(width=_SIDE, height=_SIDE).convert("L")
            pixels = np.asarray(small, np.float32)
            if last is None or float(np.abs(pixels - last).mean()) > _MOTION:
                taken.append(index)
                last = pixels
    return taken


def _open(file: str) -> av.container.InputContainer:
    import av

    try:
        container = av.open(file, mode="r")
    except (av.error.FFmpegError, OSError) as error:
        raise ImageError(f"{file!r} is no video that can be read, or it is damaged; leave it out.", file) from error
    if not container.streams.video:
        container.close()
        raise ImageError(f"{file!r} has no pictures, only sound; leave it out.", file)
    return container


def _picture(frame: av.VideoFrame) -> Image.Image:
    """Return a frame as RGB, upright."""
    image: Image.Image = frame.to_image()
    turns = round(getattr(frame, "rotation", 0) / 90) % 4
    return image.rotate(90 * turns, expand=True) if turns else image
