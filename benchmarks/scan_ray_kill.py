"""A scan on a Ray cluster that loses workers and a node at random gives the rows of a single process.

    python benchmarks/scan_ray_kill.py --pictures 20000 --kills 10

Small pictures in tar shards are scored by a tiny random CLIP, by one process without a break, and then on a cluster of
two nodes on this machine. While it scans, actors are killed (SIGKILL) at random moments, and at one of these the second
node goes instead, with all that Ray keeps on it; a new one takes its place. The rows of both scans are then compared,
all columns but those that say when and how long. Exit code 1 if they differ. It needs Ray: pip install 'blemish[ray]'.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scan_kill import TINY_SIZE, draw, rows_of, save_tiny

from blemish.scan import DetectorOptions, PartOptions, PlanOptions, Scan

PART, SHARD = 128, 1000
#: Seconds until an actor is back, at most.
_PATIENCE = 120.0


def pack_shards(photos: Path) -> str:
    """Pack the pictures into tar shards beside their folder; return the pattern of their names."""
    from scan_helpers import pack  # on the path since `save_tiny`

    files = sorted(photos.rglob("*.png"))
    count = -(-len(files) // SHARD)
    for number in range(count):
        mine = files[number * SHARD : (number + 1) * SHARD]
        pack(photos.parent / f"shard-{number:03}.tar", [(file.name, file.read_bytes()) for file in mine])
    return f"{photos.parent}/shard-{{000..{count - 1:03}}}.tar"


@contextmanager
def cluster() -> Iterator[Any]:
    """A cluster of two nodes of one processor each, to which this process is connected."""
    import ray
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 200 * 2**20})
    try:
        add_node(nodes)
        ray.init(address=nodes.address, log_to_driver=False)
        yield nodes
    finally:
        ray.shutdown()
        nodes.shutdown()


def add_node(nodes: Any) -> Any:
    """Add a node of one processor."""
    node = nodes.add_node(num_cpus=1, object_store_memory=200 * 2**20)
    nodes.wait_for_nodes()
    return node


class Strikes:
    """Kills what scores, at random moments after given numbers of parts; to be called for each part."""

    def __init__(self, nodes: Any, points: list[int], rng: random.Random) -> None:
        self._nodes, self._points, self._rng = nodes, points, rng
        self._of_node = rng.choice(points)
        self._threads: list[threading.Thread] = []
        self._one_at_a_time = threading.Lock()
        self._lacks_node = False
        self.parts = 0
        self.log: list[str] = []

    def __call__(self, _: object) -> None:
        self.parts += 1
        if self._lacks_node:  # Ray adds nodes in the main thread only
            self._lacks_node = False
            add_node(self._nodes)
        while self._points and self._points[0] <= self.parts:
            strike = self._remove_node if self._points.pop(0) == self._of_node else self._kill_worker
            self._of_node = -1 if strike == self._remove_node else self._of_node
            self._threads.append(threading.Timer(self._rng.uniform(0, 2), strike))
            self._threads[-1].start()

    def wait(self) -> None:
        """Wait until nothing strikes any more."""
        for thread in self._threads:
            thread.join()

    def _kill_worker(self) -> None:
        from scan_helpers import ray_scorers

        with self._one_at_a_time:
            end = time.monotonic() + _PATIENCE
            while time.monotonic() < end:
                if scorers := ray_scorers():
                    os.kill(self._rng.choice(scorers), signal.SIGKILL)
                    self.log.append(f"worker after {self.parts}")
                    return
                time.sleep(0.2)

    def _remove_node(self) -> None:
        with self._one_at_a_time:
            self._nodes.remove_node(next(iter(self._nodes.worker_nodes)), allow_graceful=False)
            self.log.append(f"node after {self.parts}")
            self._lacks_node = True


def main() -> int:
    """Run the comparison and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"

    import torch

    from blemish.scan import rays

    torch.set_num_threads(1)
    rng = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        draw(work / "photos", given.pictures, given.seed)
        tiny = {"backbone": str(save_tiny(work / "tiny")), "config": {"size": TINY_SIZE}}
        detectors = DetectorOptions({"method": "clip", "device": "cpu", "precision": "float32", **tiny})
        plan = PlanOptions((pack_shards(work / "photos"),), part_size=PART)
        start = time.perf_counter()
        with Scan(plan, work / "single", detectors, PartOptions(8)) as scan:
            scan.execute()
            parts = len(scan.plan)
        single, start = time.perf_counter() - start, time.perf_counter()
        with cluster() as nodes, Scan(plan, work / "ray", detectors, PartOptions(8)) as scan:
            strikes = Strikes(nodes, sorted(rng.choices(range(1, parts - parts // 20), k=given.kills)), rng)
            rays.execute(scan, "auto", workers=2, on_part=strikes)
            strikes.wait()
        first, second = rows_of(work / "single"), rows_of(work / "ray")
    differing = sum(a != b for a, b in zip(first, second, strict=False)) + abs(len(first) - len(second))
    lost = set(range(given.pictures)) - {row["item"] for row in second}
    facts = {
        "pictures": given.pictures,
        "rows": len(second),
        "parts": parts,
        "killed": strikes.log,
        "lost": len(lost),
        "twice": len(second) - len({row["item"] for row in second}),
        "differing_rows": differing,
        "failed": sum(row["error"] is not None for row in second),
        "seconds_single": round(single, 1),
        "seconds_ray": round(time.perf_counter() - start, 1),
    }
    print(json.dumps(facts))
    return int(bool(differing or lost or len(second) != given.pictures or len(strikes.log) != given.kills))


if __name__ == "__main__":
    sys.exit(main())
