"""Peak memory of scoring one very large picture in tiles.

    python benchmarks/large_picture.py                       20,000 x 20,000 pixels, tiles of 518
    python benchmarks/large_picture.py --side 5000           against a smaller one
    python benchmarks/large_picture.py --storage strips      uncompressed strips instead of deflated tiles

The picture is made a band at a time (a smooth pattern with noise and some blots, RGB), written as a TIFF to --folder
and removed again; that needs `tifffile`, which comes with blemish's test extra. Scoring runs in a process of its own;
what is printed is its peak resident memory, Python and PyTorch included, beside that of scoring a small picture whole.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TILE = 512


def pattern(side: int, top: int, rows: int, seed: int) -> NDArray[np.uint8]:
    """Some rows of the picture: (rows, side, 3)."""
    y, x = np.arange(top, top + rows, dtype=np.float32)[:, None], np.arange(side, dtype=np.float32)[None, :]
    plane = 128 + 40 * np.sin(x / 90) * np.cos(y / 70)
    for blot in range(12):
        centre = np.random.default_rng(blot).random(2) * side
        if abs(top + rows / 2 - centre[1]) < rows + 400:
            plane -= 110 * np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / 4000)
    grain = np.random.default_rng([seed, top]).integers(-8, 9, (rows, side, 1), dtype=np.int8)
    return (plane[..., None] + grain + np.float32([0, 6, -6])).clip(0, 255).astype(np.uint8)


def write(path: Path, side: int, storage: str) -> None:
    """Write the picture, holding one row of pieces."""
    import tifffile

    def pieces() -> Iterator[NDArray[np.uint8]]:
        for top in range(0, side, TILE):
            band = pattern(side, top, min(TILE, side - top), seed=0)
            if storage == "strips":
                yield band
                continue
            for left in range(0, side, TILE):
                tile = np.zeros((TILE, TILE, 3), np.uint8)
                part = band[:, left : left + TILE]
                tile[: part.shape[0], : part.shape[1]] = part
                yield tile

    kind: dict[str, Any] = {"rowsperstrip": TILE}
    if storage == "tiles":
        kind = {"tile": (TILE, TILE), "compression": "zlib", "compressionargs": {"level": 1}}
    tifffile.imwrite(path, pieces(), shape=(side, side, 3), dtype=np.uint8, photometric="rgb", **kind)


def score(path: Path | None, settings: dict[str, Any], batch_size: int) -> dict[str, Any]:
    """Score the picture, or a small one, and say what it took; in a process of its own."""
    import blemish

    detector = blemish.load(device="cpu", threshold=0.5, **settings)
    start = time.perf_counter()
    given = pattern(300, 0, 300, seed=0) if path is None else path
    (detection,) = detector.stream([given], batch_size=batch_size)
    regions = len(detection.regions)
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "size": list(detection.size),
        "map": list(detection.anomaly_map.shape),
        "map_step": detection.map_step,
        "score": detection.score,
        "regions": regions,
        "seconds": round(time.perf_counter() - start, 1),
        "reading_seconds": round(detection.timing.read, 1),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 2**20,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=20_000, help="of the picture, in pixels")
    parser.add_argument("--storage", choices=["tiles", "strips"], default="tiles")
    parser.add_argument("--tile", type=int, default=518)
    parser.add_argument("--overlap", type=float, default=0.25)
    parser.add_argument("--method", default="anomalyclip")
    parser.add_argument("--backbone", default="builtin")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--folder", type=Path, help="for the picture; default: that for temporary files")
    given = parser.parse_args()
    settings = {"method": given.method, "backbone": given.backbone}
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        path = Path(folder) / "large.tif"
        write(path, given.side, given.storage)
        facts = {"bytes": path.stat().st_size, **vars(given), "folder": None}
        for name, what, tiling in (
            ("alone", None, {}),
            ("large", path, {"tile": given.tile, "overlap": given.overlap}),
        ):
            with context.Pool(1) as pool:
                facts[name] = pool.apply(score, (what, {**settings, **tiling}, given.batch_size))
    print(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()
