"""The parts of a scan as a Ray Data pipeline: read, decode and score in actors, write.

Ray schedules the parts, holds back the stages that run ahead, and repeats what was lost with a worker or a node. A part
is scored by the same code as in one process, and whoever scores it writes the same rows, so repeating it is no harm.
The folder of the scan has to be visible to every node.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from blemish.errors import UsageError
from blemish.scan.ray_stages import PartScorer, facts_of, read_part, write_rows
from blemish.scan.rows import PartFacts
from blemish.scan.run import Scan

#: Seconds that the head of a cluster may take to answer.
_PATIENCE = 10.0


def execute(
    scan: Scan,
    address: str,
    *,
    workers: int | None = None,
    on_part: Callable[[PartFacts], object] = lambda facts: None,
    on_progress: Callable[[], object] = lambda: None,
) -> None:
    """Score what is to be done on a Ray cluster.

    Args:
        scan: The scan, of which this process writes the journal.
        address: "auto" (the cluster of this machine), "local" (a new one that ends with the scan) or its address.
        workers: Actors that score; None = one for each GPU, or else for each CPU of the cluster.
        on_part: Called for each part that was written.
        on_progress: Called for each picture of a part that was written.

    Raises:
        UsageError: Ray is missing, or there is no cluster at the address.
        BlemishError: What stopped a worker for a reason that no repetition would heal.
    """
    if not scan.todo:
        return
    with _cluster(address) as ray:
        resources = ray.cluster_resources()
        device = str(scan.work.detectors.load.get("device", "auto"))
        gpu = device.startswith("cuda") or (device == "auto" and resources.get("GPU", 0) >= 1)
        count = workers or max(1, int(resources.get("GPU" if gpu else "CPU", 1)))
        plan = str(scan.plan.path.absolute())
        parts = ray.data.from_items([{"part": n, "error": ""} for n in scan.todo], override_num_blocks=len(scan.todo))
        # Reading and writing wait for disks and networks; they leave the processors to the actors.
        results = (
            parts.map(read_part, fn_kwargs={"plan": plan}, num_cpus=0, concurrency=2 * count)
            .map(
                PartScorer,
                fn_constructor_args=(scan.work, plan),
                num_cpus=0 if gpu else 1,
                num_gpus=1 if gpu else 0,
                concurrency=(1, count),
            )
            .map(write_rows, fn_kwargs={"work": scan.work}, num_cpus=0, concurrency=2 * count)
        )
        for row in results.iter_rows():
            facts = facts_of(row)
            scan.take(facts, facts.pictures)
            for _ in range(facts.pictures):
                on_progress()
            on_part(facts)


@contextmanager
def _cluster(address: str) -> Iterator[Any]:
    """Connect to a cluster, or start one that ends with the block."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UsageError("--ray needs Ray; run: pip install 'blemish[ray]'.") from error
    connected = ray.is_initialized()
    if not connected:
        _require_answer(address)
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError) as error:
            raise _no_cluster(address) from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    try:
        yield ray
    finally:
        if not connected:
            ray.shutdown()


def _require_answer(address: str) -> None:
    """Raise a UsageError unless somebody listens at an address; Ray itself would try for minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon:
        if address not in ("auto", "local"):
            raise _no_cluster(address)
        return
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
    except (OSError, ValueError, OverflowError) as error:
        raise _no_cluster(address) from error


def _no_cluster(address: str) -> UsageError:
    return UsageError(
        f"there is no Ray cluster at {address!r}: start one with `ray start --head`, or give auto, local or its address"
    )
