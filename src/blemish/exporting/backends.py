"""The backends: their files and the packages that they need. This module imports neither."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from blemish.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from blemish.engine import TorchEngine
    from blemish.exporting.header import Header
    from blemish.methods.base import MemoryBank

Infer: TypeAlias = "Callable[[NDArray[np.float32], Sequence[str]], list[NDArray[np.float32]]]"
"""Maps pixels (B, 3, S, S) float32 in [0, 1] to the outputs of these names."""


class Calibration(Protocol):
    """Images to calibrate on, each (1, 3, S, S); can be iterated several times."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[NDArray[np.float32]]: ...


@dataclass(frozen=True)
class Opened:
    """An exported file that is ready to run."""

    header: Header
    infer: Infer
    """May be called in several threads at once."""
    precision: str
    """Precision that it really computes in: "float32", "bfloat16" or "int8"."""
    device: str


class Module(Protocol):
    """Functions of a backend's module."""

    def write(
        self,
        engine: TorchEngine,
        memory: MemoryBank | None,
        header: Header,
        path: Path,
        calibration: Calibration | None,
    ) -> None:
        """Write a detector to a file, in int8 if there are images to calibrate on."""

    def read(self, path: Path, device: str, precision: str) -> Opened:
        """Open a file. Raises WeightsError for a foreign file, UsageError for an unknown device or precision."""


@dataclass(frozen=True)
class Backend:
    """A runtime for exported detectors."""

    name: str
    title: str
    """Name in sentences."""
    suffix: str
    """Suffix of the files that it writes."""
    reads: tuple[str, ...]
    """Suffixes of the files that it reads."""
    module: str
    extra: str
    """Extra of blemish that installs its packages."""
    runs_with: tuple[str, ...]
    """Packages that running needs."""
    writes_with: tuple[str, ...]
    """Further packages that writing needs."""
    int8_extra: str
    int8_with: tuple[str, ...]
    """Packages that int8 needs."""

    def files(self, path: Path) -> tuple[Path, ...]:
        """Return all files of an export; `path` comes last."""
        return (path.with_suffix(".bin"), path) if path.suffix.lower() == ".xml" else (path,)

    def load(self) -> Module:
        """Import its module. Raises UsageError if a package is missing."""
        self._require(self.runs_with, self.extra)
        module: Module = importlib.import_module(self.module)
        return module

    def require_to_write(self, *, int8: bool) -> None:
        """Raise UsageError if a package for writing is missing, before anything is loaded."""
        self._require([*self.runs_with, *self.writes_with], self.extra)
        if int8:
            self._require(self.int8_with, self.int8_extra)

    def _require(self, packages: Sequence[str], extra: str) -> None:
        missing = [name for name in packages if importlib.util.find_spec(name) is None]
        if missing:
            raise UsageError(f"{self.title} needs {' and '.join(missing)}; run: pip install 'blemish[{extra}]'")


BACKENDS: dict[str, Backend] = {
    backend.name: backend
    for backend in (
        Backend(
            name="onnx",
            title="ONNX",
            suffix=".onnx",
            reads=(".onnx",),
            module="blemish.exporting.to_onnx",
            extra="onnx",
            runs_with=("onnxruntime",),
            writes_with=("onnx", "onnxscript"),
            int8_extra="onnx",
            int8_with=("onnx",),
        ),
        Backend(
            name="openvino",
            title="OpenVINO",
            suffix=".xml",
            reads=(".xml", ".onnx"),
            module="blemish.exporting.to_openvino",
            extra="openvino",
            runs_with=("openvino",),
            writes_with=(),
            int8_extra="int8",
            int8_with=("nncf",),
        ),
    )
}


def choose(path: Path, name: str | None, *, write: bool) -> Backend:
    """Return the backend of that name or, without a name, the one for the file's suffix.

    Args:
        path: The exported file.
        name: Name of the backend.
        write: Whether the file is written, not read.

    Raises:
        UsageError: There is no such backend, or it does not fit the file.
    """
    suffix = path.suffix.lower()
    if name is None:
        for backend in BACKENDS.values():
            if backend.suffix == suffix:
                return backend
        known = " or ".join(f"{backend.suffix} ({backend.title})" for backend in BACKENDS.values())
        raise UsageError(f"no backend has files like {path}: give one that ends with {known}")
    if name not in BACKENDS:
        raise UsageError(f"there is no backend {name!r}: choose {' or '.join(BACKENDS)}")
    backend = BACKENDS[name]
    suffixes = (backend.suffix,) if write else backend.reads
    if suffix not in suffixes:
        raise UsageError(f"a file of {backend.title} ends with {' or '.join(suffixes)}, and {path.name} does not")
    return backend
