"""Features of the frozen blocks on disk, computed once in half precision; an interrupted run is continued.

    python -m pretraining.search.cache --sets DIR --tower MODEL --cache FOLDER [--layers 4 6 7 8 9]

DIR has the sets of `pretraining.search.pictures`, MODEL is what `pretraining.training.init_from_dinov2` writes.
`blemish.training.Features` keeps float32 and opens every picture again at each start; here a row that is done is not
opened, and takes half the disk: 0.44 MB for each picture and layer at 336 pixels.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from blemish.clip import Backbone, Computation, Request, Tap, load_backbone
from blemish.datasets.masks import resize_mask
from pretraining.search.pictures import Numbers, Picture, list_pictures, open_picture

LAYERS = (4, 6, 7, 8, 9)
#: Side of the input in pixels.
SIZE = 336
#: Side of the stored masks in pixels.
MASK_SIZE = 168
BATCH = 8
#: Value of `labels` for a row that is still to be computed.
MISSING = -1


@dataclass(frozen=True)
class Cache:
    """Features of pictures. Arrays have a row for each picture and are read from the disk as needed."""

    pictures: list[dict[str, str | int]]
    """"origin", "source", "name", "kind" and "path" of each."""
    layers: Mapping[int, np.ndarray]
    """(n, 1 + N, D) float16 of each layer: the class token, then the patches row by row."""
    masks: np.ndarray
    """(n, M, M) uint8."""
    labels: np.ndarray
    """(n,) int8: 1 = damaged, 0 = normal."""
    has_mask: np.ndarray
    """(n,) bool: whether the damaged area is known."""

    def tokens(self, layer: int, rows: Sequence[int] | np.ndarray) -> Tensor:
        """Return a layer's tokens of some pictures, (B, 1 + N, D) float32."""
        return torch.from_numpy(self.layers[layer][rows]).float()

    @property
    def origins(self) -> np.ndarray:
        """Set of each picture, (n,)."""
        return np.array([picture["origin"] for picture in self.pictures])

    @property
    def sources(self) -> np.ndarray:
        """Source of each picture, (n,)."""
        return np.array([picture["source"] for picture in self.pictures])

    @property
    def kinds(self) -> np.ndarray:
        """Kind of thing of each picture, (n,)."""
        return np.array([picture["kind"] for picture in self.pictures])


def describe(pictures: Sequence[Picture]) -> list[dict[str, str | int]]:
    """Return what the cache keeps of the pictures; other pictures need another cache."""
    return [
        {
            "origin": picture.origin,
            "source": picture.source,
            "name": picture.name,
            "kind": picture.kind,
            "number": picture.number,
            "path": f"{picture.path.parent.name}/{picture.path.name}" if picture.path else "",
        }
        for picture in pictures
    ]


def open_cache(folder: Path, *, mode: str = "r") -> Cache:
    """Open a cache. Raises SystemExit if it is not complete and is only to be read."""
    labels = np.load(folder / "labels.npy", mmap_mode=mode)
    if mode == "r" and (labels == MISSING).any():
        raise SystemExit(f"{folder} lacks {(labels == MISSING).sum()} pictures: run the same command again")
    layers = {int(path.stem.removeprefix("layer-")): path for path in folder.glob("layer-*.npy")}
    return Cache(
        pictures=json.loads((folder / "pictures.json").read_text()),
        layers={layer: np.load(layers[layer], mmap_mode=mode) for layer in sorted(layers)},
        masks=np.load(folder / "masks.npy", mmap_mode=mode),
        labels=labels,
        has_mask=np.load(folder / "has_mask.npy", mmap_mode=mode),
    )


def make_cache(folder: Path, pictures: Sequence[Picture], layers: Sequence[int], tokens: int, width: int) -> Cache:
    """Make an empty cache, or open the one of the same pictures and layers to continue it."""
    described = describe(pictures)
    path, count = folder / "pictures.json", len(pictures)
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        shapes: dict[str, tuple[tuple[int, ...], type]] = {
            "masks": ((count, MASK_SIZE, MASK_SIZE), np.uint8),
            "has_mask": ((count,), np.bool_),
        }
        shapes |= {f"layer-{layer}": ((count, tokens, width), np.float16) for layer in layers}
        for name, (shape, dtype) in shapes.items():
            np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=dtype, shape=shape)
        np.save(folder / "labels.npy", np.full(count, MISSING, np.int8))
        path.write_text(json.dumps(described, indent=0))
    cache = open_cache(folder, mode="r+")
    if cache.pictures != described or list(cache.layers) != sorted(layers):
        raise SystemExit(f"{folder} has other pictures or layers: give another --cache")
    return cache


@torch.inference_mode()
def fill(
    cache: Cache, backbone: Backbone, pictures: Sequence[Picture], sets: Path, size: int = SIZE
) -> None:  # fmt: skip
    """Compute the rows that are missing, in random order, so that what is done is a fair part at any time.

    A row's label is written last, so it vouches for the rest.
    """
    request = Request(frozenset(Tap(layer) for layer in cache.layers), class_token=False)
    rows = np.random.default_rng(0).permutation(np.flatnonzero(cache.labels == MISSING))
    start = time.time()
    for first in range(0, len(rows), BATCH):
        batch = rows[first : first + BATCH]
        opened = [open_picture(pictures[row], sets) for row in batch]
        pixels = backbone.preprocess([Image.fromarray(image) for image, _ in opened], size)
        features = backbone.encode_image(pixels, request, Computation(size))
        for layer, values in cache.layers.items():
            values[batch] = features.taps[Tap(layer)].half().numpy()
        for row, (_, mask) in zip(batch, opened, strict=True):
            cache.masks[row] = resize_mask(mask, MASK_SIZE)
            cache.has_mask[row] = mask is not None
            cache.labels[row] = pictures[row].label if mask is None else int(mask.any())
        done = first + len(batch)
        print(f"{done} of {len(rows)} pictures, {done / (time.time() - start):.2f} a second", flush=True)
    for values in (*cache.layers.values(), cache.masks, cache.has_mask, cache.labels):
        if isinstance(values, np.memmap):
            values.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=Path, required=True, help="folder of the sets")
    parser.add_argument("--tower", type=Path, required=True, help="model whose image blocks are frozen")
    parser.add_argument("--cache", type=Path, required=True, help="folder of the features")
    parser.add_argument("--layers", type=int, nargs="+", default=list(LAYERS))
    parser.add_argument("--real", type=int, default=Numbers.real, help="normal pictures of each set, and damaged ones")
    parser.add_argument("--painted", type=int, default=Numbers.painted, help="painted pictures of each set")
    parser.add_argument("--drawn", type=int, default=Numbers.drawn, help="drawn pictures")
    args = parser.parse_args()
    pictures = list_pictures(args.sets, Numbers(args.real, args.painted, args.drawn))
    backbone = load_backbone(str(args.tower))
    assert isinstance(backbone, Backbone)
    tokens = 1 + (SIZE // backbone.patch) ** 2
    cache = make_cache(args.cache, pictures, args.layers, tokens, backbone.width)
    fill(cache, backbone, pictures, args.sets)


if __name__ == "__main__":
    main()
