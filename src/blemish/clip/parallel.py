"""Parts of a batch side by side on the cores of a CPU, each on its own.

Products of a small tower are too short to be shared: cores that wait for each other after every one of them, and for
whoever decodes or draws beside them, take longer than cores of which each has pictures of its own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import torch

S = TypeVar("S")
T = TypeVar("T")


def num_workers(parts: int, device: torch.device) -> int:
    """How many of so many parts are best computed at once: a divisor of the threads that PyTorch has; 1 on a GPU.

    1 also outside of `torch.inference_mode`: who asks for gradients, or for autocast, asks for it in one thread.
    """
    if device.type != "cpu" or not torch.is_inference_mode_enabled() or torch.is_autocast_enabled("cpu"):
        return 1
    threads = torch.get_num_threads()
    return max(n for n in range(1, max(1, min(parts, threads)) + 1) if threads % n == 0)


def parallel_map(function: Callable[[S], T], parts: Iterable[S], at_once: int) -> list[T]:
    """`[function(part) for part in parts]`, so many at once, each with its share of the caller's threads."""
    if at_once == 1:
        return [function(part) for part in parts]

    def alone(part: S) -> T:
        with torch.inference_mode():  # what is a thread's own does not come along
            return function(part)

    return list(_pool(os.getpid(), at_once, torch.get_num_threads()).map(alone, parts))


@lru_cache(maxsize=8)
def _pool(process: int, at_once: int, threads: int) -> ThreadPoolExecutor:
    """Threads with `threads // at_once` of PyTorch's each; of this process, since a fork has none of its parent's."""
    met = threading.Barrier(at_once + 1)

    def begin() -> None:
        torch.set_num_threads(threads // at_once)
        torch.get_num_threads()  # until a thread has asked, it takes what any thread sets
        met.wait()

    pool = ThreadPoolExecutor(at_once, thread_name_prefix="blemish-tower", initializer=begin)
    for _ in range(at_once):
        pool.submit(int)
    met.wait()
    # The number is each thread's own, but threads to come begin with the one that was set last.
    torch.set_num_threads(threads)
    return pool
