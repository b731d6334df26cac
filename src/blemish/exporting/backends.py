"""The backends: what file each has, what it needs. Imports neither."""

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

#: (B, 3, S, S) float32 in [0, 1] to the score (B,) and the map (B, S, S), as the file gives them.
Infer: TypeAlias = "Callable[[NDArray[np.float32]], tuple[NDArray[np.float32], NDArray[np.float32]]]"


class Calibration(Protocol):
    """The same pixels, a batch of one picture after the other; can be gone through several times."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[NDArray[np.float32]]: ...


@dataclass(frozen=True)
class Opened:
    """A file, ready to run."""

    header: Header
    infer: Infer
    """May be called in several threads at once."""
    precision: str
    """What it really computes in: "float32", "bfloat16" or "int8"."""
    device: str


class Module(Protocol):
    """What the module of a backend holds."""

    def write(
        self,
        engine: TorchEngine,
        memory: MemoryBank | None,
        header: Header,
        path: Path,
        calibration: Calibration | None,
    ) -> None:
        """Write a detector to a file; int8 with pictures to calibrate on."""

    def read(self, path: Path, device: str, precision: str) -> Opened:
        """Get a file ready. Raises WeightsError for what is no exported file, UsageError for what it cannot do."""


@dataclass(frozen=True)
class Backend:
    """How detectors run without PyTorch."""

    name: str
    title: str
    suffix: str
    """Of the files that it writes."""
    reads: tuple[str, ...]
    module: str
    extra: str
    runs_with: tuple[str, ...]
    """Packages without which nothing runs."""
    writes_with: tuple[str, ...]
    int8_extra: str
    int8_with: tuple[str, ...]

    def files(self, path: Path) -> tuple[Path, ...]:
        """All files of an export, the one that is named last."""
        return (path.with_suffix(".bin"), path) if path.suffix.lower() == ".xml" else (path,)

    def load(self) -> Module:
        """Its module. Raises UsageError where a package is missing."""
        self.need(self.runs_with, self.extra)
        module: Module = importlib.import_module(self.module)
        return module

    def need_to_write(self, *, int8: bool) -> None:
        """Raise a UsageError where a package is missing for writing, before anything is loaded."""
        self.need([*self.runs_with, *self.writes_with], self.extra)
        if int8:
            self.need(self.int8_with, self.int8_extra)

    def need(self, packages: Sequence[str], extra: str) -> None:
        """Raise UsageError unless all packages are there."""
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
    """The backend for a file, by its name or, without, by the file's suffix.

    Args:
        write: It is to write the file, not to read it.

    Raises:
        UsageError: Unknown, or not one for such a file.
    """
    suffix = path.suffix.lower()
    if name is None:
        found = next((one for one in BACKENDS.values() if one.suffix == suffix), None)
        if found is None:
            known = " or ".join(f"{one.suffix} ({one.title})" for one in BACKENDS.values())
            raise UsageError(f"{path} tells no backend by its name: it ends with {known}")
        return found
    if name not in BACKENDS:
        raise UsageError(f"there is no backend {name!r}: choose {' or '.join(BACKENDS)}")
    backend = BACKENDS[name]
    suffixes = (backend.suffix,) if write else backend.reads
    if suffix not in suffixes:
        raise UsageError(f"a file of {backend.title} ends with {' or '.join(suffixes)}, and {path.name} does not")
    return backend
