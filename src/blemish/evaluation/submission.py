"""Files for the evaluation server of MVTec AD 2: written for the private test pictures, checked and packed.

    <folder>/anomaly_images/<object>/<split>/000_regular.tiff               float16, the picture's size
    <folder>/anomaly_images_thresholded/<object>/<split>/000_regular.png    0 normal, 255 anomalous

The splits are `test_private` (files *_regular) and `test_private_mixed` (*_mixed); nobody but the server knows their
labels. Thresholds have to be fixed before: from the good pictures of `train` and `validation`. The structure is that of
the owner's own checker, which people should run as well before they upload.
"""

from __future__ import annotations

import struct
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from blemish.detector import Detector
from blemish.errors import OutputError, UsageError
from blemish.files import write_atomically
from blemish.types import PathLike

#: Number of pictures of each object in each private split.
PICTURES: Mapping[str, int] = {
    "can": 321,
    "fabric": 314,
    "fruit_jelly": 255,
    "rice": 277,
    "sheet_metal": 142,
    "vial": 276,
    "wallplugs": 232,
    "walnuts": 228,
}
#: Splits of a submission, with how the names of their files end.
SPLITS: Mapping[str, str] = {"test_private": "regular", "test_private_mixed": "mixed"}
_MAPS, _MASKS = "anomaly_images", "anomaly_images_thresholded"
#: Largest finite float16.
_MAX_HALF = 65504.0


def submission_pictures(data: PathLike, object_name: str, split: str) -> list[Path]:
    """Return the pictures of an object and a private split, sorted.

    Raises:
        UsageError: There are none, or not as many as there have to be.
    """
    folder = Path(data) / object_name / split
    pictures = sorted(path for path in folder.glob("[0-9]*.png") if path.is_file())
    if len(pictures) != PICTURES[object_name]:
        raise UsageError(
            f"{folder} has to hold {PICTURES[object_name]} pictures, but there are {len(pictures)}; "
            "give the folder of MVTec AD 2 as it is distributed"
        )
    return pictures


def write_submission(
    detectors: Callable[[str], Detector] | Mapping[str, Detector],
    data: PathLike,
    out: PathLike,
    *,
    on_progress: Callable[[], None] = lambda: None,
) -> None:
    """Score all private pictures and write their maps and masks; files that are there already stay.

    Args:
        detectors: The detector of each object, with a threshold that gives a mask; or a function of the object's name.
        data: Folder of MVTec AD 2.
        out: Folder for the submission; for other detectors take a new one.
        on_progress: Called for each picture.

    Raises:
        UsageError: A detector has no threshold, or the data set is not complete.
        ImageError: A picture cannot be read.
        OutputError: A file cannot be written.
    """
    for name in PICTURES:
        detector = detectors[name] if isinstance(detectors, Mapping) else detectors(name)
        for split in SPLITS:
            todo = []
            for path in submission_pictures(data, name, split):
                paths = _paths(Path(out), name, split, path.stem)
                if all(target.is_file() for target in paths):
                    on_progress()
                else:
                    todo.append((path, paths))
            results = detector.stream([path for path, _ in todo])
            for (path, (map_path, mask_path)), detection in zip(todo, results, strict=True):
                if detection.mask is None:
                    raise UsageError(f"the detector of {name} has no threshold, and the server wants masks; give one")
                if detection.map_step != 1:
                    raise UsageError(f"the map of {path} is smaller than the picture; score without tiles")
                _write_mask(mask_path, detection.mask)
                write_half_tiff(map_path, detection.anomaly_map)
                on_progress()


def check_submission(out: PathLike, data: PathLike | None = None) -> list[str]:
    """Return what is wrong with a submission, one sentence each; nothing if the server will take it.

    Args:
        out: Folder of the submission.
        data: Folder of MVTec AD 2, to compare sizes with the pictures; None checks without.
    """
    folder = Path(out)
    problems = list(_unexpected(folder, {_MAPS, _MASKS}))
    for kind, suffix in ((_MAPS, ".tiff"), (_MASKS, ".png")):
        problems += _unexpected(folder / kind, set(PICTURES))
        for name, count in PICTURES.items():
            problems += _unexpected(folder / kind / name, set(SPLITS))
            for split, ending in SPLITS.items():
                place = folder / kind / name / split
                expected = {f"{number:03}_{ending}{suffix}" for number in range(count)}
                wrong = list(_unexpected(place, expected))
                problems += wrong
                for file in sorted(expected) if not wrong else ():
                    picture = None if data is None else Path(data) / name / split / f"{Path(file).stem}.png"
                    problems += _check_file(place / file, picture)
    return problems


def pack_submission(out: PathLike) -> Path:
    """Write `<folder>.tar.gz` beside the folder and return its path.

    Raises:
        UsageError: Something is wrong with the submission.
        OutputError: The file cannot be written.
    """
    folder = Path(out).absolute()
    if problems := check_submission(folder):
        raise UsageError(f"{problems[0]} (and {len(problems) - 1} more)" if len(problems) > 1 else problems[0])
    target = folder.with_name(f"{folder.name}.tar.gz")

    def fill(stream: IO[bytes]) -> None:
        with tarfile.open(fileobj=stream, mode="w:gz") as archive:
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                archive.add(path, arcname=Path(folder.name, path.relative_to(folder)).as_posix())

    write_atomically(target, fill)
    return target


def write_half_tiff(path: Path, values: NDArray[np.float32]) -> None:
    """Write a map (H, W) as an uncompressed TIFF of float16, which Pillow cannot write.

    Raises:
        OutputError: A value is too large for float16, or the file cannot be written.
    """
    if not np.abs(values).max() <= _MAX_HALF:
        raise OutputError(f"{path} cannot be written: a value is larger than {_MAX_HALF:g}, the end of float16.", path)
    height, width = values.shape
    pixels = np.ascontiguousarray(values, dtype="<f2").tobytes()
    # Tags of TIFF 6.0, as (tag, type, value); type 3 is a short and 4 a long.
    entries = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, 16),  # bits per sample
        (259, 3, 1),  # no compression
        (262, 3, 1),  # 0 is black
        (273, 4, 8),  # where the one strip begins
        (277, 3, 1),  # samples per pixel
        (278, 4, height),  # rows per strip
        (279, 4, len(pixels)),
        (339, 3, 3),  # samples are floats
    ]
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    header = struct.pack("<2sHI", b"II", 42, 8 + len(pixels) + len(pixels) % 2)
    write_atomically(path, lambda stream: stream.write(header + pixels + directory + bytes(4)), durable=False)


def _write_mask(path: Path, mask: NDArray[np.bool_]) -> None:
    image = Image.fromarray(mask.astype(np.uint8) * np.uint8(255))
    write_atomically(path, lambda stream: image.save(stream, "PNG"), durable=False)


def _paths(out: Path, name: str, split: str, stem: str) -> tuple[Path, Path]:
    return out / _MAPS / name / split / f"{stem}.tiff", out / _MASKS / name / split / f"{stem}.png"


def _unexpected(folder: Path, expected: set[str]) -> Iterator[str]:
    """Yield what a folder lacks and what is too much in it."""
    if not folder.is_dir():
        yield f"{folder} is missing."
        return
    present = {path.name for path in folder.iterdir()}
    for sentence, names in (("lacks", expected - present), ("must not hold", present - expected)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            yield f"{folder} {sentence} {', '.join(sorted(names)[:3])}{more}."


def _check_file(path: Path, picture: Path | None) -> Iterator[str]:
    try:
        if path.suffix == ".tiff":
            size = _half_tiff_size(path)
            if size is None:
                yield f"{path} is not a TIFF of one float16 value per pixel."
                return
        else:
            with Image.open(path) as mask:
                if mask.mode not in ("L", "P"):
                    yield f"{path} has to be a grey picture, not {mask.mode}."
                    return
                size = mask.size
                values = np.unique(np.asarray(mask))
            if not set(values.tolist()) <= {0, 255}:
                yield f"{path} must hold 0 and 255 only, not {values[(values > 0) & (values < 255)][0]}."
        if picture is not None:
            with Image.open(picture) as image:
                if image.size != size:
                    yield f"{path} is {size[0]} x {size[1]} pixels, and its picture {image.width} x {image.height}."
    except (OSError, ValueError, struct.error) as error:
        yield f"{path} cannot be read: {error}"


def _half_tiff_size(path: Path) -> tuple[int, int] | None:
    """Return (width, height) of a TIFF of one float16 per pixel in one plane; None for another file."""
    data = path.read_bytes()
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or struct.unpack(f"{order}H", data[2:4])[0] != 42:
        return None
    (start,) = struct.unpack(f"{order}I", data[4:8])
    (count,) = struct.unpack(f"{order}H", data[start : start + 2])
    tags: dict[int, int] = {}
    for place in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, number = struct.unpack(f"{order}HHI", data[place : place + 8])
        if number == 1 and kind in (3, 4):
            form = f"{order}{'H' if kind == 3 else 'I'}"
            tags[tag] = struct.unpack(form, data[place + 8 : place + 8 + struct.calcsize(form)])[0]
    is_half = tags.get(258) == 16 and tags.get(339) == 3 and tags.get(277, 1) == 1
    return (tags[256], tags[257]) if is_half and 256 in tags and 257 in tags else None
