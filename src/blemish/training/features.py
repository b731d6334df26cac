"""Features of training samples, computed once: the backbone is frozen, and nothing alters the pixels.

Of several processes each computes and keeps the features of its own samples.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from blemish.clip import ImageFeatures, Request
from blemish.concurrency import READER_THREADS, prefetch
from blemish.datasets.masks import resize_mask
from blemish.errors import OutputError, UsageError
from blemish.methods.base import Method
from blemish.scoring import effective
from blemish.training.processes import current
from blemish.training.samples import Sample

Cache: TypeAlias = str | os.PathLike[str] | Literal[False] | None
Arrays: TypeAlias = dict[str, NDArray[Any]]


class _Batch(NamedTuple):
    """Samples that are ready for the backbone."""

    rows: range
    pixels: Tensor
    masks: Tensor
    labels: list[int]
    object_names: list[str]


class Features:
    """The features, masks and labels of all samples, ready to be drawn in batches.

    Args:
        method: Its backbone and computation make the features.
        samples: The samples; each is opened once, in a thread.
        request: Features to compute; None for what the method's loss needs. A larger request lets methods with the
            same computation share the features.
        cache: None keeps features in memory, a folder in files that a later run finds again, and False nowhere: every
            batch is then computed when it is drawn.
        batch_size: Images in one pass of the backbone.
        on_progress: Called with (finished images, all images of this process, bytes of all features), first before
            anything is stored.

    Raises:
        UsageError: There are no samples, or fewer than processes.
        OutputError: The features do not fit on the disk.
    """

    def __init__(
        self,
        method: Method,
        samples: Sequence[Sample],
        *,
        request: Request | None = None,
        cache: Cache = None,
        batch_size: int = 8,
        on_progress: Callable[[int, int, int], object] | None = None,
    ) -> None:
        if len(samples) == 0:
            raise UsageError("there is nothing to train on: give at least one sample")
        self._processes = current()
        if len(samples) < self._processes.count:
            raise UsageError(
                f"there are {len(samples)} samples for {self._processes.count} processes: start at most one for each"
            )
        self._method, self._samples = method, samples
        self.request = method.training_request if request is None else request
        self._taps = sorted(self.request.taps)
        self._arrays: Arrays = {}
        self._labels: dict[int, int] = {}
        self._object_names: dict[int, str] = {}
        if cache is not False:
            self._compute(cache, batch_size, on_progress or (lambda done, total, size: None))

    def __len__(self) -> int:
        return len(self._samples)

    def own(self, rows: Sequence[int]) -> list[int]:
        """Return those rows of a batch that this process computes: the cached ones, else an equal part."""
        mine = self._processes.part(len(self))
        if self._arrays:
            return [row for row in rows if row in mine]
        return [rows[k] for k in self._processes.part(len(rows))]

    def size(self) -> int:
        """Return the bytes that the features of all samples take; this computes those of the first."""
        return len(self) * sum(values.nbytes for values in self._first().values())

    def check(self, method: Method) -> None:
        """Raise UsageError unless the method can be trained on these features."""
        own, other = (effective(m.computation, m.backbone) for m in (self._method, method))
        if own != other or method.backbone.fingerprint != self._method.backbone.fingerprint:
            raise UsageError(
                f"the features were computed for {self._method.info.name} in another way than {method.info.name} asks "
                "for: compute them again for this method"
            )
        if self.request | method.training_request != self.request:
            raise UsageError(
                f"the features lack what {method.info.name} is trained with: compute them with its training_request"
            )

    def batch(
        self, rows: Sequence[int], request: Request | None = None
    ) -> tuple[ImageFeatures, Tensor, Tensor, list[str]]:
        """Return features, masks (B, S, S) float32, labels (B,) int64 and object names, on the backbone's device.

        Args:
            rows: Indices of the samples.
            request: Features to return, if not all.
        """
        device = self._method.device
        if not self._arrays:
            batch = self._prepare([self._samples[row] for row in rows])
            labels = torch.tensor(batch.labels, device=device)
            return self._encode(batch.pixels), batch.masks.to(device), labels, batch.object_names
        index, request = np.asarray(rows), self.request if request is None else request

        def cached(name: str) -> Tensor:
            return torch.from_numpy(np.asarray(self._arrays[name][index])).to(device)

        features = ImageFeatures(
            taps={tap: cached(f"tap{k}") for k, tap in enumerate(self._taps) if tap in request.taps},
            class_token=cached("class_token") if request.class_token else None,
            windows={side: cached(f"windows{side}") for side in request.windows},
            grid=self._grid,
        )
        labels = torch.tensor([self._labels[row] for row in rows], device=device)
        return features, cached("masks").float(), labels, [self._object_names[row] for row in rows]

    def _compute(
        self, cache: str | os.PathLike[str] | None, batch_size: int, on_progress: Callable[[int, int, int], object]
    ) -> None:
        """Fill the cache; a row is kept if it was computed from the same pixels and mask, and is as it was written."""
        first, count, mine = self._first(), len(self), self._processes.part(len(self))
        size = count * sum(values.nbytes for values in first.values())
        on_progress(0, len(mine), size)
        folder = None if cache is None else self._folder(Path(cache), size)
        first["digest"] = np.zeros((1, 32), np.uint8)
        for _ in self._processes.in_turn():  # two at once would make the same files
            for name, values in first.items():
                self._arrays[name] = _allocate(folder, name, (count, *values.shape[1:]), values.dtype)

        def prepare(rows: range) -> Generator[_Batch, None, None]:
            yield self._prepare([self._samples[row] for row in rows], rows)

        ranges = [
            range(start, min(start + batch_size, mine.stop)) for start in range(mine.start, mine.stop, batch_size)
        ]
        with contextlib.closing(prefetch(ranges, prepare, READER_THREADS)) as batches:
            for batch in batches:
                if isinstance(batch, BaseException):
                    raise batch
                self._store(batch)
                on_progress(batch.rows.stop - mine.start, len(mine), size)

    def _prepare(self, samples: Sequence[Sample], rows: range = range(0)) -> _Batch:
        size = self._method.computation.size
        geometry = self._method.computation.geometry
        pixels = self._method.backbone.preprocess([sample.image for sample in samples], size, geometry)
        masks = torch.from_numpy(np.stack([resize_mask(sample.mask, size) for sample in samples])).float()
        labels, names = [int(sample.label) for sample in samples], [sample.object_name for sample in samples]
        return _Batch(rows, pixels, masks, labels, names)

    @torch.no_grad()  # not `TorchEngine.encode`: what inference mode makes cannot take part in training
    def _encode(self, pixels: Tensor) -> ImageFeatures:
        method = self._method
        features = method.backbone.encode_image(pixels.to(method.device), self.request, method.computation)
        self._grid = features.grid
        return features

    def _first(self) -> Arrays:
        """Return the arrays of the first sample."""
        batch = self._prepare([self._samples[0]])
        return self._to_arrays(self._encode(batch.pixels), batch.masks)

    def _to_arrays(self, features: ImageFeatures, masks: Tensor) -> Arrays:
        tensors = {f"tap{k}": features.taps[tap] for k, tap in enumerate(self._taps)}
        tensors |= {f"windows{side}": value for side, value in features.windows.items()}
        if features.class_token is not None:
            tensors["class_token"] = features.class_token
        return {**{k: v.cpu().numpy() for k, v in tensors.items()}, "masks": masks.cpu().numpy().astype(np.uint8)}

    def _store(self, batch: _Batch) -> None:
        self._labels.update(zip(batch.rows, batch.labels, strict=True))
        self._object_names.update(zip(batch.rows, batch.object_names, strict=True))
        rows = slice(batch.rows.start, batch.rows.stop)
        if np.array_equal(self._arrays["digest"][rows], self._digests(batch)):
            return
        for name, values in self._to_arrays(self._encode(batch.pixels), batch.masks).items():
            self._arrays[name][rows] = values
        for values in self._arrays.values():
            if isinstance(values, np.memmap):
                values.flush()  # before the digests, which vouch for the rest
        self._arrays["digest"][rows] = self._digests(batch)

    def _digests(self, batch: _Batch) -> NDArray[np.uint8]:
        """Return a hash for each sample of a batch, over its pixels, its mask and what is kept of it."""
        kept = [values for name, values in self._arrays.items() if name != "digest"]
        samples = zip(batch.rows, batch.pixels.numpy(), batch.masks.numpy(), strict=True)
        return np.stack([_digest(pixels, mask, *(values[row] for values in kept)) for row, pixels, mask in samples])

    def _folder(self, parent: Path, size: int) -> Path:
        """Make the folder of this backbone, computation, request and number of samples."""
        method = self._method
        key = {
            "backbone": method.backbone.fingerprint,
            "computation": repr(method.computation),
            "taps": [repr(tap) for tap in self._taps],
            "class_token": self.request.class_token,
            "windows": list(self.request.windows),
            "samples": len(self._samples),
        }
        text = json.dumps(key, indent=1)
        folder = parent / f"features-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(folder).free
            if not (folder / "key.json").exists() and free < size:
                raise OutputError(
                    f"the features need {size / 1e9:.1f} GB and {parent} has {free / 1e9:.1f} GB left: free some, use "
                    "another folder, or train without a cache",
                    parent,
                )
            (folder / "key.json").write_text(text, encoding="utf-8")
        except OSError as error:
            raise OutputError(f"features cannot be kept in {parent}: {error.strerror or error}", parent) from error
        return folder


def _digest(*arrays: NDArray[Any]) -> NDArray[np.uint8]:
    digest = hashlib.sha256()
    for values in arrays:
        digest.update(np.ascontiguousarray(values).tobytes())
    return np.frombuffer(digest.digest(), np.uint8)


def _allocate(folder: Path | None, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an array in memory, or the one in the folder, which is made unless it is whole and of this kind."""
    if folder is None:
        return np.zeros(shape, dtype)  # takes memory only where it is written: the rows of this process
    path = folder / f"{name}.npy"
    try:
        with contextlib.suppress(FileNotFoundError, ValueError, EOFError):  # the run that made it was killed
            stored = np.load(path, mmap_mode="r+", allow_pickle=False)
            if stored.shape == shape and stored.dtype == dtype:
                return stored  # type: ignore[no-any-return]
        values = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
        if hasattr(os, "posix_fallocate"):  # else a full disk ends the process when the memory is written back
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        return values
    except (OSError, ValueError) as error:
        raise OutputError(f"features cannot be kept in {folder}: {error}", folder) from error
