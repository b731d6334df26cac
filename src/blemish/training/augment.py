"""Augmentations of APRIL-GAN and VCP-CLIP, applied before images are resized.

APRIL-GAN makes mosaics of MVTec AD and leaves VisA as it is. VCP-CLIP makes mosaics of MVTec AD too, and then rotates,
brightens, blurs and adds noise to the images of both. Features of augmented images cannot be cached.

VCP-CLIP's code does not pin a version of albumentations; the defaults here are those of version 1.3. The distributions
are the same, the random numbers are not.

Choices where the authors' code is odd:

- images of other sizes are cut off in a mosaic or leave it black: reproduced, since it decides what training sees;
- APRIL-GAN draws the kind of each tile first ("good" is one), so that rare kinds come more often; VCP-CLIP draws
  among the anomalous images; both may repeat an image: reproduced;
- APRIL-GAN swaps the sides of a normal image's mask, which spoils masks where sizes differ: a bug, not reproduced;
- a mosaic keeps the label of the image that it replaces, which their losses never read: here it is anomalous if one of
  its pixels is, so that any loss can be trained with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from scipy import ndimage

from blemish.errors import UsageError
from blemish.training.samples import Sample, Source

Rng: TypeAlias = np.random.Generator
Pixels: TypeAlias = NDArray[np.uint8]
Tile: TypeAlias = tuple[Image.Image, Image.Image | NDArray[Any] | None]
"""An image and its mask."""

#: Probability of each step of `vary`.
_PROBABILITY = 0.5
#: Largest angle of a rotation in degrees.
_MAX_DEGREES = 30.0
#: Largest change of brightness, contrast, saturation and hue, as a fraction.
_MAX_CHANGE = 0.2
#: Range of the noise's variance, in squared grey levels of 255.
_VARIANCE = (10.0, 50.0)


@dataclass(frozen=True)
class Augmentation:
    """How samples are augmented."""

    mosaic: float = 0.0
    """Probability that a mosaic of four images of the same object replaces a sample."""
    tiles: Literal["anomalous", "kinds"] = "anomalous"
    """How the four are drawn: among all `anomalous` images, or from `kinds` of defects that are drawn first."""
    vary: bool = False
    """Rotate, brighten, add noise and blur, each with probability 0.5."""

    def __post_init__(self) -> None:
        if not 0 <= self.mosaic <= 1:
            raise UsageError(f"the probability of a mosaic lies between 0 and 1, not {self.mosaic}")


#: Augmentation of each paper by method and training data set; all others train without.
PAPERS: dict[tuple[str, str], Augmentation] = {
    ("april-gan", "mvtec"): Augmentation(mosaic=0.2, tiles="kinds"),
    ("vcp-clip", "mvtec"): Augmentation(mosaic=0.2, vary=True),
    ("vcp-clip", "visa"): Augmentation(vary=True),
}


def paper_augmentation(method: str, dataset: str) -> Augmentation:
    """Return the augmentation of a method's paper for a training data set, which may be none."""
    other = next((known for (name, _), known in PAPERS.items() if name == method), Augmentation())
    return PAPERS.get((method, dataset), Augmentation(tiles=other.tiles))


class Augmented(Sequence[Sample]):
    """Samples that are augmented when they are indexed.

    Random numbers follow from `seed`, `epoch` and the index alone: with `epoch` set before each pass, a resumed run
    gets the same images as an unbroken one.

    Args:
        samples: The samples.
        augmentation: How they are augmented.
        seed: Seed of all random numbers.
        sources: The source of each sample; None opens every sample once if there are mosaics.

    Raises:
        UsageError: The numbers of sources and samples differ.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        augmentation: Augmentation,
        *,
        seed: int = 0,
        sources: Sequence[Source] | None = None,
    ) -> None:
        self._samples, self.augmentation, self._seed = samples, augmentation, seed
        self.epoch = 0
        if augmentation.mosaic == 0:
            sources = [Source("", 0)] * len(samples)
        elif sources is None:
            sources = [Source(sample.object_name, sample.label) for sample in samples]
        if len(sources) != len(samples):
            raise UsageError(f"there are {len(sources)} sources for {len(samples)} samples: give one for each")
        self._sources = sources
        # object name -> kind -> rows
        self._pools: dict[str, dict[str, list[int]]] = {}
        by_kind = augmentation.tiles == "kinds"
        for row, source in enumerate(sources):
            if by_kind or source.label:
                kind = (source.kind or str(source.label)) if by_kind else ""
                self._pools.setdefault(source.object_name, {}).setdefault(kind, []).append(row)

    def __len__(self) -> int:
        return len(self._samples)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self[row] for row in range(len(self))[index]]
        row = range(len(self))[index]
        rng = np.random.default_rng([self._seed, self.epoch, row])
        pool = list(self._pools.get(self._sources[row].object_name, {}).values())
        is_plain = not pool or rng.random() >= self.augmentation.mosaic
        sample = self._samples[row] if is_plain else self._mosaic(pool, rng)
        return vary(sample, rng) if self.augmentation.vary else sample

    def _mosaic(self, pool: Sequence[Sequence[int]], rng: Rng) -> Sample:
        kinds = [pool[int(rng.integers(len(pool)))] for _ in range(4)]
        tiles = [self._samples[rows[int(rng.integers(len(rows)))]] for rows in kinds]
        image, mask = mosaic([(sample.image, sample.mask) for sample in tiles])
        return Sample(image, mask, int(mask.getbbox() is not None), tiles[0].object_name)


def mosaic(tiles: Sequence[Tile]) -> tuple[Image.Image, Image.Image]:
    """Lay four images in two rows on a black canvas of twice the first one's sides.

    Nothing is resized: images of other sizes are cut off, covered by the next, or leave black.

    Args:
        tiles: Four images with their masks; a mask is anomalous where it is above 0, and None is a normal image.

    Returns:
        The mosaic (RGB) and its mask (L, 0 or 255).
    """
    width, height = tiles[0][0].size
    canvas, canvas_mask = Image.new("RGB", (2 * width, 2 * height)), Image.new("L", (2 * width, 2 * height))
    for number, (image, mask) in enumerate(tiles):
        row, column = divmod(number, 2)
        corner = (column * width, row * height)
        canvas.paste(image.convert("RGB"), corner)
        canvas_mask.paste(_as_mask(mask) or Image.new("L", image.size), corner)
    return canvas, canvas_mask


def vary(sample: Sample, rng: Rng) -> Sample:
    """Apply VCP-CLIP's steps, each with probability 0.5: rotate, turn, brighten, add noise, one of two blurs or jitter.

    Returns:
        The sample with an RGB image and a mask (L, 0 or 255, or None) that is rotated and turned like the image.
    """
    image, mask = sample.image.convert("RGB"), _as_mask(sample.mask)

    def chance() -> bool:
        return bool(rng.random() < _PROBABILITY)

    if chance():
        degrees = rng.uniform(-_MAX_DEGREES, _MAX_DEGREES)
        image, mask = rotate(image, degrees), mask and rotate(mask, degrees, Image.Resampling.NEAREST)
    if chance():
        quarters = int(rng.integers(4))
        image, mask = turn(image, quarters), mask and turn(mask, quarters)
    if chance():
        contrast, brightness = rng.uniform(-_MAX_CHANGE, _MAX_CHANGE, 2)
        image = brighten(image, 1 + contrast, brightness)
    if chance():
        image = add_noise(image, rng.uniform(*_VARIANCE), rng)
    if chance():
        steps: Sequence[Callable[[Image.Image, Rng], Image.Image]] = (_box, _jitter, _gauss)
        image = steps[int(rng.integers(3))](image, rng)
    return sample._replace(image=image, mask=mask)


def rotate(image: Image.Image, degrees: float, resampling: Image.Resampling = Image.Resampling.BILINEAR) -> Image.Image:
    """Rotate about the centre at the same size; the corners are filled by mirroring (d c b | a b c d | c b a)."""
    radians = math.radians(degrees)
    width, height = image.size
    # How far the rotated frame reaches beyond the image's own.
    across = math.ceil((width * abs(math.cos(radians)) + height * abs(math.sin(radians)) - width) / 2) + 2
    down = math.ceil((width * abs(math.sin(radians)) + height * abs(math.cos(radians)) - height) / 2) + 2
    across, down = max(across, 2), max(down, 2)
    pixels = np.asarray(image)
    sides = ((down, down), (across, across)) + ((0, 0),) * (pixels.ndim - 2)
    wide = Image.fromarray(np.pad(pixels, sides, mode="reflect")).rotate(degrees, resampling)
    return wide.crop((across, down, across + width, down + height))


def turn(image: Image.Image, quarters: int) -> Image.Image:
    """Turn counter-clockwise by quarters of a circle; an odd number swaps width and height."""
    return Image.fromarray(np.ascontiguousarray(np.rot90(np.asarray(image), quarters)))


def brighten(image: Image.Image, contrast: float, brightness: float) -> Image.Image:
    """Multiply each value by `contrast`, add `brightness` as a fraction of the range, and clip."""
    return _to_image(np.asarray(image, np.float32) * contrast + 255 * brightness)


def add_noise(image: Image.Image, variance: float, rng: Rng) -> Image.Image:
    """Add independent normal noise to every value; the variance is in squared grey levels of 255."""
    pixels = np.asarray(image, np.float32)
    return _to_image(pixels + math.sqrt(variance) * rng.standard_normal(pixels.shape, np.float32))


def box_blur(image: Image.Image, side: int) -> Image.Image:
    """Replace each pixel by the mean over side x side pixels."""
    return _to_image(ndimage.uniform_filter(np.asarray(image, np.float32), (side, side, 0), mode="mirror"))


def gaussian_blur(image: Image.Image, side: int) -> Image.Image:
    """Blur with a Gaussian over side x side pixels, side odd, with the sigma that OpenCV derives from the side."""
    sigma = 0.3 * ((side - 1) * 0.5 - 1) + 0.8
    pixels = np.asarray(image, np.float32)
    return _to_image(ndimage.gaussian_filter(pixels, (sigma, sigma, 0), mode="mirror", radius=(side // 2,) * 2 + (0,)))


def shift_hue(image: Image.Image, fraction: float) -> Image.Image:
    """Shift every hue by a fraction of the circle."""
    hue, saturation, value = image.convert("HSV").split()
    shifted = hue.point([(h + round(256 * fraction)) % 256 for h in range(256)])
    return Image.merge("HSV", (shifted, saturation, value)).convert("RGB")


def _box(image: Image.Image, rng: Rng) -> Image.Image:
    return box_blur(image, 3)


def _gauss(image: Image.Image, rng: Rng) -> Image.Image:
    return gaussian_blur(image, int(rng.choice((3, 5, 7))))


def _jitter(image: Image.Image, rng: Rng) -> Image.Image:
    """Change brightness, contrast, saturation and hue in random order."""
    factors = 1 + rng.uniform(-_MAX_CHANGE, _MAX_CHANGE, 4)
    for step in rng.permutation(4):
        if step == 3:
            image = shift_hue(image, factors[step] - 1)
        else:
            enhancer = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[step]
            image = enhancer(image).enhance(factors[step])
    return image


def _as_mask(mask: Image.Image | NDArray[Any] | None) -> Image.Image | None:
    """Return a mask as an image (L) of 0 and 255."""
    if mask is None:
        return None
    pixels = np.asarray(mask.convert("L") if isinstance(mask, Image.Image) else mask)
    return Image.fromarray((pixels > 0).astype(np.uint8) * 255)


def _to_image(values: NDArray[np.float32]) -> Image.Image:
    """Round and clip to 8 bits."""
    pixels: Pixels = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return Image.fromarray(pixels)
