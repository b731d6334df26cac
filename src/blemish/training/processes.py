"""Training on several processes: each computes its part of a batch, and the gradients are summed.

`torchrun` starts the processes and gives each its number in the environment. The learnt parts are few, so one sum over
all gradients and losses after each step is all that is sent; there is no wrapper around the method.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from blemish.errors import BlemishError, UsageError

#: A process may wait this long for the features of the others. Whoever started them notices much earlier that one died.
_TIMEOUT = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Processes:
    """The processes of a run, and which of them this is."""

    rank: int = 0
    """Number of this process; process 0 writes the files and shows the progress."""
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes and shows."""
        return self.rank == 0

    def part(self, length: int) -> range:
        """Return this process's part of `length` things: contiguous, and as long as the others' but for one."""
        return range(length * self.rank // self.count, length * (self.rank + 1) // self.count)

    def in_turn(self) -> Iterator[None]:
        """Yield once, when the processes with lower numbers are through; continue when all are."""
        for rank in range(self.count):
            if rank == self.rank:
                yield
            self._sum(torch.zeros(1))

    def require_equal(self, what: str) -> None:
        """Raise BlemishError in every process unless all give the same text."""
        if self.count == 1:
            return
        number = int.from_bytes(hashlib.sha256(what.encode()).digest()[:6], "big")
        numbers = torch.zeros(self.count, dtype=torch.float64)  # 48 bits are exact
        numbers[self.rank] = number
        if not bool((self._sum(numbers) == number).all()):
            raise BlemishError(
                "the processes do not start alike: give all of them the same data, options and backbone, and an output "
                "folder on a disk that they share"
            )

    def average(self, losses: dict[str, Tensor], parameters: Sequence[Tensor], weight: float) -> dict[str, Tensor]:
        """Add up the gradients of all processes, in place, and return the sums of the losses.

        Args:
            losses: The means over this process's part of the batch.
            parameters: The learnt parameters after the backward pass.
            weight: This process's fraction of the batch; all fractions add up to 1.
        """
        if self.count == 1:
            return losses
        gradients = [p.grad for p in parameters if p.grad is not None]
        tensors = [*gradients, *(value.detach() for value in losses.values())]
        total = self._sum(torch.cat([value.flatten() for value in tensors]) * weight)
        parts = total.split([t.numel() for t in tensors])  # type: ignore[no-untyped-call]
        sums = [part.view_as(value) for part, value in zip(parts, tensors, strict=True)]
        for gradient, value in zip(gradients, sums, strict=False):
            gradient.copy_(value)
        return dict(zip(losses, sums[len(gradients) :], strict=True))

    def _sum(self, values: Tensor) -> Tensor:
        """Return the sum over all processes; the values lie on the CPU or on the device of the training."""
        if self.count == 1:
            return values
        if distributed.get_backend() == "nccl":
            values = values.cuda()  # NCCL sends nothing from the CPU
        try:
            distributed.all_reduce(values)
        except RuntimeError as error:  # the backends have no other for a process that is gone
            raise BlemishError(
                "another process of the training ended; the same command with --resume continues from the last "
                "checkpoint"
            ) from error
        return values


def current() -> Processes:
    """Return the processes of PyTorch's default group; this process alone if there is none."""
    if distributed.is_available() and distributed.is_initialized():
        return Processes(distributed.get_rank(), distributed.get_world_size())
    return Processes()


@contextlib.contextmanager
def joined(device: str) -> Iterator[tuple[Processes, str]]:
    """Join the processes that `torchrun` started; without it, this process is alone.

    Of several processes that fail only the first says so: the others leave with SystemExit, as they fail for the same
    reason, or because the first is gone.

    Args:
        device: As in `resolve_device`; auto and cuda mean a GPU for each process.

    Yields:
        The processes, and the device of this one.

    Raises:
        UsageError: The device cannot serve several processes.
    """
    count = int(os.environ.get("WORLD_SIZE", 1)) if distributed.is_available() else 1
    if count == 1:
        yield Processes(), device
        return
    local_rank, local_count = (int(os.environ.get(f"LOCAL_{name}", 0)) for name in ("RANK", "WORLD_SIZE"))
    gpus = torch.cuda.device_count()
    on_gpu = device.startswith("cuda") or (device == "auto" and gpus > 0)
    problem = None
    if on_gpu and ":" in device:
        problem = f"{count} processes need a GPU each: give --device cuda, not {device}"
    elif on_gpu and local_count > gpus:
        problem = f"{local_count} processes on this machine need a GPU each, and it has {gpus}: give --device cpu"
    distributed.init_process_group("nccl" if on_gpu and not problem else "gloo", timeout=_TIMEOUT)
    try:
        if problem:
            raise UsageError(problem)
        if on_gpu:
            torch.cuda.set_device(local_rank)
            device = f"cuda:{local_rank}"
        yield current(), device
    except BaseException as error:
        # An interrupt reaches all processes; what it left is for the first to say.
        interrupted = not isinstance(error, Exception)
        if (interrupted and not current().is_first) or not _is_first_to_fail():
            raise SystemExit(2 if isinstance(error, UsageError) else 1) from error
        raise
    distributed.destroy_process_group()


def _is_first_to_fail() -> bool:
    try:
        return bool(distributed.distributed_c10d._get_default_store().add("blemish/failed", 1) == 1)
    except RuntimeError:  # the store went with the process that held it
        return False
