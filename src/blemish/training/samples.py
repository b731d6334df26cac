"""What is trained on, and its features: computed once, because the backbone is frozen and nothing alters the pixels."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from blemish.clip import ImageFeatures, Request
from blemish.datasets.masks import resize_mask
from blemish.errors import OutputError, UsageError
from blemish.methods.base import Method

Cache: TypeAlias = str | os.PathLike[str] | Literal[False] | None


class Sample(NamedTuple):
    """One picture to learn from."""

    image: Image.Image
    mask: Image.Image | NDArray[Any] | None
    """Above 0 = anomalous; None: nothing is."""
    label: int
    """1 = anomalous."""
    object_name: str = "object"


class Features:
    """The features, masks and labels of all samples, ready to be drawn in batches.

    Args:
        method: how features are computed, and what its loss needs of them.
        samples: any sequence; a sample is opened when it is needed, once.
        request: what is kept; default: what the method's loss needs. With more, methods that are computed alike can be
            trained on the same features.
        cache: where features stay: None in memory, a folder for files that are mapped into memory and found again by a
            later run, False nowhere (every batch is computed when it is drawn).
        batch_size: pictures in one pass of the backbone.
        told: called with (pictures done, pictures, bytes of all features), first before anything is stored.

    Raises:
        UsageError: there are no samples.
        OutputError: the features do not fit on the disk.
    """

    def __init__(
        self,
        method: Method,
        samples: Sequence[Sample],
        *,
        request: Request | None = None,
        cache: Cache = None,
        batch_size: int = 8,
        told: Callable[[int, int, int], object] | None = None,
    ) -> None:
        if len(samples) == 0:
            raise UsageError("there is nothing to train on: give at least one sample")
        self._method, self._samples = method, samples
        self.request = method.training_request if request is None else request
        self._taps = sorted(self.request.taps)
        self._kept: dict[str, NDArray[Any]] = {}
        self._notes: list[tuple[int, str]] = []
        if cache is False:
            return
        first = self._arrays(self._encode([samples[0]])[0])
        shapes = {name: (len(samples), *value.shape[1:]) for name, value in first.items()}
        size = _bytes(first, len(samples))
        if told is not None:
            told(0, len(samples), size)
        folder = None if cache is None else self._folder(Path(cache), size)
        for name, shape in {**shapes, "digest": (len(samples), 32)}.items():
            self._kept[name] = _allocate(
                folder, name, shape, first[name].dtype if name in first else np.dtype(np.uint8)
            )
        for start in range(0, len(samples), batch_size):
            rows = range(start, min(start + batch_size, len(samples)))
            self._fill(rows)
            if told is not None:
                told(rows.stop, len(samples), size)

    def __len__(self) -> int:
        return len(self._samples)

    def size(self) -> int:
        """Bytes that the features of all samples take; found by computing those of the first."""
        return _bytes(self._arrays(self._encode([self._samples[0]])[0]), len(self))

    def check(self, method: Method) -> None:
        """Raises UsageError unless the method can be trained on these features."""
        own, other = self._method.computation, method.computation
        native = self._method.backbone.size // self._method.backbone.patch
        alike = replace(other, position=own.position) if own.size // self._method.backbone.patch == native else other
        if alike != own or method.backbone.fingerprint != self._method.backbone.fingerprint:
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
        """Features, masks (B, S, S) float32, labels (B,) int64 and object names, on the backbone's device.

        `request`: what is handed out, if not all that is kept.
        """
        if not self._kept:
            chosen = [self._samples[row] for row in rows]
            features, masks = self._encode(chosen)
            return features, masks, self._labels(chosen), [sample.object_name for sample in chosen]
        index, asked = np.asarray(rows), self.request if request is None else request

        def kept(name: str) -> Tensor:
            return torch.from_numpy(np.asarray(self._kept[name][index])).to(self._method.device)

        notes = [self._notes[row] for row in rows]
        features = ImageFeatures(
            taps={tap: kept(f"tap{k}") for k, tap in enumerate(self._taps) if tap in asked.taps},
            class_token=kept("class_token") if asked.class_token else None,
            windows={side: kept(f"windows{side}") for side in asked.windows},
            grid=self._grid,
        )
        labels = torch.tensor([label for label, _ in notes], device=self._method.device)
        return features, kept("masks").float(), labels, [name for _, name in notes]

    def _encode(self, samples: Sequence[Sample]) -> tuple[ImageFeatures, Tensor]:
        pixels, masks = self._pixels(samples)
        return self._forward(pixels), masks.to(self._method.device)

    def _pixels(self, samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
        size = self._method.computation.size
        pixels = self._method.backbone.preprocess([sample.image for sample in samples], size)
        return pixels, torch.from_numpy(np.stack([resize_mask(sample.mask, size) for sample in samples])).float()

    @torch.no_grad()
    def _forward(self, pixels: Tensor) -> ImageFeatures:
        method = self._method
        features = method.backbone.encode_image(pixels.to(method.device), self.request, method.computation)
        self._grid = features.grid
        return features

    def _labels(self, samples: Sequence[Sample]) -> Tensor:
        return torch.tensor([sample.label for sample in samples], device=self._method.device)

    def _arrays(self, features: ImageFeatures, masks: Tensor | None = None) -> dict[str, NDArray[Any]]:
        named = {f"tap{k}": features.taps[tap] for k, tap in enumerate(self._taps)}
        named |= {f"windows{side}": value for side, value in features.windows.items()}
        if features.class_token is not None:
            named["class_token"] = features.class_token
        size = self._method.computation.size
        masks = torch.zeros(1, size, size) if masks is None else masks
        return {**{k: v.cpu().numpy() for k, v in named.items()}, "masks": masks.cpu().numpy().astype(np.uint8)}

    def _fill(self, rows: range) -> None:
        """Computes the rows that are not there yet: a row is there if it was made from the same pixels and mask."""
        samples = [self._samples[row] for row in rows]
        self._notes += [(int(sample.label), sample.object_name) for sample in samples]
        pixels, masks = self._pixels(samples)
        digests = np.stack([_digest(p.numpy(), m.numpy()) for p, m in zip(pixels, masks, strict=True)])
        if np.array_equal(self._kept["digest"][rows.start : rows.stop], digests):
            return
        for name, values in self._arrays(self._forward(pixels), masks).items():
            self._kept[name][rows.start : rows.stop] = values
        for values in self._kept.values():
            if isinstance(values, np.memmap):
                values.flush()  # before the digests: they vouch for the rest
        self._kept["digest"][rows.start : rows.stop] = digests

    def _folder(self, parent: Path, size: int) -> Path:
        """A folder of its own for each backbone, computation, request and number of samples."""
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


def _bytes(first: Mapping[str, NDArray[Any]], count: int) -> int:
    return count * sum(values.nbytes for values in first.values())


def _digest(*arrays: NDArray[Any]) -> NDArray[np.uint8]:
    digest = hashlib.sha256()
    for values in arrays:
        digest.update(np.ascontiguousarray(values).tobytes())
    return np.frombuffer(digest.digest(), np.uint8)


def _allocate(folder: Path | None, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    if folder is None:
        return np.zeros(shape, dtype)
    path = folder / f"{name}.npy"
    try:
        if path.exists():
            found = np.load(path, mmap_mode="r+", allow_pickle=False)
            if found.shape == shape and found.dtype == dtype:
                return found  # type: ignore[no-any-return]
        return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    except (OSError, ValueError) as error:
        raise OutputError(f"features cannot be kept in {folder}: {error}", folder) from error
