"""Samples of a data set, which are opened only when needed, and problems with its files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from blemish.datasets.masks import image_size, merge_masks

if TYPE_CHECKING:
    from blemish.image_io import LoadedImage

MASK_OF_NORMAL = "mask of a normal picture"
"""What `others` says of a mask that is not needed."""


@dataclass(frozen=True)
class Sample:
    """One picture of a data set. Nothing is opened before `picture` or `mask` is called."""

    path: Path
    label: int
    """0 = normal, 1 = anomalous."""
    category: str
    masks: tuple[Path, ...] | None = ()
    """Mask files, merged when read; () if nothing is anomalous, None if the anomalous area is unknown."""
    object_name: str = ""
    """Name of the object in the papers' prompts ("metal_nut")."""
    defect: str = ""
    """Kind of anomaly, or the data set's word for none ("good"); "" if unknown."""

    def picture(self) -> LoadedImage:
        """Read the picture. Raises ImageError."""
        from blemish.image_io import read_image

        return read_image(self.path)

    def mask(self, size: tuple[int, int] | None = None) -> NDArray[np.bool_] | None:
        """Read the mask by the rule of `blemish.datasets.masks`; several files are merged.

        Args:
            size: (width, height) of the picture in pixels; None reads it from the header.

        Returns:
            (height, width) bool; all False for a normal picture; None if the anomalous area is unknown.

        Raises:
            ImageError: A mask cannot be read, does not fit the picture, or does not say what is anomalous.
        """
        if self.masks is None:
            return None
        width, height = image_size(self.path) if size is None else size
        if not self.masks:
            return np.zeros((height, width), bool)
        return merge_masks(self.masks, self.path, (width, height))


@dataclass(frozen=True)
class Issue:
    """A problem with one file of a data set."""

    kind: str
    """"picture without mask", "mask without picture", "missing picture", "missing mask", "unreadable mask", ..."""
    path: Path
    category: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.path}"


@dataclass
class ReadResult:
    """What a reader collected from one folder."""

    samples: list[Sample] = field(default_factory=list)
    issues: list[Issue] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unknown_folders: list[str] = field(default_factory=list)
    """Folders that look like categories of the layout but are not among the data set's."""
    others: dict[Path, str] = field(default_factory=dict)
    """Files that are no sample's picture or mask: what they are, or why they are left out."""
    complete: bool = False
    """Whether the folders below were searched, too."""


class Reader(Protocol):
    """A function that reads one layout; options are bound beforehand."""

    def __call__(self, root: Path, split: str, categories: Sequence[str], /) -> ReadResult | None:
        """Return what is below `root`, or None if it has another layout.

        Args:
            root: The given folder or file.
            split: "train", "validation" or "test".
            categories: Categories of the data set; empty if any are allowed.
        """


@dataclass(frozen=True)
class Dataset(Sequence[Sample]):
    """The samples of one split, category by category, in an order that is the same on every machine."""

    name: str
    root: Path
    split: str
    samples: tuple[Sample, ...]
    layout: str = ""
    """Description of the detected layout."""
    issues: tuple[Issue, ...] = ()
    notes: tuple[str, ...] = ()
    """Remarks for the user: masks paired by position, pictures left out, ..."""
    others: Mapping[Path, str] = field(default_factory=dict, repr=False)
    """Files that are no sample's picture or mask: what they are, or why they are left out."""

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
        """Categories in the order of the samples."""
        return tuple(dict.fromkeys(sample.category for sample in self.samples))

    def of(self, category: str) -> tuple[Sample, ...]:
        """Return the samples of one category; none for an unknown one."""
        return tuple(sample for sample in self.samples if sample.category == category)

    @property
    def image_labels(self) -> bool:
        """Whether there are both normal and anomalous pictures, so that image metrics are defined."""
        return len({sample.label for sample in self.samples}) == 2

    @property
    def pixel_labels(self) -> bool:
        """Whether an anomalous picture has a mask, so that pixel metrics are defined."""
        return any(sample.label and sample.masks for sample in self.samples)
