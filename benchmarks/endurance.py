"""Memory, open files and threads stay flat over 10,000 pictures, through one detector and through a scan.

    python benchmarks/endurance.py --pictures 10000

Small pictures of noise are scored with a tiny random CLIP. The table gives the resident memory, the open files and the
threads of the process at ten points. Exit code 1 if, from the second point on, memory grows by more than --allowed MiB,
or files or threads by more than four, which come and go with the reading of pictures. The numbers are those of /proc,
so this runs on Linux only.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from fault_commands import draw

import blemish
from blemish.scan import DetectorOptions, PartOptions, PlanOptions, Scan


class Point(NamedTuple):
    """What the process takes after so many pictures."""

    pictures: int
    memory: float
    """Resident MiB."""
    files: int
    threads: int


def measure(pictures: int) -> Point:
    """Return what this process takes now."""
    gc.collect()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    files = len(list(Path("/proc/self/fd").iterdir()))
    return Point(pictures, int(status["VmRSS"].split()[0]) / 1024, files, int(status["Threads"]))


def through_detector(backbone: Path, paths: Iterable[Path], every: int) -> list[Point]:
    """Score pictures with one detector."""
    detector = blemish.load("clip", backbone=backbone, device="cpu", config={"size": 148}, threshold=0.5)
    points = []
    for number, detection in enumerate(detector.stream(paths, batch_size=8), 1):
        assert detection.score >= 0
        if number % every == 0:
            points.append(measure(number))
    return points


def through_scan(backbone: Path, folder: Path, out: Path, every: int) -> list[Point]:
    """Score pictures with one scan."""
    load = {"method": "clip", "backbone": str(backbone), "device": "cpu", "config": {"size": 148}, "threshold": 0.5}
    points: list[Point] = []
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        if done % every == 0:
            points.append(measure(done))

    with Scan(PlanOptions((str(folder),)), out, DetectorOptions(load), PartOptions(kinds=("map-png",))) as scan:
        scan.execute(on_progress=count)
    return points


def problems(points: list[Point], allowed: float) -> list[str]:
    """Return what grows from the second point on."""
    first, last = points[1], points[-1]
    growth = []
    if max(point.memory for point in points[1:]) - first.memory > allowed:
        growth.append(f"memory grows from {first.memory:.0f} to {last.memory:.0f} MiB")
    if last.files > first.files + 4 or last.threads > first.threads + 4:
        growth.append(f"files or threads grow: {first} and {last}")
    return growth


def main() -> int:
    """Measure both and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--allowed", type=float, default=16.0, help="MiB by which memory may grow")
    given = parser.parse_args()
    from helpers import save_tiny_backbone

    growth = []
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        backbone = save_tiny_backbone(root / "tiny", layers=(2, 2))
        photos, every = draw(root / "photos", given.pictures), given.pictures // 10
        print("| through | pictures | memory, MiB | open files | threads |\n| --- | ---: | ---: | ---: | ---: |")
        for name in ("one detector", "`scan`"):
            points = (
                through_detector(backbone, sorted(photos.iterdir()), every)
                if name == "one detector"
                else through_scan(backbone, photos, root / "out", every)
            )
            for point in points:
                print(
                    f"| {name} | {point.pictures:,} | {point.memory:.0f} | {point.files} | {point.threads} |",
                    flush=True,
                )
            growth += problems(points, given.allowed)
    print(*growth, sep="\n")
    return int(bool(growth))


if __name__ == "__main__":
    sys.exit(main())
