"""Convert a file that a method's authors published to one of blemish's own."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from blemish.errors import BlemishError, OutputError, WeightsError
from blemish.hub.published import Published, identify
from blemish.methods import checkpoints, create, info, load_class

if TYPE_CHECKING:
    from blemish.clip import ImageBackbone
    from blemish.methods import Method


@dataclass(frozen=True)
class Official:
    """An authors' file, before it is fitted to a backbone."""

    path: Path
    method: str
    tensors: dict[str, tuple[int, ...]]
    """Shapes by name; the name of a dictionary stands before those of its tensors."""
    entry: Published | None
    """The published file with the same content."""

    @property
    def backbone(self) -> str:
        """The paper's backbone."""
        return info(self.method).default_backbone


def recognise(path: str | os.PathLike[str], method: str | None = None) -> Official:
    """Find out which method's authors published a file, by the names of its tensors. No code in it is run.

    Args:
        path: The file.
        method: The method that the file has to belong to; None allows any.

    Raises:
        UsageError: The method does not exist, or its authors publish no weights.
        WeightsError: The file is missing, damaged, unsafe, blemish's own, of another method, or unknown.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"there is no weights file {path}", path)
    if not checkpoints.is_official(path):
        header = checkpoints.read_header(path)
        raise WeightsError(f"{path} is blemish's own file already (of {header.method}): use it as it is", path)
    state = checkpoints.read_official(path)
    if method is not None:
        try:
            checkpoints.official_config(method, state, load_class(method).Config())
        except WeightsError as error:
            raise WeightsError(f"{path}: {error}", path) from error
    owner = method or checkpoints.identify(state)
    if owner is None:
        titles = ", ".join(info(name).title for name, layout in checkpoints.LAYOUTS.items() if layout.keys)
        top = ", ".join(sorted(map(str, state))[:3]) or "nothing"
        raise WeightsError(f"{path} is like none of the files that are known ({titles}): at its top stands {top}", path)
    return Official(path, owner, dict(_shapes(state)), identify(path))


def convert(
    official: Official, backbone: ImageBackbone, changes: Mapping[str, Any] | None = None
) -> tuple[Method, list[str]]:
    """Return the method with the file's weights, each tensor checked against config and backbone.

    Args:
        official: From `recognise`.
        backbone: The backbone that the weights were learnt on.
        changes: Fields of the config that the file does not decide.

    Returns:
        The method, and warnings of the reader ("... lacks ...: untrained values stand in").

    Raises:
        WeightsError: The file does not fit the backbone.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            method = create(official.method, backbone, changes or None, weights=official.path)
        except BlemishError as error:
            raise WeightsError(
                f"{official.path} does not fit {official.method} on the backbone {backbone.name}: {error}",
                official.path,
            ) from error
    return method, [str(warning.message) for warning in caught if warning.category is UserWarning]


def write(
    official: Official, method: Method, out: Path, *, trained_on: str | None = None, overwrite: bool = False
) -> checkpoints.Header:
    """Write blemish's own file; its header says what is known of the published one.

    Raises:
        OutputError: The file exists, or it cannot be written.
    """
    if out.exists() and not overwrite:
        raise OutputError(f"{out} is there already: choose another name, or overwrite it", out)
    entry = official.entry
    if trained_on is None:
        trained_on = "" if entry is None else entry.trained_on
    layout = f"{official.path.name}, in the layout of {info(official.method).title}"
    checkpoints.save(method, out, trained_on=trained_on, source=layout if entry is None else entry.source)
    return checkpoints.read_header(out)


def _shapes(state: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, tuple[int, ...]]]:
    for name, value in state.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", tuple(value.shape)
        elif isinstance(value, Mapping):
            yield from _shapes(value, f"{prefix}{name}/")
