"""The parts of a scan on a Ray cluster of two nodes on this machine, with a worker and a node killed in the middle.

Skipped where Ray is missing. `python benchmarks/scan_ray.py` runs these tests, too.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers import save_picture
from scan_helpers import pack, ray_scorers, rows_of

ray: Any = pytest.importorskip("ray", reason="needs the extra ray")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

#: Pictures, and pictures of a part.
COUNT, PART = 160, 4


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head; each test may add a node."""
    from ray.cluster_utils import Cluster

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 200 * 2**20})
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def node(cluster: Any) -> Iterator[Any]:
    added = cluster.add_node(num_cpus=1, object_store_memory=200 * 2**20)
    cluster.wait_for_nodes()
    yield added
    if added in cluster.worker_nodes:
        cluster.remove_node(added)


@pytest.fixture
def shards(tmp_path: Path) -> str:
    """Pictures in two tar shards, which the first stage reads and the second scores."""
    files = [(f"{n}.png", save_picture(tmp_path / "x" / f"{n}.png", n).read_bytes()) for n in range(COUNT)]
    files[7] = ("7.png", b"no picture")
    for number in range(2):
        pack(tmp_path / f"{number}.tar", files[number * COUNT // 2 : (number + 1) * COUNT // 2])
    return f"{tmp_path}/{{0..1}}.tar"


def test_a_worker_and_then_a_node_die(begin, shards: str, cluster: Any, node: Any, tmp_path: Path) -> None:
    from blemish.scan import rays

    with begin(shards, out="single", part_size=PART) as scan:
        scan.execute()
    written = threading.Event()
    log: list[tuple[str, bool]] = []

    def strike(scan: Any) -> None:
        written.wait()
        os.kill(ray_scorers()[0], signal.SIGKILL)
        log.append(("worker", bool(scan.todo)))
        time.sleep(1)
        cluster.remove_node(node, allow_graceful=False)
        log.append(("node", bool(scan.todo)))

    with begin(shards, out="ray", part_size=PART) as scan:
        thread = threading.Thread(target=strike, args=(scan,), daemon=True)
        thread.start()
        rays.execute(scan, "auto", on_part=lambda facts: written.set())
        thread.join(60)
        assert (scan.todo, scan.summary()["pictures"], scan.summary()["failed"]) == ([], COUNT, 1)
    assert log == [("worker", True), ("node", True)], "each dies while parts are left"
    assert rows_of(tmp_path / "ray") == rows_of(tmp_path / "single")


def test_local_files_and_what_was_finished(begin, folder: Path, cluster: Any, tmp_path: Path) -> None:
    from blemish.scan import rays

    with begin(folder, out="single") as scan:
        scan.execute()
    with begin(folder, out="ray") as scan:
        number = scan.todo[0]
        rows = scan.work.score(scan.plan.items(number), scan.detectors)
        scan.take(scan.work.write(number, rows, 0.0), len(rows))
        rays.execute(scan, "auto")
        assert scan.scored == 10
    assert rows_of(tmp_path / "ray") == rows_of(tmp_path / "single")


def test_an_error_of_a_worker_is_a_sentence(begin, folder: Path, cluster: Any) -> None:
    from blemish.errors import OutputError
    from blemish.scan import rays

    with begin(folder) as scan:
        parts = scan.folder.path / "parts"
        parts.mkdir()
        (parts / "part-000001.parquet").mkdir()
        with pytest.raises(OutputError, match="a file is in the way of a folder"):
            rays.execute(scan, "auto")
