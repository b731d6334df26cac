"""Fetch a backbone from the Hugging Face hub into its local cache."""

from __future__ import annotations

import re
import time
from functools import lru_cache
from pathlib import Path

from blemish.clip.dinov2 import MODEL_TYPES
from blemish.errors import WeightsError
from blemish.files import parse_json

_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
#: Seconds to wait for the hub's first answer.
_PROBE_SECONDS = 5.0
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")
#: Weights of transformers' folders, in order of preference; an index lists further files.
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
#: Weights of open_clip's folders, in order of preference.
OPEN_CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def is_hub_id(name: str) -> bool:
    """Return whether a name has the form owner/model."""
    return _ID.fullmatch(name) is not None


def fetch(name: str, revision: str | None = None) -> Path:
    """Find a model in the hub's local cache, and download the missing files (not if HF_HUB_OFFLINE is set).

    Args:
        name: Name of the model, owner/model.
        revision: Branch, tag or commit.

    Returns:
        A folder with the configuration, the weights and the tokenizer.

    Raises:
        WeightsError: The model does not exist or cannot be downloaded.
    """
    config = _get(name, "config.json", revision)
    if config is not None:
        commit = _commit_of(config, revision)
        kind = _model_type(config)
        if kind == "clip" or kind in MODEL_TYPES:
            for optional in ("preprocessor_config.json", *(_TOKENIZER if kind == "clip" else ())):
                _get(name, optional, commit)
            _get_weights(name, WEIGHTS, commit)
            return config.parent
        revision = commit
    open_clip_config = _get(name, "open_clip_config.json", revision)
    if open_clip_config is not None:
        commit = _commit_of(open_clip_config, revision)
        for optional in _TOKENIZER:
            _get(name, optional, commit)
        _get_weights(name, OPEN_CLIP_WEIGHTS, commit)
        return open_clip_config.parent
    if config is not None:
        return config.parent  # of another kind of model, which the loader names in its error
    raise WeightsError(
        f"{name!r} is neither a file or folder nor a model on this computer that blemish can use{_why_not()}: run "
        f"'hf download {name}' on a machine with internet, copy the downloaded folder here, and give its path"
    )


def _commit_of(path: Path, revision: str | None) -> str | None:
    """Return the commit that a cached file belongs to, so that all files come from the same one."""
    return path.parent.name if _COMMIT.fullmatch(path.parent.name) else revision


def _model_type(config: Path) -> str | None:
    try:
        content = parse_json(config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content.get("model_type") if isinstance(content, dict) else None


def _get_weights(name: str, candidates: tuple[str, ...], revision: str | None) -> None:
    for candidate in candidates:
        path = _get(name, candidate, revision)
        if path is None:
            continue
        if candidate.endswith(".index.json"):
            parts = parse_json(path.read_text(encoding="utf-8")).get("weight_map", {}).values()
            if any(_get(name, part, revision) is None for part in sorted(set(parts))):
                continue
        return
    raise WeightsError(
        f"the weights of {name!r} are not on this computer and could not be downloaded{_why_not()}: run "
        f"'hf download {name}' on a machine with internet, copy the downloaded folder here, and give its path"
    )


def unreachable() -> str:
    """Return why the hub cannot be reached; empty if it can.

    The hub's own client repeats a request for half a minute, for every file, before it says so. One request without
    repetition is made instead, at most once a minute.
    """
    return _probe(int(time.monotonic() // 60))


@lru_cache(maxsize=1)
def _probe(minute: int) -> str:
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        get_session().head(constants.ENDPOINT, timeout=_PROBE_SECONDS)
    except Exception as error:  # of whichever HTTP library the hub's client uses
        return str(error).splitlines()[0][:120] if str(error) else type(error).__name__
    return ""


def _why_not() -> str:
    reason = unreachable()
    return f", and the hub cannot be reached ({reason})" if reason else ""


def _get(name: str, file: str, revision: str | None) -> Path | None:
    """Return the path of one file in the cache, or None if the model has no such file or cannot be reached."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(hf_hub_download(name, file, revision=revision, local_files_only=bool(unreachable())))
    except EntryNotFoundError:
        return None
    except GatedRepoError as error:
        raise WeightsError(
            f"the model {name!r} asks you to accept its conditions on huggingface.co and to log in with 'hf auth login'"
        ) from error
    except RepositoryNotFoundError as error:
        raise WeightsError(
            f"there is no file or folder {name!r}, and no public model of that name on the hub"
        ) from error
    except RevisionNotFoundError as error:
        raise WeightsError(f"the model {name!r} has no revision {revision!r}") from error
    except HFValidationError as error:
        raise WeightsError(f"{name!r} is neither a file or folder nor a name that the hub allows") from error
    except (HfHubHTTPError, OSError) as error:
        raise WeightsError(f"{file} of the model {name!r} could not be downloaded: {error}") from error
