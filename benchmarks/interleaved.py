"""Comparing what takes long: contenders take turns within each round, so that a slow minute slows all of them.

What is compared is the ratio within a round; reported are its median over the rounds and its extremes.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import torch

Contender = Callable[[], object]


@dataclass(frozen=True)
class Ratio:
    """How often one contender's time fits into another's, over the rounds."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def turns(
    contenders: Mapping[str, Contender],
    rounds: int,
    *,
    warm: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of every contender in every round; every other one goes backwards. `warm`: each runs once before.

    The clock is that of the wall; `time.process_time` is that of the processor.
    """
    for contender in contenders.values() if warm else ():
        contender()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        names = list(contenders)
        for name in reversed(names) if number % 2 else names:
            start = clock()
            contenders[name]()
            seconds[name].append(clock() - start)
    return seconds


def ratio(seconds: Mapping[str, list[float]], above: str, below: str) -> Ratio:
    """Seconds of `above` over seconds of `below`, round by round."""
    ratios = [a / b for a, b in zip(seconds[above], seconds[below], strict=True)]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios))


def middle(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """The median of each contender's seconds."""
    return {name: statistics.median(values) for name, values in seconds.items()}


def machine() -> dict[str, object]:
    """What the numbers depend on."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def report(seconds: Mapping[str, list[float]], ratios: Mapping[str, Ratio]) -> dict[str, object]:
    """Return machine, seconds and ratios as JSON values."""
    return {
        "machine": machine(),
        "seconds": dict(seconds),
        "ratios": {name: asdict(value) for name, value in ratios.items()},
    }
