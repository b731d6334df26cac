"""A scan on a Ray cluster: the tests with a killed worker and a killed node, and the speed of one and two workers.

    python benchmarks/scan_ray.py --pictures 256 --rounds 3

The pictures (64 x 48 pixels of noise) are scored by `clip` on the built-in model, by one process with one thread, and
then on a cluster of two nodes with one processor each, by one worker and by two; this in each round, since a machine
that others use is not equally fast at all times. The start of workers is not counted: a rate is that of the pictures
after the first parts. It needs Ray: pip install 'blemish[ray]'.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from interleaved import ratio
from scan_kill import draw, rows_of
from scan_ray_kill import cluster

from blemish.scan import DetectorOptions, PartOptions, PlanOptions, Scan

PART = 16


def begin(photos: Path, out: Path) -> Scan:
    """Open a scan of small parts."""
    detectors = DetectorOptions({"method": "clip", "device": "cpu", "precision": "float32"})
    return Scan(PlanOptions((str(photos),), part_size=PART), out, detectors, PartOptions(8))


class Pace:
    """Seconds a picture from the time at which `skip` parts are written."""

    def __init__(self, skip: int) -> None:
        self._skip, self._times = skip, list[float]()

    def __call__(self, _: object) -> None:
        self._times.append(time.perf_counter())

    @property
    def seconds(self) -> float:
        """Seconds a picture."""
        times = self._times
        return (times[-1] - times[self._skip - 1]) / ((len(times) - self._skip) * PART)


def main() -> int:
    """Run the tests and the measurement; print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without-tests", action="store_true", help="only measure")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    code = 0
    if not given.without_tests:
        test = Path(__file__).parents[1] / "tests" / "scan" / "test_scan_ray.py"
        code = subprocess.run([sys.executable, "-m", "pytest", "-q", str(test)], check=False).returncode

    import torch

    from blemish.scan import rays

    torch.set_num_threads(1)
    facts: dict[str, Any] = {"pictures": given.pictures, "tests": "not run" if given.without_tests else code}
    seconds: dict[str, list[float]] = {"single": [], "1 worker": [], "2 workers": []}
    with tempfile.TemporaryDirectory() as temporary, cluster():
        photos = Path(temporary) / "photos"
        draw(photos, given.pictures, 0)
        for number in range(given.rounds):
            pace, single = Pace(1), Path(temporary) / f"single-{number}"
            with begin(photos, single) as scan:
                scan.execute(on_part=pace)
            seconds["single"].append(pace.seconds)
            for workers, name in ((1, "1 worker"), (2, "2 workers")):
                pace, out = Pace(2 * workers), Path(temporary) / f"ray-{workers}-{number}"
                with begin(photos, out) as scan:
                    rays.execute(scan, "auto", workers=workers, on_part=pace)
                seconds[name].append(pace.seconds)
                if rows_of(out) != rows_of(single):
                    facts["differing"], code = workers, 1
            print({name: round(values[-1], 3) for name, values in seconds.items()}, file=sys.stderr, flush=True)
    facts["seconds a picture"] = {name: [round(each, 4) for each in values] for name, values in seconds.items()}
    facts["speed"] = {name: str(ratio(seconds, "single", name)) for name in ("1 worker", "2 workers")}
    print(json.dumps(facts))
    return code


if __name__ == "__main__":
    sys.exit(main())
