"""How the pictures of a scan are scored: values that can be sent to other processes, and that load nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blemish.detection import FileKind


@dataclass(frozen=True)
class DetectorOptions:
    """How detectors are loaded.

    Attributes:
        load: Arguments of `blemish.load`; with profiles those that it takes beside one.
        profiles: File of each profile, by the name that items give; empty = one detector scores everything.
    """

    load: Mapping[str, Any] = field(default_factory=dict)
    profiles: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PartOptions:
    """How the pictures of a part are scored.

    Attributes:
        batch_size: Pictures, or tiles, that go through the model together.
        kinds: Files to write for each picture.
    """

    batch_size: int = 8
    kinds: tuple[FileKind, ...] = ()
