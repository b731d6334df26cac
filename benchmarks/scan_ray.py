"""A scan on a Ray cluster: the tests with a killed worker and a killed node, and the speed of one and two workers.

    python benchmarks/scan_ray.py --pictures 400

The pictures (64 x 48 pixels of noise) are scored by `clip` on the built-in model, by one process with one thread, and
then on a cluster of two nodes with one processor each. The start of workers is not counted: a second is that of the
pictures after the first part of each worker. It needs Ray: pip install 'blemish[ray]'.
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

from scan_kill import draw, rows_of

from blemish.scan import DetectorOptions, PartOptions, PlanOptions, Scan

PART = 16


def begin(photos: Path, out: Path) -> Scan:
    """Open a scan of small parts."""
    detectors = DetectorOptions({"method": "clip", "device": "cpu", "precision": "float32"})
    return Scan(PlanOptions((str(photos),), part_size=PART), out, detectors, PartOptions(8))


class Pace:
    """Pictures a second from the time at which `skip` parts are written."""

    def __init__(self, skip: int) -> None:
        self._skip, self._times = skip, list[float]()

    def __call__(self, _: object) -> None:
        self._times.append(time.perf_counter())

    @property
    def rate(self) -> float:
        """Pictures a second."""
        times = self._times
        return (len(times) - self._skip) * PART / (times[-1] - times[self._skip - 1])


def main() -> int:
    """Run the tests and the measurement; print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=400)
    parser.add_argument("--without-tests", action="store_true", help="only measure")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    code = 0
    if not given.without_tests:
        test = Path(__file__).parents[1] / "tests" / "scan" / "test_scan_ray.py"
        code = subprocess.run([sys.executable, "-m", "pytest", "-q", str(test)], check=False).returncode

    import ray
    import torch
    from ray.cluster_utils import Cluster

    from blemish.scan import rays

    torch.set_num_threads(1)
    facts: dict[str, Any] = {"pictures": given.pictures, "tests": "not run" if given.without_tests else code}
    with tempfile.TemporaryDirectory() as temporary:
        photos = Path(temporary) / "photos"
        draw(photos, given.pictures, 0)
        pace = Pace(1)
        with begin(photos, Path(temporary) / "single") as scan:
            scan.execute(on_part=pace)
        facts["single process"] = round(pace.rate, 2)
        expected = rows_of(Path(temporary) / "single")
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 200 * 2**20})
        cluster.add_node(num_cpus=1, object_store_memory=200 * 2**20)
        ray.init(address=cluster.address, log_to_driver=False)
        for workers in (1, 2):
            pace, out = Pace(2 * workers), Path(temporary) / f"ray-{workers}"
            with begin(photos, out) as scan:
                rays.execute(scan, "auto", workers=workers, on_part=pace)
            facts[f"{workers} workers"] = round(pace.rate, 2)
            if rows_of(out) != expected:
                facts["differing"], code = workers, 1
        ray.shutdown()
        cluster.shutdown()
    print(json.dumps(facts))
    return code


if __name__ == "__main__":
    sys.exit(main())
