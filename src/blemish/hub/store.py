"""The folder of published weights: find, pull and identify files."""

from __future__ import annotations

import os
from pathlib import Path

from blemish.errors import UsageError, WeightsError, suggest
from blemish.hub.download import OnProgress, RetryPolicy, blob_id, fetch
from blemish.hub.table import TABLE, Published

#: Raw files of public repositories are at <base>/<owner>/<name>/<commit>/<path>, also on a mirror.
BASE = "https://raw.githubusercontent.com"


def home() -> Path:
    """Return the folder of downloads: BLEMISH_HOME, else `blemish` in XDG_CACHE_HOME, else in ~/.cache."""
    if own := os.environ.get("BLEMISH_HOME"):
        return Path(own).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if os.path.isabs(cache) else Path.home() / ".cache") / "blemish"  # noqa: PTH117


def base_address() -> str:
    """Return the base URL of downloads: BLEMISH_WEIGHTS_URL, else GitHub."""
    return os.environ.get("BLEMISH_WEIGHTS_URL") or BASE


def entry(name: str) -> Published:
    """Return the entry of that name. Raises UsageError for an unknown name."""
    if name in TABLE:
        return TABLE[name]
    hint = suggest(name, TABLE) or f"; there are {', '.join(TABLE)}"
    raise UsageError(f"there are no published weights called {name!r}{hint}")


def local_path(published: Published) -> Path:
    """Return the path of the file after it is pulled."""
    return home() / "published" / f"{published.name}{Path(published.path).suffix}"


def find(name: str) -> Path:
    """Check the content of a pulled file and return its path.

    Raises:
        UsageError: There is no such name.
        WeightsError: The file has not been pulled, or has changed.
    """
    published = entry(name)
    path = local_path(published)
    try:
        actual = blob_id(path)
    except FileNotFoundError:
        raise WeightsError(f"{name} is not on this computer yet: run blemish weights pull {name}", path) from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}", path) from error
    if actual != published.blob:
        raise WeightsError(
            f"{path} is not the published file any more (git blob id {actual}, not {published.blob}): run blemish "
            f"weights pull {name}",
            path,
        )
    return path


def pull(
    name: str,
    *,
    base: str | None = None,
    on_progress: OnProgress | None = None,
    retry: RetryPolicy | None = None,
) -> Path:
    """Return the path of a published file; download it unless it is there.

    Args:
        name: Name of the entry.
        base: Base URL; None for `base_address()`.
        on_progress: Called as bytes arrive.
        retry: Limits of the download; None for the default.

    Raises:
        UsageError, WeightsError, OutputError: See `find` and `download.fetch`.
    """
    published = entry(name)
    path = local_path(published)
    try:
        return find(name)
    except WeightsError:
        pass
    url = f"{(base or base_address()).rstrip('/')}/{published.repository}/{published.commit}/{published.path}"
    fetch(url, path, published.blob, on_progress=on_progress, retry=retry)
    return path


def locate(weights: str | os.PathLike[str], method: str, backbone: str) -> Path:
    """Return the weights file for a path or for the name of pulled weights.

    Args:
        weights: Path or name.
        method: Method that loads the file; names of other methods' weights are refused.
        backbone: Backbone of the method; names are refused on the built-in model, for which none are published.

    Raises:
        UsageError: There is neither such a file nor such a name, or it does not fit method and backbone.
        WeightsError: The named weights have not been pulled.
    """
    path, name = Path(weights), os.fspath(weights)
    if path.is_file():
        return path
    if name not in TABLE and (path.suffix or path.name != name):
        raise UsageError(f"there is no weights file {name}")
    try:
        published = entry(name)
    except UsageError as error:
        raise UsageError(f"there is no weights file {name}, and {error}") from None
    if published.method != method:
        raise UsageError(
            f"{name} are weights of {published.method}, not of {method}: choose the method {published.method}"
        )
    if backbone == "builtin":
        raise UsageError(f"{name} were learnt on {published.backbone}, not on the built-in model: choose that backbone")
    return find(name)


def identify(path: Path) -> Published | None:
    """Return the entry with exactly this content, or None. Raises OSError."""
    blob = blob_id(path)
    return next((published for published in TABLE.values() if published.blob == blob), None)
