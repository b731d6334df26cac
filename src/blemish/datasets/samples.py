"""What a data set is made of: samples that are opened when they are needed, and what could not be paired."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np
from numpy.typing import NDArray

from blemish.datasets.masks import merge_masks, picture_size

if TYPE_CHECKING:
    from blemish.image_io import LoadedImage


@dataclass(frozen=True)
class Sample:
    """One picture and what is known of it. Nothing is opened before `picture` or `mask` is called."""

    path: Path
    label: int
    """1 = anomalous."""
    category: str
    masks: tuple[Path, ...] | None = ()
    """The files that mark what is anomalous, merged when read. (): nothing is; None: it is not known where."""
    object_name: str = ""
    """What the papers put into prompts for this category, as they spell it ("metal_nut")."""
    defect: str = ""
    """The kind of anomaly, or the data set's word for none ("good"); "" where it is not told."""

    def picture(self) -> LoadedImage:
        """The picture, read now. Raises ImageError."""
        from blemish.image_io import read_image

        return read_image(self.path)

    def mask(self, size: tuple[int, int] | None = None) -> NDArray[np.bool_] | None:
        """What is anomalous, read now.

        Any positive value of a mask file counts; several files are merged.

        Args:
            size: (width, height) of the picture in pixels where it is known, else its header is read.

        Returns:
            (height, width) bool; all False for a normal picture; None where it is not known.

        Raises:
            ImageError: a mask that cannot be read, or of another size than its picture.
        """
        if self.masks is None:
            return None
        width, height = picture_size(self.path) if size is None else size
        if not self.masks:
            return np.zeros((height, width), bool)
        return merge_masks(self.masks, self.path, (width, height))


@dataclass(frozen=True)
class Issue:
    """A file that found no partner, or one that a list names and the disk lacks."""

    kind: str
    """"picture without mask", "mask without picture", "missing picture", "missing mask", "unreadable mask", ..."""
    path: Path
    category: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.path}"


@dataclass(frozen=True)
class Dataset(Sequence[Sample]):
    """The samples of one split, category by category, in an order that is the same on every machine."""

    name: str
    root: Path
    split: str
    samples: tuple[Sample, ...]
    layout: str = ""
    """How the files were laid out, in words."""
    issues: tuple[Issue, ...] = ()
    notes: tuple[str, ...] = ()
    """What else should be known: masks paired by position, pictures left out, ..."""

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Sample, ...]: ...
    def __getitem__(self, index: int | slice) -> Sample | tuple[Sample, ...]:
        return self.samples[index]

    @property
    def categories(self) -> tuple[str, ...]:
        """In the order of the samples."""
        return tuple(dict.fromkeys(sample.category for sample in self.samples))

    def of(self, category: str) -> tuple[Sample, ...]:
        """The samples of one category; none for an unknown one."""
        return tuple(sample for sample in self.samples if sample.category == category)

    @property
    def image_labels(self) -> bool:
        """Whether there are normal and anomalous pictures, so that pictures can be ranked."""
        return len({sample.label for sample in self.samples}) == 2

    @property
    def pixel_labels(self) -> bool:
        """Whether an anomalous picture has a mask, so that maps can be judged (where `masks` is not None)."""
        return any(sample.label and sample.masks for sample in self.samples)
