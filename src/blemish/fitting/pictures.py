"""Good pictures and known defects: encoded once, and scored with one memory after another."""

from __future__ import annotations

import hashlib
import io
import itertools
import math
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from blemish import calibration as conformal
from blemish.clip import ImageFeatures, Request, Tap
from blemish.detection import Timing
from blemish.engine import TorchEngine
from blemish.errors import ImageError
from blemish.few_shot import (
    BATCH,
    ReadPicture,
    References,
    alike_batches,
    copy_batches,
    list_references,
    read_pictures,
    set_fingerprint,
)
from blemish.image_io import MAX_PIXELS
from blemish.limits import Measured, sample_inside
from blemish.methods.base import MemoryBank, Prediction, ReferenceMethod
from blemish.methods.ops import normalise
from blemish.profile import GoodPicture, KnownDefect, Profile, rounded
from blemish.roi import Roi, RoiSource, read_roi
from blemish.scoring import add_tile, finished_map
from blemish.tiling import TileMerger, batched
from blemish.types import ImageSource, Tiling, ValueRange

#: Unreadable pictures that a message names.
MAX_NAMED = 5


@dataclass(frozen=True)
class EncodedPicture:
    """A picture of which only the features are left."""

    name: str
    fingerprint: str
    size: tuple[int, int]
    """(width, height) in pixels."""
    indices: list[tuple[int, int]]
    """(row, column) of each tile."""
    features: list[ImageFeatures]
    """Features of each tile."""
    whole_tap: Tap
    """Tap whose class token stands for the whole picture."""

    @property
    def vector(self) -> npt.NDArray[np.float32]:
        """One vector of the whole picture (D,): its class token at `whole_tap`, the mean of its tiles."""
        tokens = [features.taps[self.whole_tap][0, 0].float() for features in self.features]
        vector: npt.NDArray[np.float32] = normalise(torch.stack(tokens)).mean(0).cpu().numpy()
        return vector

    def entry(self, result: Measured | None, images: int) -> GoodPicture:
        """Return the picture as a profile lists it.

        Args:
            result: What it scores; None for one that is only in the memory.
            images: Its entries in the memory bank.
        """
        if result is None:
            return GoodPicture(self.name, self.fingerprint, images, size=self.size)
        numbers = (result.score, result.level, result.peak, result.usual)
        return GoodPicture(self.name, self.fingerprint, images, *numbers, self.size)


class PictureScorer:
    """Reads, encodes and scores the pictures of one product.

    Args:
        engine: Runs a few-shot method.
        object_name: What the pictures show.
        min_area: Smallest region in pixels.
        roi: What counts in a picture.
        max_pixels: As in `blemish.load`.
        value_range: As in `blemish.load`.
        tiling: How pictures are cut.
        check: Called between pictures; an exception that it raises ends the work.

    Attributes:
        roi: What counts, once the first picture was read, whose size it needs.
    """

    def __init__(
        self,
        engine: TorchEngine,
        *,
        object_name: str,
        min_area: int = 1,
        roi: RoiSource | None = None,
        max_pixels: int = MAX_PIXELS,
        value_range: ValueRange | None = None,
        tiling: Tiling | None = None,
        check: Callable[[], object] = lambda: None,
    ) -> None:
        assert isinstance(engine.method, ReferenceMethod)
        self.engine, self.method = engine, engine.method
        self.min_area, self.max_pixels = min_area, max_pixels
        self.value_range, self.tiling = value_range, tiling
        self.text = engine.text([object_name])
        self._check = check
        self._roi_source = roi
        self.roi: Roi | None = roi if isinstance(roi, Roi) else None

    @classmethod
    def of(
        cls,
        engine: TorchEngine,
        profile: Profile,
        max_pixels: int = MAX_PIXELS,
        check: Callable[[], object] = lambda: None,
    ) -> PictureScorer:
        """Return what scores as the profile does."""
        return cls(
            engine,
            object_name=profile.object_name,
            min_area=profile.limits.min_area,
            roi=profile.limits.roi,
            max_pixels=max_pixels,
            value_range=profile.value_range,
            tiling=profile.tiling,
            check=check,
        )

    # reading

    def read(
        self, sources: Sequence[ImageSource], *, names: Sequence[str] | None = None, copies: bool = False
    ) -> Generator[ReadPicture, None, None]:
        """Yield pictures as they are read, in order; after one that cannot be read, read on only to name all of these.

        Raises:
            ImageError: Pictures cannot be read; it names them.
        """
        failures: list[ImageError] = []
        for picture in read_pictures(
            self.engine,
            sources,
            max_pixels=self.max_pixels,
            value_range=self.value_range,
            tiling=self.tiling,
            names=names,
            copies=copies,
            on_error=failures.append,
        ):
            if failures:
                continue
            if self._roi_source is not None and self.roi is None:
                self.roi = read_roi(self._roi_source, picture.size)
            yield picture
        if failures:
            raise unusable(failures)

    def encode(
        self, pictures: Sequence[ReadPicture], encode: Callable[[Tensor], ImageFeatures] | None = None
    ) -> list[EncodedPicture]:
        """Encode the tiles of pictures, in batches."""
        encode = encode or self._encode
        features: list[list[ImageFeatures]] = [[] for _ in pictures]
        tiles = [(number, pixels) for number, picture in enumerate(pictures) for pixels in picture.pixels]
        for batch in alike_batches(tiles, lambda tile: tile[1]):
            self._check()
            for (number, _), each in zip(batch, _divided(encode(torch.cat([p for _, p in batch]))), strict=True):
                features[number].append(each)
        return [
            EncodedPicture(
                picture.name, picture.fingerprint, picture.size, picture.indices, own, whole_tap(self.method)
            )
            for picture, own in zip(pictures, features, strict=True)
        ]

    def read_encoded(self, sources: References) -> Iterator[EncodedPicture]:
        """Yield pictures that are only scored, one at a time."""
        for picture in self.read(list_references(sources)):
            yield self.encode([picture])[0]

    def read_references(
        self, sources: Sequence[ImageSource], *, names: Sequence[str] | None = None, known: Iterable[str] = ()
    ) -> tuple[list[EncodedPicture], MemoryBank | None]:
        """Return pictures, each once, and their memory, rounded to what the file keeps.

        Each picture is encoded once, and its pixels are forgotten as soon as that is done.

        Args:
            sources: The pictures.
            names: Their names; None for `picture_names`.
            known: Fingerprints of pictures that are left out.
        """
        pictures: list[EncodedPicture] = []
        fingerprints = set(known)
        encode = _CachedEncoder(self.engine)

        def batches() -> Iterator[Tensor]:
            for part in batched(self.read(sources, names=names, copies=True), BATCH):
                new = []
                for picture in part:
                    # A copy in the memory would make a score too low.
                    if picture.fingerprint not in fingerprints:
                        fingerprints.add(picture.fingerprint)
                        new.append(picture)
                encode.forget()
                pictures.extend(self.encode(new, encode))
                yield from copy_batches(copy for picture in new for copy in picture.copies)

        stream = batches()
        first = next(stream, None)
        if first is None:
            return [], None
        with torch.inference_mode():
            memory = self.method.build_memory_bank(itertools.chain([first], stream), encode, num_images=len(sources))
            memory = rounded(memory)
        return pictures, with_references(memory, [picture.fingerprint for picture in pictures])

    def _encode(self, pixels: Tensor) -> ImageFeatures:
        return self.engine.encode(pixels, _request(self.method))

    # scoring

    def score(self, picture: EncodedPicture, memory: MemoryBank) -> Measured:
        """Score a picture with a memory that it is not in."""
        predictions = (self.engine.score(features, self.text, memory) for features in picture.features)
        return self._result(picture.name, picture.size, zip(picture.indices, predictions, strict=True), memory)

    def score_among(
        self, pictures: Sequence[EncodedPicture], entries: Sequence[GoodPicture], memory: MemoryBank
    ) -> Iterator[Measured]:
        """Yield what each picture scores, with the others as references.

        Args:
            pictures: The pictures.
            entries: All that are in the memory; the pictures are the last of them.
            memory: The memory.
        """
        for picture, entry in zip(pictures, entries[len(entries) - len(pictures) :], strict=True):
            with torch.inference_mode():
                others = memory.select(other_images(entries, entry))
            yield self.score(picture, others)

    def score_again(self, entries: Sequence[GoodPicture], memory: MemoryBank) -> list[GoodPicture]:
        """Return the pictures of a memory with the scores that they have in it, each with the others as references.

        Only for a memory with `ReferenceMethod.keeps_entries`, since the pictures are not at hand.
        """
        scored, start = [], 0
        for entry in entries:
            with torch.inference_mode():
                own = memory.select(range(start, start + entry.images))
                others = memory.select(other_images(entries, entry))
            result = self._score_kept(entry, own, others)
            scored.append(replace(entry, score=result.score, level=result.level, peak=result.peak, usual=result.usual))
            start += entry.images
        return scored

    def _score_kept(self, entry: GoodPicture, own: MemoryBank, memory: MemoryBank) -> Measured:
        """Score a picture from what a memory keeps of it; its copies follow each tile, which comes first."""
        indices = self._tile_indices(entry.size)
        step = own.images // len(indices)
        tiles = [own.select([number * step]) for number in range(len(indices))]
        merger = TileMerger(entry.size, self.tiling)
        grids = [self.method.grid_of(*merger.tile_size(index)) for index in indices]
        with torch.inference_mode():
            predictions = [
                self.method.score_entry(tile, self.text, memory, grid) for tile, grid in zip(tiles, grids, strict=True)
            ]
        on_cpu = [Prediction(each.score.float().cpu(), each.map.float().cpu()) for each in predictions]
        return self._result(entry.name, entry.size, zip(indices, on_cpu, strict=True), memory)

    def _tile_indices(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        merger = TileMerger(size, self.tiling)
        return [(row, column) for row in range(len(merger.down.spans)) for column in range(len(merger.across.spans))]

    def _result(
        self,
        name: str,
        size: tuple[int, int],
        predictions: Iterable[tuple[tuple[int, int], Prediction]],
        memory: MemoryBank,
    ) -> Measured:
        """Return what a picture scores, from the prediction of each tile."""
        self._check()
        merger = TileMerger(size, self.tiling)
        for index, prediction in predictions:
            score, tile_map = float(prediction.score[0]), prediction.map[0]
            add_tile(merger, index, score, tile_map, Timing(), self.engine, memory, self.roi)
        values = finished_map(merger, self.engine, memory, self.roi)
        if not (math.isfinite(merger.score) and np.isfinite(values).all()):
            raise ImageError(f"{name} gives no finite score; try precision float32", name)
        level = conformal.region_levels([values], self.min_area, step=merger.step, size=size)[0]
        sample = sample_inside(values, self.roi).copy()
        return Measured(merger.score, float(level), float(values.max()), float(np.median(sample)), sample)

    # known defects

    def known_defect(self, picture: ReadPicture) -> KnownDefect:
        """Return a picture as a profile keeps it, without a score."""
        tiles = tuple(_to_png(self.engine.backbone.levels(pixels)[0]) for pixels in picture.pixels)
        return KnownDefect(picture.name, picture.fingerprint, math.nan, picture.size, tiles)

    def score_defect(self, defect: KnownDefect, memory: MemoryBank) -> KnownDefect:
        """Return a known defect with the score that it has with a memory."""
        pixels = [self.engine.backbone.normalise([_from_png(png)]) for png in defect.tiles]
        picture = ReadPicture(defect.name, defect.fingerprint, defect.size, self._tile_indices(defect.size), pixels, [])
        return replace(defect, score=self.score(self.encode([picture])[0], memory).score)


def unusable(errors: Sequence[ImageError]) -> ImageError:
    """Return one error that names the good pictures that cannot be read, the first few with their reasons."""
    count = "a good picture" if len(errors) == 1 else f"{len(errors):,} good pictures"
    more = "" if len(errors) <= MAX_NAMED else f"; and {len(errors) - MAX_NAMED:,} more"
    reasons = "; ".join(str(error) for error in errors[:MAX_NAMED])
    return ImageError(f"{count} cannot be used: {reasons}{more}", errors[0].path)


def other_images(entries: Sequence[GoodPicture], entry: GoodPicture) -> list[int]:
    """Return the numbers of the images in a memory that a picture of it is compared with.

    These are the images of all other pictures; of one that calibrates, without those of pictures that were selected.
    """
    numbers: list[int] = []
    start = 0
    for other in entries:
        if other is not entry and (entry.selected or not other.selected):
            numbers += range(start, start + other.images)
        start += other.images
    return numbers


def with_references(memory: MemoryBank, fingerprints: Sequence[str]) -> MemoryBank:
    """Return a memory that says of which pictures it is made."""
    return replace(memory, references=len(fingerprints), fingerprint=set_fingerprint(fingerprints))


def image_counts(pictures: Sequence[EncodedPicture], images: int) -> list[int]:
    """Return how many entries each picture has in a memory bank, whose images are those of the pictures in order."""
    tiles = sum(len(picture.indices) for picture in pictures)
    return [len(picture.indices) * images // tiles for picture in pictures]


def whole_tap(method: ReferenceMethod) -> Tap:
    """Return the tap whose class token stands for a whole picture: seven eighths of the way up."""
    return Tap(max(1, round(7 / 8 * method.backbone.layers)))


def _request(method: ReferenceMethod) -> Request:
    """Return what the method needs of good pictures, and what whole pictures are compared by."""
    return method.memory_request | Request(frozenset({whole_tap(method)}), class_token=False)


class _CachedEncoder:
    """Runs the backbone on images that it has not encoded yet: a picture and its copy in the memory are often one."""

    def __init__(self, engine: TorchEngine) -> None:
        assert isinstance(engine.method, ReferenceMethod)
        self._engine, self._request = engine, _request(engine.method)
        self._known: dict[bytes, ImageFeatures] = {}

    def __call__(self, pixels: Tensor) -> ImageFeatures:
        keys = [hashlib.blake2b(image.numpy().tobytes(), digest_size=16).digest() for image in pixels.cpu()]
        if new := [number for number, key in enumerate(keys) if key not in self._known]:
            features = self._engine.encode(pixels[new], self._request)
            self._known.update(zip((keys[number] for number in new), _divided(features), strict=True))
        return _joined([self._known[key] for key in keys])

    def forget(self) -> None:
        """Forget all images."""
        self._known.clear()


def _divided(features: ImageFeatures) -> list[ImageFeatures]:
    """Return the features of each image of a batch."""
    count = len(features.class_token) if features.class_token is not None else len(next(iter(features.taps.values())))

    def part(number: int) -> ImageFeatures:
        own = slice(number, number + 1)
        return replace(
            features,
            taps={tap: rows[own] for tap, rows in features.taps.items()},
            class_token=None if features.class_token is None else features.class_token[own],
            windows={side: rows[own] for side, rows in features.windows.items()},
        )

    return [part(number) for number in range(count)]


def _joined(parts: Sequence[ImageFeatures]) -> ImageFeatures:
    """Return the features of several images as one batch."""
    first = parts[0]
    tokens = [part.class_token for part in parts if part.class_token is not None]
    return replace(
        first,
        taps={tap: torch.cat([part.taps[tap] for part in parts]) for tap in first.taps},
        class_token=torch.cat(tokens) if tokens else None,
        windows={side: torch.cat([part.windows[side] for part in parts]) for side in first.windows},
    )


def _to_png(levels: npt.NDArray[np.uint8]) -> bytes:
    """Return RGB levels (3, H, W) as a PNG, grey ones as grey."""
    is_grey = (levels == levels[0]).all()
    stream = io.BytesIO()
    Image.fromarray(levels[0] if is_grey else levels.transpose(1, 2, 0)).save(stream, "png")
    return stream.getvalue()


def _from_png(data: bytes) -> npt.NDArray[np.uint8]:
    """Return what `_to_png` took."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        return np.array(image.convert("RGB")).transpose(2, 0, 1)
