"""The files of a training run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Places:
    """Where a run keeps what: beside each other, either in a folder of its own or with one name."""

    weights: Path
    checkpoint: Path
    losses: Path
    """JSON lines, one for each step."""
    curves: Path
    """The same as a picture (SVG)."""

    @classmethod
    def of(cls, out: str | os.PathLike[str]) -> Places:
        """A folder gives `weights.safetensors`, `checkpoint.safetensors`, `losses.jsonl` and `losses.svg` in it.

        A name `x.safetensors` gives itself, `x.checkpoint.safetensors`, `x.losses.jsonl` and `x.losses.svg`.
        """
        path = Path(out)
        if path.suffix == ".safetensors":
            stem = f"{path.stem}."
            folder, weights = path.parent, path
        else:
            stem, folder, weights = "", path, path / "weights.safetensors"
        others = (folder / f"{stem}{name}" for name in ("checkpoint.safetensors", "losses.jsonl", "losses.svg"))
        return cls(weights, *others)

    @property
    def folder(self) -> Path:
        return self.weights.parent
