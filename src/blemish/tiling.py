"""How pictures are cut into tiles: numbers only, so that they can be checked before anything is loaded."""

from __future__ import annotations

import math
from dataclasses import dataclass

from blemish.errors import UsageError

#: The overlap unless told otherwise.
OVERLAP = 0.25
#: The largest overlap; beyond it tiles multiply and say nothing new.
MOST = 0.75
#: The smallest side of a tile, in pixels.
LEAST = 16

Span = tuple[int, int]


@dataclass(frozen=True)
class Tiling:
    """How pictures are cut.

    Attributes:
        side: of the square tiles, in pixels of the picture.
        overlap: of neighbours, as a fraction of the side; at least so much, as tiles are spread evenly.

    Raises:
        UsageError: one of them is out of range.
    """

    side: int
    overlap: float = OVERLAP

    def __post_init__(self) -> None:
        if isinstance(self.side, bool) or not isinstance(self.side, int) or self.side < LEAST:
            raise UsageError(f"a tile is at least {LEAST} pixels wide, not {self.side}")
        if not 0 <= self.overlap <= MOST:
            raise UsageError(f"the overlap of tiles is a fraction of their side from 0 to {MOST}, not {self.overlap}")

    @property
    def ramp(self) -> int:
        """Pixels over which a tile fades in and out."""
        return round(self.side * self.overlap)

    def spans(self, length: int) -> tuple[Span, ...]:
        """Where tiles lie along a side of the picture: (start, end) each, all equally long, spread evenly."""
        if length <= self.side:
            return ((0, length),)
        count = 1 + math.ceil((length - self.side) / (self.side - self.ramp))
        starts = [(length - self.side) * number // (count - 1) for number in range(count)]
        return tuple((start, start + self.side) for start in starts)
