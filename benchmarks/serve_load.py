"""Load test of `blemish serve` on loopback: throughput against the bare detector, memory, and overload.

    python benchmarks/serve_load.py [--profile part.profile] [--pictures 200] [--requests 10000] [--seconds 20]

The service runs in a process of its own; clients are threads here, with a connection each, and share the cores with it.

- Throughput: the same pictures through `detector.stream` (with regions and JSON, which an answer has, too) and through
  the service, in turns. A share is the median over the rounds, each against the detector just before, in seconds and in
  processor time.
- Overhead: a request of one client against a call of the detector, in turns, medians.
- Memory: the service's resident memory while small pictures are sent, `--requests` of them.
- Overload: 64 clients for `--seconds` against a queue of 16: every request is answered, with 200, 429 or 503.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import io
import itertools
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

import blemish

BATCH = 8


def picture(seed: int, side: int) -> bytes:
    """Return a JPEG file with smooth noise, about as large as a photo of that size."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (max(2, side // 16), max(2, side // 16), 3), dtype=np.uint8))
    stream = io.BytesIO()
    coarse.resize((side, side), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
    return stream.getvalue()


@contextlib.contextmanager
def service(*words: str) -> Iterator[tuple[int, int]]:
    """Run the service; yield its process id and port."""
    command = [sys.executable, "-m", "blemish", "serve", "--port", "0", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if " at http://" in line:
                break
        else:
            raise SystemExit("the service did not start")
        port = urlsplit(line.split(" at ")[1].strip()).port
        assert port is not None
        threading.Thread(target=process.stderr.read, daemon=True).start()
        try:
            yield process.pid, port
        finally:
            process.terminate()
            if process.wait(60) != 0:
                print(f"the service ended with {process.returncode}")


def send(connection: http.client.HTTPConnection, data: bytes) -> tuple[int, float]:
    """Send a picture; return the status and the advice of a refusal in seconds."""
    connection.request("POST", "/v1/detect", data, {"Content-Type": "image/jpeg"})
    answer = connection.getresponse()
    answer.read()
    return answer.status, float(answer.headers.get("Retry-After", 0))


def load(
    port: int, pictures: Sequence[bytes], clients: int, go_on: Callable[[int], bool]
) -> tuple[Counter[int], float]:
    """Send pictures by several clients while `go_on` of the number of the request; return the statuses and seconds."""
    numbers, statuses, lock = itertools.count(), Counter[int](), threading.Lock()
    failures: list[BaseException] = []

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        try:
            while go_on(number := next(numbers)):
                status, _ = send(connection, pictures[number % len(pictures)])
                with lock:
                    statuses[status] += 1
        except Exception as error:
            failures.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    if failures:
        print(f"{len(failures)} clients got no answer: {failures[0]!r}")
    return statuses, seconds


def resident(process: int) -> float:
    """Return the resident memory of a process in MB."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("this system does not say how much memory a process has")


class Speed(NamedTuple):
    """How fast pictures went through."""

    seconds: float
    """Seconds a picture."""
    processor: float
    """Seconds of processor time a picture: other work on the machine hardly changes them."""


def bare_speed(detector: blemish.Detector, pictures: Sequence[bytes]) -> Speed:
    """Run the detector alone, with what an answer holds: regions, as JSON."""
    start, processor = time.perf_counter(), time.process_time()
    for detection in detector.stream(pictures, batch_size=BATCH):
        json.dumps(detection.to_dict())
    count = len(pictures)
    return Speed((time.perf_counter() - start) / count, (time.process_time() - processor) / count)


def served_speed(process: int, port: int, pictures: Sequence[bytes], clients: int) -> Speed:
    """Send the pictures to the service."""
    before, count = processor_time(process), len(pictures)
    statuses, seconds = load(port, pictures, clients, lambda number: number < count)
    assert set(statuses) == {200}, statuses
    return Speed(seconds / count, (processor_time(process) - before) / count)


def processor_time(process: int) -> float:
    """Return the processor time of a process in seconds."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def throughput(
    words: Sequence[str], detector: blemish.Detector, pictures: Sequence[bytes], clients: Sequence[int], rounds: int
) -> None:
    """Compare the service with the bare detector, in turns: whatever else the machine does concerns both."""
    speeds: dict[int, list[tuple[Speed, Speed]]] = {number: [] for number in clients}
    calls, requests = list[float](), list[float]()
    with service(*words, "--batch-size", str(BATCH)) as (process, port):
        bare_speed(detector, pictures[:BATCH])
        load(port, pictures, 8, lambda number: number < BATCH)
        for _ in range(rounds):
            for number in clients:
                bare = bare_speed(detector, pictures)
                speeds[number].append((bare, served_speed(process, port, pictures, number)))
                print(f"{number} clients: {speeds[number][-1]}", file=sys.stderr)
            for data in pictures[:5]:
                calls.append(seconds_of(lambda data=data: json.dumps(detector(data).to_dict())))  # type: ignore[misc]
                with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
                    connection.connect()
                    requests.append(seconds_of(partial(send, connection, data)))
    print("| clients | ms a picture | bare | share | processor ms a picture | bare | share |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for number, pairs in speeds.items():
        cells = []
        for each in ("seconds", "processor"):
            own, bare = ([getattr(pair[which], each) for pair in pairs] for which in (1, 0))
            shares = [b / o for o, b in zip(own, bare, strict=True)]
            cells += [f"{1000 * statistics.median(own):.0f}", f"{1000 * statistics.median(bare):.0f}"]
            cells += [f"{statistics.median(shares):.2f} ({min(shares):.2f} to {max(shares):.2f})"]
        print(f"| {number} | {' | '.join(cells)} |")
    call, request = statistics.median(calls), statistics.median(requests)
    share = statistics.median(request / call for request, call in zip(requests, calls, strict=True))
    print(f"\nA call takes {1000 * call:.0f} ms, a request {1000 * request:.0f} ms: {share:.2f} of it (medians).\n")


def seconds_of(work: Callable[[], object]) -> float:
    """Return how long something takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def memory(words: Sequence[str], requests: int) -> None:
    """Send many small pictures and look at the memory."""
    small = [picture(seed, 64) for seed in range(50)]
    print("| requests | resident memory (MB) |\n| --- | --- |")
    with service(*words) as (process, port):
        sent, total = 0, Counter[int]()
        print(f"| 0 | {resident(process):.0f} |")
        for part in (0.05, 0.1, 0.25, 0.5, 0.75, 1.0):
            count = round(part * requests) - sent
            statuses, _ = load(port, small, 8, lambda number, count=count: number < count)  # type: ignore[misc]
            total += statuses
            sent += count
            print(f"| {sent:,} | {resident(process):.0f} |", flush=True)
    print(f"\n{total.total():,} of {sent:,} requests were answered, by status: {dict(total)}.\n")


def overload(words: Sequence[str], pictures: Sequence[bytes], seconds: float) -> None:
    """Send more than the service takes."""
    with service(*words, "--queue", "16", "--max-pictures", "16") as (process, port):
        end, before = time.perf_counter() + seconds, resident(process)
        statuses, _ = load(port, pictures, 64, lambda _: time.perf_counter() < end)
        print(
            f"Overload: {dict(sorted(statuses.items()))}; memory {before:.0f} MB before, "
            f"{resident(process):.0f} MB after."
        )
        afterwards, _ = load(port, pictures, 1, lambda number: number < 3)
        print(f"Afterwards: {dict(afterwards)}.")


def main() -> None:
    """Run all parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", help="a profile; by default anomalyclip scores without one")
    parser.add_argument("--method", default="anomalyclip", help="the method, without a profile")
    parser.add_argument("--backbone", default="builtin", help="a small one makes many requests take less time")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--side", type=int, default=1000, help="side of the pictures in pixels")
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--clients", default="1,2,4,8", help="of throughput, one after the other")
    parser.add_argument("--rounds", type=int, default=3, help="of throughput")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--parts", default="throughput,memory,overload")
    options = parser.parse_args()
    model = ["--profile", options.profile] if options.profile else ["--method", options.method]
    words = ["--device", options.device, "--backbone", options.backbone, *model]
    pictures = [picture(seed, options.side) for seed in range(options.pictures)]
    parts = options.parts.split(",")
    if "throughput" in parts:
        backbone = {"backbone": options.backbone, "device": options.device}
        detector = (
            blemish.load(profile=options.profile, **backbone)
            if options.profile
            else blemish.load(options.method, **backbone)
        )
        throughput(words, detector, pictures, [int(each) for each in options.clients.split(",")], options.rounds)
        del detector
    if "memory" in parts:
        memory(words, options.requests)
    if "overload" in parts:
        overload(words, pictures, options.seconds)


if __name__ == "__main__":
    main()
