"""A scan that is killed at random gives the rows of an unbroken one.

    python benchmarks/scan_kill.py --pictures 1000 --kills 10

Small pictures are drawn, scanned once without a break, and once more into another folder by processes that are killed
(SIGKILL) after a random time, until that many were killed; the last one may finish. The rows of both scans are then
compared, all columns but those that say when and how long. Exit code 1 if they differ.
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


def command(folder: Path, out: Path, options: list[str]) -> list[str]:
    """Return the words of a scan."""
    return [sys.executable, "-m", "blemish", "scan", str(folder), "--out", str(out), "--json", *options]


def rows_of(out: Path) -> list[dict[str, Any]]:
    """Return all rows of a scan in the order of its pictures, without what differs between runs."""
    numbers = sorted(int(path.stem[5:]) for path in (out / "parts").glob("*.parquet"))
    rows = [row for number in numbers for row in read_rows(out, number)]
    kept = [{name: value for name, value in row.items() if name not in VARYING} for row in rows]
    return sorted(kept, key=lambda row: row["item"])


def main() -> int:
    """Run the comparison and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=None, help="where to work; default: a temporary folder")
    parser.add_argument("options", nargs="*", help="options of blemish scan, after --")
    given = parser.parse_args()
    options = given.options or ["--method", "clip", "--part-size", "64", "--batch-size", "16"]
    rng = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as temporary:
        work = given.folder or Path(temporary)
        photos, unbroken, killed = work / "photos", work / "unbroken", work / "killed"
        draw(photos, given.pictures, given.seed)
        start = time.perf_counter()
        # Pictures that cannot be read are failures, so the exit code is 1.
        whole = subprocess.run(command(photos, unbroken, options), stdout=subprocess.PIPE, check=False)
        seconds = time.perf_counter() - start
        kills, runs, finished_at_kill = 0, 0, []
        while True:
            runs += 1
            process = subprocess.Popen(
                command(photos, killed, options), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            # A share of what an unbroken scan takes, so that all kills fall into the scan; the start-up comes on top.
            patience = rng.uniform(0.1, 1.9) * seconds / (given.kills + 1) + rng.uniform(0, 4)
            try:
                process.wait(timeout=None if kills == given.kills else patience)
                process.communicate()
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.communicate()
                kills += 1
                finished_at_kill.append(len(list((killed / "parts").glob("*.parquet"))))
        first, second = rows_of(unbroken), rows_of(killed)
        differing = sum(a != b for a, b in zip(first, second, strict=False)) + abs(len(first) - len(second))
        lost = set(range(given.pictures)) - {row["item"] for row in second}
        print(
            json.dumps(
                {
                    "pictures": given.pictures,
                    "rows": len(second),
                    "kills": kills,
                    "runs": runs,
                    "parts_finished_at_each_kill": finished_at_kill,
                    "lost": len(lost),
                    "twice": len(second) - len({row["item"] for row in second}),
                    "differing_rows": differing,
                    "failed": sum(row["error"] is not None for row in second),
                    "copies": sum(row["same_as"] is not None for row in second),
                    "seconds_unbroken": round(seconds, 1),
                    "exit_code_unbroken": whole.returncode,
                }
            )
        )
        return int(bool(differing or lost or len(second) != given.pictures))


if __name__ == "__main__":
    sys.exit(main())
