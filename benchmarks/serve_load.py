"""Load test of `blemish serve` on loopback: throughput against the bare detector, memory, and overload.

    python benchmarks/serve_load.py [--profile part.profile] [--pictures 200] [--requests 10000] [--seconds 20]

The service runs in a process of its own; clients are threads here, with a connection each, and share the cores with it.

- Throughput: the same pictures through `detector.stream` (with regions and JSON, which an answer has, too) and through
  the service, with 1 to 8 clients, in turns. The share is the median over the rounds, each against the detector just
  before.
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
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

import blemish

CLIENTS = (1, 2, 4, 8)
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


def bare_rate(detector: blemish.Detector, pictures: Sequence[bytes]) -> float:
    """Return the pictures a second of the detector alone, with what an answer holds: regions, as JSON."""
    start = time.perf_counter()
    for detection in detector.stream(pictures, batch_size=BATCH):
        json.dumps(detection.to_dict())
    return len(pictures) / (time.perf_counter() - start)


def throughput(words: Sequence[str], detector: blemish.Detector, pictures: Sequence[bytes], rounds: int) -> None:
    """Compare the service with the bare detector, in turns: whatever else the machine does concerns both."""
    few = pictures[:20]
    rates: dict[int, list[float]] = {clients: [] for clients in (0, *CLIENTS)}  # 0 is the bare detector
    calls, requests = list[float](), list[float]()
    with service(*words, "--batch-size", str(BATCH)) as (_, port):
        bare_rate(detector, pictures[:16])
        load(port, pictures, 8, lambda number: number < 16)
        connection = http.client.HTTPConnection("127.0.0.1", port)
        for _ in range(rounds):
            for data in few:
                calls.append(seconds_of(lambda data=data: json.dumps(detector(data).to_dict())))  # type: ignore[misc]
                requests.append(seconds_of(lambda data=data: send(connection, data)))  # type: ignore[misc]
            for clients in CLIENTS:
                rates[0].append(bare_rate(detector, pictures))
                statuses, seconds = load(port, pictures, clients, lambda number: number < len(pictures))
                assert set(statuses) == {200}, statuses
                rates[clients].append(len(pictures) / seconds)
        connection.close()
    print("| clients | pictures a second | of the bare detector |\n| --- | --- | --- |")
    print(f"| bare detector | {statistics.median(rates[0]):.2f} | 1 |")
    for place, clients in enumerate(CLIENTS):
        beside = rates[0][place :: len(CLIENTS)]
        shares = [own / bare for own, bare in zip(rates[clients], beside, strict=True)]
        share = f"{statistics.median(shares):.2f} ({min(shares):.2f} to {max(shares):.2f})"
        print(f"| {clients} | {statistics.median(rates[clients]):.2f} | {share} |")
    call, request = statistics.median(calls), statistics.median(requests)
    share = statistics.median(own / bare for own, bare in zip(requests, calls, strict=True))
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
        throughput(words, detector, pictures, options.rounds)
        del detector
    if "memory" in parts:
        memory(words, options.requests)
    if "overload" in parts:
        overload(words, pictures, options.seconds)


if __name__ == "__main__":
    main()
