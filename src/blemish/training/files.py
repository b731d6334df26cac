"""Samples out of picture files, opened when they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

from blemish.errors import UsageError
from blemish.training.augment import Source
from blemish.training.samples import Sample

if TYPE_CHECKING:
    from blemish import datasets


class FileSamples(Sequence[Sample]):
    """The samples of a data set, to learn from; nothing is opened before it is asked for.

    Args:
        samples: from `blemish.datasets.read`.
        masks: whether where the anomalies are has to be known, as for most methods.

    Raises:
        UsageError: there are none, or masks are needed and some are missing. (Pictures that cannot be read raise
            ImageError when it is their turn.)
    """

    def __init__(self, samples: Sequence[datasets.Sample], *, masks: bool = True) -> None:
        self._samples = list(samples)
        if not self._samples:
            raise UsageError("there is nothing to train on: give a data set with pictures")
        if masks:
            without = [sample.path for sample in self._samples if sample.label and not sample.masks]
            if without:
                raise UsageError(
                    f"{len(without):,} of {sum(s.label for s in self._samples):,} anomalous pictures have no mask, "
                    f"such as {without[0]}: add their masks, or take these pictures out"
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
        picture = sample.picture()
        mask = sample.mask(picture.size) if sample.label else None
        return Sample(picture.image, mask, sample.label, _object(sample))

    @property
    def objects(self) -> list[str]:
        """The names of what they show, each once."""
        return list(dict.fromkeys(map(_object, self._samples)))

    @property
    def sources(self) -> list[Source]:
        """What mosaics have to know of each sample before it is opened."""
        return [Source(sample.category, sample.label, sample.defect) for sample in self._samples]

    @property
    def anomalous(self) -> int:
        """How many are."""
        return sum(sample.label for sample in self._samples)


def _object(sample: datasets.Sample) -> str:
    return sample.object_name or sample.category or "object"
