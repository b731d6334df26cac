"""Find a backbone by name or path and load it."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from blemish.clip.backbone import CLIP_MEAN, CLIP_STD, Backbone, fingerprint_of
from blemish.clip.tokenizer import read_tokenizer
from blemish.errors import WeightsError

if TYPE_CHECKING:
    from transformers import CLIPModel

log = logging.getLogger(__name__)

#: Where the backbone that comes with blemish lives.
EMBEDDED = Path(__file__).resolve().parent.parent / "weights" / "embedded"


def load_backbone(name_or_path: str = "embedded", *, revision: str | None = None) -> Backbone:
    """Load a frozen CLIP.

    Args:
        name_or_path: `embedded` (comes with blemish), or a folder written by transformers.
        revision: of a model on the Hugging Face hub.

    Returns:
        the backbone: float32, on the CPU, in evaluation mode, its parameters frozen.

    Raises:
        WeightsError: if there is no such checkpoint or it cannot be used; nothing in a file is ever executed.
    """
    if name_or_path == "embedded":
        if not (EMBEDDED / "config.json").is_file():
            raise WeightsError(
                "the embedded backbone is missing from this installation: install blemish again or name another one",
                EMBEDDED,
            )
        return _load_folder(EMBEDDED, "embedded")
    return _load_folder(Path(name_or_path).expanduser(), name_or_path)


def _load_folder(folder: Path, name: str) -> Backbone:
    """A folder as transformers writes it: config.json, weights, tokenizer."""
    config = read_json(folder / "config.json")
    if config.get("model_type") != "clip":
        raise WeightsError(
            f"{name} holds a model of type {config.get('model_type')!r}, but blemish needs type 'clip'", folder
        )
    model = _from_pretrained(folder, name)
    tokenizer = read_tokenizer(folder, model.config.text_config.eos_token_id)
    if tokenizer is None:
        raise WeightsError(f"{name} has no tokenizer: put its tokenizer.json into the folder", folder)
    mean, std = _read_mean_std(folder)
    return Backbone(model, tokenizer, name, fingerprint_of(model), mean=mean, std=std)


def _from_pretrained(folder: Path, name: str) -> CLIPModel:
    import torch

    with quiet_transformers():
        from transformers import CLIPModel

        try:
            model, report = CLIPModel.from_pretrained(
                folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
            )
        except Exception as error:  # transformers, safetensors and pickle each have their own
            raise WeightsError(f"the weights in {name} cannot be loaded: {_first_line(error)}", folder) from error
    for what in ("missing_keys", "mismatched_keys", "error_msgs"):
        if found := sorted(map(str, report.get(what) or ())):
            raise WeightsError(
                f"the weights in {name} do not fit its config.json: {what.replace('_', ' ')} {', '.join(found[:3])}"
                + (f" and {len(found) - 3} more" if len(found) > 3 else ""),
                folder,
            )
    return cast("CLIPModel", model.eval().requires_grad_(False))


def _read_mean_std(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """From preprocessor_config.json where there is one, else CLIP's."""
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return CLIP_MEAN, CLIP_STD
    config = read_json(path)
    mean, std = config.get("image_mean", CLIP_MEAN), config.get("image_std", CLIP_STD)
    for values in (mean, std):
        if len(values) != 3 or not all(isinstance(value, int | float) for value in values):
            raise WeightsError("preprocessor_config.json has a mean or std that is not three numbers", path)
    return tuple(map(float, mean)), tuple(map(float, std))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        WeightsError: if the file is missing or holds none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise WeightsError(f"there is no {path.name} in {path.parent}", path) from error
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read: {error}", path) from error
    if not isinstance(found, dict):
        raise WeightsError(f"{path} does not hold a JSON object", path)
    return found


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' warnings and progress bars off the screen; what matters is raised by blemish."""
    from transformers.utils import logging as theirs

    verbosity, bars = theirs.get_verbosity(), theirs.is_progress_bar_enabled()
    theirs.set_verbosity_error()
    theirs.disable_progress_bar()
    try:
        yield
    finally:
        theirs.set_verbosity(verbosity)
        if bars:
            theirs.enable_progress_bar()
