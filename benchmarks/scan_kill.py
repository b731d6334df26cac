"""A scan that is killed at random gives the rows of an unbroken one.

    python benchmarks/scan_kill.py --pictures 20000 --kills 10 --tiny

Small pictures are drawn, scanned once without a break, and once more into another folder by processes that are killed
(SIGKILL) at random parts, anywhere within them, or while they start; the last process may finish. The rows of both
scans are then compared, all columns but those that say when and how long. Exit code 1 if they differ.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from blemish.scan.rows import VARYING, read_rows


def draw(folder: Path, count: int, seed: int) -> None:
    """Write pictures of noise, 64 x 48 pixels, 1,000 in a folder; one in 100 is a copy, one in 500 is broken."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    data = b""
    for number in range(count):
        path = folder / f"{number // 1000:04}" / f"{number:07}.png"
        path.parent.mkdir(exist_ok=True)
        if number % 500 == 250:
            path.write_bytes(b"no picture")
            continue
        if number % 100 != 50:
            base = rng.integers(40, 200, 3)
            pixels = (base + rng.normal(0, 20, (48, 64, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(path)
            data = path.read_bytes()
        else:
            path.write_bytes(data)


#: Pictures enter the tiny model at this size, so that 20,000 of them take minutes: two by two patches.
TINY_SIZE = 148


def save_tiny(folder: Path) -> Path:
    """Write the tiny random CLIP of the tests, which scores hundreds of pictures a second."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from helpers import save_tiny_backbone

    return save_tiny_backbone(folder)


def command(folder: Path, out: Path, options: list[str]) -> list[str]:
    """Return the words of a scan."""
    return [sys.executable, "-m", "blemish", "scan", str(folder), "--out", str(out), "--json", *options]


def rows_of(out: Path) -> list[dict[str, Any]]:
    """Return all rows of a scan in the order of its pictures, without what differs between runs."""
    numbers = sorted(int(path.stem[5:]) for path in (out / "parts").glob("*.parquet"))
    rows = [row for number in numbers for row in read_rows(out, number)]
    kept = [{name: value for name, value in row.items() if name not in VARYING} for row in rows]
    return sorted(kept, key=lambda row: row["item"])


def unbroken_scan(photos: Path, out: Path, options: list[str]) -> tuple[int, float, float]:
    """Scan without a break; return the exit code, and the seconds until the first part and until the end."""
    start = time.perf_counter()
    process = subprocess.Popen(command(photos, out, options), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list((out / "parts").glob("*.parquet")):
        time.sleep(0.05)
    began = time.perf_counter() - start
    return process.wait(), began, time.perf_counter() - start


def kill(words: list[str], out: Path, point: int, rng: random.Random, began: float, pace: float) -> int:
    """Kill a scan somewhere within the part after `point`, or while it starts if that is finished; return the parts.

    Args:
        words: The command.
        out: Its folder.
        point: Number of finished parts that are waited for.
        rng: Draws the moment.
        began: Seconds that a scan takes to start.
        pace: Seconds that a part takes.
    """
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    finished = len(list((out / "parts").glob("*.parquet")))
    if finished >= point:
        time.sleep(rng.uniform(0, began))
    else:
        while process.poll() is None and len(list((out / "parts").glob("*.parquet"))) < point:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, pace))
    process.send_signal(signal.SIGKILL)
    process.wait()
    return len(list((out / "parts").glob("*.parquet")))


def main() -> int:
    """Run the comparison and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tiny", action="store_true", help="score with a tiny random CLIP")
    parser.add_argument("--folder", type=Path, default=None, help="where to work; default: a temporary folder")
    parser.add_argument("options", nargs="*", help="options of blemish scan, after --")
    given = parser.parse_args()
    options = given.options or ["--method", "clip", "--device", "cpu", "--part-size", "32"]
    rng = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as temporary:
        work = given.folder or Path(temporary)
        photos, unbroken, killed = work / "photos", work / "unbroken", work / "killed"
        draw(photos, given.pictures, given.seed)
        if given.tiny:
            options += ["--backbone", str(save_tiny(work / "tiny")), "--config", json.dumps({"size": TINY_SIZE})]
        whole, began, seconds = unbroken_scan(photos, unbroken, options)
        parts = len(list((unbroken / "parts").glob("*.parquet")))
        pace = (seconds - began) / parts
        finished_at_kill = [
            kill(command(photos, killed, options), killed, point, rng, began, pace)
            for point in sorted(rng.choices(range(parts - 1), k=given.kills))
        ]
        subprocess.run(
            command(photos, killed, options), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
        )
        first, second = rows_of(unbroken), rows_of(killed)
        differing = sum(a != b for a, b in zip(first, second, strict=False)) + abs(len(first) - len(second))
        lost = set(range(given.pictures)) - {row["item"] for row in second}
        print(
            json.dumps(
                {
                    "pictures": given.pictures,
                    "rows": len(second),
                    "parts": parts,
                    "kills": given.kills,
                    "parts_finished_at_each_kill": finished_at_kill,
                    "lost": len(lost),
                    "twice": len(second) - len({row["item"] for row in second}),
                    "differing_rows": differing,
                    "failed": sum(row["error"] is not None for row in second),
                    "copies": sum(row["same_as"] is not None for row in second),
                    "seconds_unbroken": round(seconds, 1),
                    "exit_code_unbroken": whole,
                }
            )
        )
        return int(bool(differing or lost or len(second) != given.pictures))


if __name__ == "__main__":
    sys.exit(main())
