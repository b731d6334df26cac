"""Published weights: the files in public git repositories, as data, and the folder that they are pulled into.

Names give the training data, since the authors' own names disagree: AnomalyCLIP's folder `9_12_4_multiscale_visa` is
for tests on VisA, APRIL-GAN's `visa_pretrained.pth` was trained on it. VCP-CLIP's files are in no git repository;
`blemish weights import` reads them, too.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from blemish.errors import UsageError, WeightsError, suggest
from blemish.hub.download import OnProgress, RetryPolicy, blob_id, fetch
from blemish.methods import METHODS

#: Raw files of public repositories are at <base>/<owner>/<name>/<commit>/<path>, also on a mirror.
BASE = "https://raw.githubusercontent.com"


@dataclass(frozen=True)
class Published:
    """One published file, pinned to its content."""

    name: str
    """Name that users type."""
    method: str
    trained_on: str
    repository: str
    """owner/name on GitHub."""
    commit: str
    path: str
    """Path in the repository."""
    blob: str
    """Git's id of the content: SHA-1 of "blob <size>", a zero byte, and the content."""

    @property
    def backbone(self) -> str:
        """Hub id of the backbone that it was trained on."""
        return METHODS[self.method].default_backbone

    @property
    def source(self) -> str:
        """Repository, path, commit and git blob id in one line."""
        return f"https://github.com/{self.repository} {self.path} at {self.commit} (git blob {self.blob})"


def _files(method: str, repository: str, commit: str, files: dict[str, tuple[str, str]]) -> dict[str, Published]:
    """Return the entries of one repository; `files` maps training data to path and blob id."""
    entries = {}
    for trained_on, (path, blob) in files.items():
        name = f"{method}-trained-on-{trained_on.split()[0].lower()}"
        entries[name] = Published(name, method, trained_on, repository, commit, path, blob)
    return entries


TABLE: dict[str, Published] = {
    **_files(
        "anomalyclip",
        "zqhang/AnomalyCLIP",
        "45ed4dd35c05797d854294b5e8d585c545920089",
        {
            "VisA": ("checkpoints/9_12_4_multiscale/epoch_15.pth", "c90f1d9d92d158b436a8fc193f984d4cec8b1fc8"),
            "MVTec AD": (
                "checkpoints/9_12_4_multiscale_visa/epoch_15.pth",
                "72adc786e031b49ea288ba5f815f0d38cf158708",
            ),
        },
    ),
    **_files(
        "april-gan",
        "ByChelsea/VAND-APRIL-GAN",
        "f13b8a634e04f9fde8fa03db125b25af5695d8e1",
        {
            "MVTec AD": ("exps/pretrained/mvtec_pretrained.pth", "a057cec6c2ba5996baa0160a51e155908156813f"),
            "VisA": ("exps/pretrained/visa_pretrained.pth", "86d6848c543f8393663d35c0333498ffb5ce9b68"),
        },
    ),
    **_files(
        "clip-ad-sdp-plus",
        "ByChelsea/CLIP-AD",
        "f004973a41344d8c0966934af0c01781989b80e3",
        {
            "MVTec AD": ("pretrained_models/train_on_mvtec.pth", "d9102b131ceb8d1d668fbf6bce4e6940eb02986c"),
            "VisA": ("pretrained_models/train_on_visa.pth", "854cc1034a1d49207f66b2ca20fd2c7aefbb75ca"),
        },
    ),
}


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
