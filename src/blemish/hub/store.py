"""Where pulled files are kept, and which of them are there."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from blemish.errors import UsageError, WeightsError
from blemish.hub.download import Patience, Told, blob_id, fetch
from blemish.hub.table import TABLE, Published

#: Raw files of public repositories: <base>/<owner>/<name>/<commit>/<path>. A mirror answers to the same paths.
BASE = "https://raw.githubusercontent.com"


def home() -> Path:
    """The folder of what blemish fetches: BLEMISH_HOME, else `blemish` in XDG_CACHE_HOME, else in ~/.cache."""
    if own := os.environ.get("BLEMISH_HOME"):
        return Path(own).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if os.path.isabs(cache) else Path.home() / ".cache") / "blemish"  # noqa: PTH117


def base_address() -> str:
    """Where files are fetched from: BLEMISH_WEIGHTS_URL, else GitHub."""
    return os.environ.get("BLEMISH_WEIGHTS_URL") or BASE


def entry(name: str) -> Published:
    """A published file by its name. Raises UsageError for an unknown one."""
    if name in TABLE:
        return TABLE[name]
    close = difflib.get_close_matches(name, TABLE, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(TABLE)}"
    raise UsageError(f"there are no published weights called {name!r}; {hint}")


def kept_at(one: Published) -> Path:
    """Where it lies once it is pulled."""
    return home() / "published" / f"{one.name}{Path(one.path).suffix}"


def find(name: str) -> Path:
    """A pulled file, whose content has just been checked.

    Raises:
        UsageError: there is no such name.
        WeightsError: it has not been pulled, or is no longer what was pulled.
    """
    one = entry(name)
    path = kept_at(one)
    try:
        found = blob_id(path)
    except FileNotFoundError:
        raise WeightsError(f"{name} is not on this computer yet: run blemish weights pull {name}", path) from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}", path) from error
    if found != one.blob:
        raise WeightsError(
            f"{path} is not the published file any more (git blob id {found}, not {one.blob}): run blemish weights "
            f"pull {name}",
            path,
        )
    return path


def pull(name: str, *, base: str | None = None, told: Told | None = None, patience: Patience | None = None) -> Path:
    """A published file, fetched if it is not there already.

    Args:
        base: where from, in place of `base_address()`.
        told: called with (bytes that are there, bytes in all or None) as it arrives.

    Raises:
        UsageError, WeightsError, OutputError: as `find` and `download.fetch`.
    """
    one = entry(name)
    path = kept_at(one)
    try:
        return find(name)
    except WeightsError:
        pass
    address = f"{(base or base_address()).rstrip('/')}/{one.repository}/{one.commit}/{one.path}"
    fetch(address, path, one.blob, told=told, patience=patience)
    return path


def locate(weights: str | os.PathLike[str], method: str, backbone: str) -> Path:
    """The file that is meant: one on the disk, or a published one that was pulled, by its name.

    Args:
        method: what it is to be loaded into; a name of another method's weights is refused.
        backbone: on which; a name is refused with the built-in one, on which nobody published anything.

    Raises:
        UsageError: there is neither such a file nor such a name, or it does not belong to method and backbone.
        WeightsError: it has not been pulled.
    """
    path, name = Path(weights), os.fspath(weights)
    if path.is_file():
        return path
    if name not in TABLE and (path.suffix or path.name != name):
        raise UsageError(f"there is no weights file {name}")
    try:
        one = entry(name)
    except UsageError as error:
        raise UsageError(f"there is no weights file {name}, and {error}") from None
    if one.method != method:
        raise UsageError(f"{name} are weights of {one.method}, not of {method}: choose the method {one.method}")
    if backbone == "builtin":
        raise UsageError(f"{name} were learnt on {one.backbone}, not on the built-in backbone: choose that backbone")
    return find(name)


def known(path: Path) -> Published | None:
    """The entry whose file this is, byte for byte; None if it is none of them. Raises OSError."""
    found = blob_id(path)
    return next((one for one in TABLE.values() if one.blob == found), None)
