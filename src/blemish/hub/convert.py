"""From a file in its authors' layout to one of blemish's own."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from blemish.errors import BlemishError, OutputError, WeightsError
from blemish.hub.store import identify
from blemish.hub.table import Published
from blemish.methods import create, info, load_class, weights
from blemish.methods.published import LAYOUTS, method_of

if TYPE_CHECKING:
    from blemish.clip import Backbone
    from blemish.methods.base import Method


@dataclass(frozen=True)
class Official:
    """What an authors' file is, before it is fitted to a backbone."""

    path: Path
    method: str
    tensors: dict[str, tuple[int, ...]]
    """Their names, with those of the dictionaries around them, to their shapes."""
    entry: Published | None
    """Which published file it is, byte for byte."""

    @property
    def backbone(self) -> str:
        """The backbone that the paper used."""
        return info(self.method).default_backbone


def recognise(path: str | os.PathLike[str], method: str | None = None) -> Official:
    """Whose file this is, told by the names of its tensors. No code in it is run.

    Args:
        method: whose file it has to be; None takes any.

    Raises:
        UsageError: there is no such method, or none of its authors' files can be read.
        WeightsError: it is missing, damaged, unsafe, blemish's own, of another method, or like nothing that is known.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"there is no weights file {path}", path)
    if not weights.is_official(path):
        header = weights.read_header(path)
        raise WeightsError(f"{path} is blemish's own file already (of {header.method}): use it as it is", path)
    state = weights.read_official(path)
    found = method_of(state)
    if found is None and method is None:
        titles = ", ".join(info(name).title for name in LAYOUTS)
        top = ", ".join(sorted(map(str, state))[:3]) or "nothing"
        raise WeightsError(f"{path} is like none of the files that are known ({titles}): at its top stands {top}", path)
    chosen = method or found
    assert chosen is not None
    if method is not None:
        try:
            cls = load_class(method)
            cls.official_config(state, cls.Config())
        except WeightsError as error:
            raise WeightsError(f"{path}: {error}", path) from error
    return Official(path, chosen, dict(_shapes(state)), identify(path))


def convert(
    official: Official, backbone: Backbone, changes: Mapping[str, Any] | None = None
) -> tuple[Method, list[str]]:
    """The method with the file's weights, each tensor checked against config and backbone.

    Args:
        changes: fields of the config that the file does not tell.

    Returns:
        the method, and what its reader remarked ("... lacks ...: untrained values stand in").

    Raises:
        WeightsError: the file does not fit the backbone.
    """
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always")
        try:
            method = create(official.method, backbone, changes or None, weights=official.path)
        except BlemishError as error:
            raise WeightsError(
                f"{official.path} does not fit {official.method} on the backbone {backbone.name}: {error}",
                official.path,
            ) from error
    return method, [str(one.message) for one in remarks if one.category is UserWarning]


def write(
    official: Official, method: Method, out: Path, *, trained_on: str | None = None, overwrite: bool = False
) -> weights.Header:
    """Writes blemish's own file, with what is known of the published one in its header.

    Raises:
        OutputError: there is a file already, or it cannot be written.
    """
    if out.exists() and not overwrite:
        raise OutputError(f"{out} is there already: choose another name, or overwrite it", out)
    one = official.entry
    words = trained_on if trained_on is not None else one.trained_on if one is not None else ""
    source = one.source if one is not None else f"{official.path.name}, in the layout of {info(official.method).title}"
    weights.save(method, out, trained_on=words, source=source)
    return weights.read_header(out)


def _shapes(state: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, tuple[int, ...]]]:
    for name, value in state.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", tuple(value.shape)
        elif isinstance(value, Mapping):
            yield from _shapes(value, f"{prefix}{name}/")
