"""How APRIL-GAN and VCP-CLIP vary pictures in training, before they are resized; NumPy, Pillow and SciPy only.

APRIL-GAN makes mosaics of MVTec AD and leaves VisA as it is. VCP-CLIP makes mosaics of MVTec AD too, and then turns,
brightens, blurs and adds noise to the pictures of both. Where pixels change, features cannot be cached.

VCP-CLIP's code calls albumentations without saying which version; what it leaves to defaults is here as in version 1.3.
The distributions are the same, the random numbers are not.

Choices where the authors' code is odd:

- pictures of other sizes are cut off in a mosaic or leave it black: reproduced, since it decides what training sees;
- the four of an APRIL-GAN mosaic are drawn by kind first ("good" is one), so that rare kinds come more often, those of
  VCP-CLIP among the anomalous pictures; both may repeat a picture: reproduced;
- APRIL-GAN swaps the sides of a normal picture's mask, which spoils masks where sizes differ: a bug, not reproduced;
- a mosaic keeps the label of the picture that it replaces, which their losses never read: here it is anomalous if
  one of its pixels is, so that any loss can be trained with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from scipy import ndimage

from blemish.errors import UsageError
from blemish.training.mosaic import mosaic
from blemish.training.samples import Sample

Rng: TypeAlias = np.random.Generator
Pixels: TypeAlias = NDArray[np.uint8]

#: Of each step of `vary`.
_PROBABILITY = 0.5
_DEGREES = 30.0
#: Brightness and contrast, saturation and hue change by at most this share.
_SHARE = 0.2
#: Of the noise, in squared grey levels of 255.
_VARIANCE = (10.0, 50.0)


@dataclass(frozen=True)
class Augmentation:
    """What is done to samples."""

    mosaic: float = 0.0
    """Probability that a mosaic of four pictures of the same object takes a sample's place."""
    tiles: Literal["anomalous", "kinds"] = "anomalous"
    """The four are any `anomalous` ones, or each is one of a kind that is drawn first."""
    vary: bool = False
    """Turn, brighten, add noise and blur, each with probability 0.5."""

    def __post_init__(self) -> None:
        if not 0 <= self.mosaic <= 1:
            raise UsageError(f"the probability of a mosaic lies between 0 and 1, not {self.mosaic}")


#: By method and the data set it is trained on; methods and sets that are not here change nothing.
PAPERS: dict[tuple[str, str], Augmentation] = {
    ("april-gan", "mvtec"): Augmentation(mosaic=0.2, tiles="kinds"),
    ("vcp-clip", "mvtec"): Augmentation(mosaic=0.2, vary=True),
    ("vcp-clip", "visa"): Augmentation(vary=True),
}


class Source(NamedTuple):
    """What a mosaic has to know of a sample before it is opened."""

    object_name: str
    label: int
    kind: str = ""
    """Of its defect, or "good"; where it is empty, the label tells kinds apart."""


class Augmented(Sequence[Sample]):
    """Samples that are varied when they are asked for.

    What is drawn follows from `seed`, `epoch` and a sample's place alone: with `epoch` set before each pass, a run that
    is resumed sees what an unbroken one sees.

    Args:
        samples: what is varied.
        augmentation: how.
        seed: of everything that is drawn.
        sources: of each sample, in its order; without them every sample is opened once where there are mosaics.

    Raises:
        UsageError: there are more or fewer sources than samples.
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
            raise UsageError(f"{len(samples)} samples have as many sources, not {len(sources)}")
        self._sources = sources
        # object -> kind -> rows
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
        whole = not pool or rng.random() >= self.augmentation.mosaic
        sample = self._samples[row] if whole else self._mosaic(pool, rng)
        return vary(sample, rng) if self.augmentation.vary else sample

    def _mosaic(self, pool: Sequence[Sequence[int]], rng: Rng) -> Sample:
        kinds = [pool[int(rng.integers(len(pool)))] for _ in range(4)]
        four = [self._samples[rows[int(rng.integers(len(rows)))]] for rows in kinds]
        picture, mask = mosaic([(sample.image, sample.mask) for sample in four])
        return Sample(picture, mask, int(mask.getbbox() is not None), four[0].object_name)


def vary(sample: Sample, rng: Rng) -> Sample:
    """VCP-CLIP's steps, each with probability 0.5: rotate, turn, brighten, add noise, one of three blurs or jitters.

    Returns:
        The picture as RGB, and its mask (L, 0 or 255, or None), turned alike.
    """
    picture, mask = sample.image.convert("RGB"), _as_mask(sample.mask)

    def now() -> bool:
        return bool(rng.random() < _PROBABILITY)

    if now():
        degrees = rng.uniform(-_DEGREES, _DEGREES)
        picture, mask = rotate(picture, degrees), mask and rotate(mask, degrees, Image.Resampling.NEAREST)
    if now():
        quarters = int(rng.integers(4))
        picture, mask = turn(picture, quarters), mask and turn(mask, quarters)
    if now():
        contrast, brightness = rng.uniform(-_SHARE, _SHARE, 2)
        picture = brighten(picture, 1 + contrast, brightness)
    if now():
        picture = add_noise(picture, rng.uniform(*_VARIANCE), rng)
    if now():
        last: Sequence[Callable[[Image.Image, Rng], Image.Image]] = (_box, _jitter, _gauss)
        picture = last[int(rng.integers(3))](picture, rng)
    return sample._replace(image=picture, mask=mask)


def rotate(
    picture: Image.Image, degrees: float, resampling: Image.Resampling = Image.Resampling.BILINEAR
) -> Image.Image:
    """Rotated about its centre at its own size; what comes in from outside is mirrored (d c b | a b c d | c b a)."""
    radians = math.radians(degrees)
    width, height = picture.size
    # as far as the turned frame reaches beyond the picture's own
    across = math.ceil((width * abs(math.cos(radians)) + height * abs(math.sin(radians)) - width) / 2) + 2
    down = math.ceil((width * abs(math.sin(radians)) + height * abs(math.cos(radians)) - height) / 2) + 2
    across, down = max(across, 2), max(down, 2)
    pixels = np.asarray(picture)
    sides = ((down, down), (across, across)) + ((0, 0),) * (pixels.ndim - 2)
    wide = Image.fromarray(np.pad(pixels, sides, mode="reflect")).rotate(degrees, resampling)
    return wide.crop((across, down, across + width, down + height))


def turn(picture: Image.Image, quarters: int) -> Image.Image:
    """Turned counter-clockwise by quarters of a circle; the sides of the picture change places."""
    return Image.fromarray(np.ascontiguousarray(np.rot90(np.asarray(picture), quarters)))


def brighten(picture: Image.Image, contrast: float, brightness: float) -> Image.Image:
    """Each value times `contrast` plus `brightness` of the whole range, cut off at black and white."""
    return _picture(np.asarray(picture, np.float32) * contrast + 255 * brightness)


def add_noise(picture: Image.Image, variance: float, rng: Rng) -> Image.Image:
    """Normal noise, drawn for every value by itself; the variance is in squared grey levels of 255."""
    pixels = np.asarray(picture, np.float32)
    return _picture(pixels + math.sqrt(variance) * rng.standard_normal(pixels.shape, np.float32))


def box_blur(picture: Image.Image, side: int) -> Image.Image:
    """The mean over side x side pixels."""
    return _picture(ndimage.uniform_filter(np.asarray(picture, np.float32), (side, side, 0), mode="mirror"))


def gaussian_blur(picture: Image.Image, side: int) -> Image.Image:
    """A Gaussian over side x side pixels, side odd, as wide as OpenCV makes it for that side."""
    sigma = 0.3 * ((side - 1) * 0.5 - 1) + 0.8
    pixels = np.asarray(picture, np.float32)
    return _picture(ndimage.gaussian_filter(pixels, (sigma, sigma, 0), mode="mirror", radius=(side // 2,) * 2 + (0,)))


def shift_hue(picture: Image.Image, share: float) -> Image.Image:
    """Every hue moved by a share of the circle."""
    hue, saturation, value = picture.convert("HSV").split()
    moved = hue.point([(h + round(256 * share)) % 256 for h in range(256)])
    return Image.merge("HSV", (moved, saturation, value)).convert("RGB")


def _box(picture: Image.Image, rng: Rng) -> Image.Image:
    return box_blur(picture, 3)


def _gauss(picture: Image.Image, rng: Rng) -> Image.Image:
    return gaussian_blur(picture, int(rng.choice((3, 5, 7))))


def _jitter(picture: Image.Image, rng: Rng) -> Image.Image:
    """Brightness, contrast, saturation and hue, in any order."""
    factors = 1 + rng.uniform(-_SHARE, _SHARE, 4)
    for step in rng.permutation(4):
        if step == 3:
            picture = shift_hue(picture, factors[step] - 1)
        else:
            kind = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[step]
            picture = kind(picture).enhance(factors[step])
    return picture


def _as_mask(mask: Image.Image | NDArray[Any] | None) -> Image.Image | None:
    if mask is None:
        return None
    pixels = np.asarray(mask.convert("L") if isinstance(mask, Image.Image) else mask)
    return Image.fromarray((pixels > 0).astype(np.uint8) * 255)


def _picture(values: NDArray[np.float32]) -> Image.Image:
    """Rounded and cut off to 8 bits."""
    pixels: Pixels = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return Image.fromarray(pixels)
