"""What is known of a data set before it is on the disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from blemish.datasets.files import Reader


@dataclass(frozen=True)
class Layout:
    """One way in which a data set's files are handed around."""

    text: str
    """In words, for people."""
    read: Reader = field(repr=False, compare=False)
    assumed: bool = False
    """The layout was put together from descriptions, not seen: what does not fit may be our mistake."""


@dataclass(frozen=True)
class Counts:
    """Pictures, as published; None: not known."""

    normal: int | None
    anomalous: int | None


@dataclass(frozen=True)
class DatasetInfo:
    """A data set in the table."""

    name: str
    """What users type."""
    title: str
    """What papers call it."""
    domain: Literal["industrial", "medical", "any"]
    modality: str
    licence: str | None
    """None: not known; ask its owner."""
    home_page: str | None
    image_labels: bool
    """Has normal and anomalous pictures to be told apart."""
    pixel_labels: bool
    """Has masks."""
    layouts: tuple[Layout, ...]
    """Tried in this order."""
    categories: tuple[str, ...] = ()
    """() = whatever is found."""
    object_names: Mapping[str, str] = field(default_factory=dict)
    """What the papers put into prompts for a category; one that is not here is put in as it is spelt."""
    counts: Mapping[str, Counts] = field(default_factory=dict)
    """Per split."""
    test_counts: Mapping[str, Counts] = field(default_factory=dict)
    """Per category, of the test split."""
    counts_source: str = ""
    use: str = ""
    """How the papers of the zero-shot methods use it, in training and in testing."""
    aliases: tuple[str, ...] = ()
    notes: str = ""

    @property
    def assumed(self) -> bool:
        """Whether one of its layouts was never seen."""
        return any(layout.assumed for layout in self.layouts)
