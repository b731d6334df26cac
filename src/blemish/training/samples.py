"""The samples that a method is trained on: opened images with masks, also straight from the files of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from numpy.typing import NDArray
from PIL import Image

from blemish.errors import UsageError

if TYPE_CHECKING:
    from blemish import datasets


class Sample(NamedTuple):
    """One image to learn from."""

    image: Image.Image
    mask: Image.Image | NDArray[Any] | None
    """Mask of the anomalies, (H, W), anomalous where it is above 0; None for a normal image."""
    label: int
    """1 = anomalous, 0 = normal."""
    object_name: str = "object"


class Source(NamedTuple):
    """What is known of a sample before it is opened."""

    object_name: str
    label: int
    """1 = anomalous, 0 = normal."""
    kind: str = ""
    """Kind of the defect, or "good"; with "" the label stands for the kind."""


class FileSamples(Sequence[Sample]):
    """The samples of a data set; each is read when it is indexed.

    Args:
        samples: Samples from `blemish.datasets.read`.
        masks: Whether every anomalous sample must have a mask.

    Raises:
        UsageError: There are no samples, or masks are missing. (Indexing raises ImageError for an unreadable image.)
    """

    def __init__(self, samples: Sequence[datasets.Sample], *, masks: bool = True) -> None:
        self._samples = list(samples)
        if not self._samples:
            raise UsageError("there is nothing to train on: give a data set with pictures")
        if masks:
            unmasked = [sample.path for sample in self._samples if sample.label and not sample.masks]
            if unmasked:
                raise UsageError(
                    f"{len(unmasked):,} of {self.anomalous:,} anomalous pictures have no mask, such as {unmasked[0]}: "
                    "add their masks, or take these pictures out"
                )

    def __len__(self) -> int:
        return len(self._samples)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self[row] for row in range(len(self))[index]]
        sample = self._samples[index]
        loaded = sample.picture()
        mask = sample.mask(loaded.size) if sample.label else None
        return Sample(loaded.image, mask, sample.label, _object_name(sample))

    @property
    def object_names(self) -> list[str]:
        """Names of the objects, each once."""
        return list(dict.fromkeys(map(_object_name, self._samples)))

    @property
    def sources(self) -> list[Source]:
        """The source of each sample, for mosaics."""
        return [Source(sample.category, sample.label, sample.defect) for sample in self._samples]

    @property
    def anomalous(self) -> int:
        """Number of anomalous samples."""
        return sum(sample.label for sample in self._samples)


def _object_name(sample: datasets.Sample) -> str:
    return sample.object_name or sample.category or "object"
