"""Find a backbone by name or path and load it."""

from __future__ import annotations

import contextlib
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch

from blemish.clip import hub
from blemish.clip.backbone import CLIP_MEAN, CLIP_STD, Backbone, fingerprint_of
from blemish.clip.convert import from_openai_state_dict
from blemish.clip.files import read_state_dict, refuse_pointer
from blemish.clip.tokenizer import CLIP_VOCABULARY, TextTokenizer, clip_tokenizer, read_tokenizer
from blemish.clip.towers import Towers
from blemish.errors import UsageError, WeightsError

if TYPE_CHECKING:
    from transformers import CLIPModel

#: Where the backbone that comes with blemish lives.
BUILTIN = Path(__file__).resolve().parent.parent / "weights" / "builtin"

MeanStd = tuple[tuple[float, ...], tuple[float, ...]]


def load_backbone(
    name_or_path: str = "builtin",
    *,
    revision: str | None = None,
    activation: Literal["quick_gelu", "gelu"] | None = None,
) -> Backbone:
    """Load a frozen CLIP with a vision transformer.

    Args:
        name_or_path: one of
            `builtin`, which comes with blemish;
            a folder as transformers writes it (config.json of type clip) or as open_clip does (open_clip_config.json);
            a model of the Hugging Face hub, owner/model, of either kind (HF_HOME and HF_HUB_OFFLINE are respected);
            a file: one of OpenAI's `.pt` archives, or an open_clip checkpoint (`.safetensors`, `.bin`, `.pt`).
        revision: branch, tag or commit of a model on the hub.
        activation: of the MLPs, for files only, which do not tell. If not given: `quick_gelu` for OpenAI's archives,
            exact `gelu` for all others. Give `quick_gelu` for open_clip models that were trained so (those of OpenAI,
            DFN, MetaCLIP, and what open_clip lists as `-quickgelu`).

    Returns:
        the backbone: float32, on the CPU, in evaluation mode, its parameters frozen. Half weights become float32.
        CLIP's own tokenizer is used where the checkpoint has none and its vocabulary is CLIP's.

    Raises:
        WeightsError: if there is no such checkpoint or it cannot be used; nothing in a file is ever executed.
        UsageError: for an empty name, an activation where the checkpoint states its own, or a revision of something
            that is not on the hub.
    """
    if not name_or_path:
        raise UsageError("a backbone needs a name: embedded, a folder, a file, or a model on the hub (owner/model)")
    path = Path(name_or_path).expanduser()
    from_hub = name_or_path != "builtin" and not path.exists() and hub.is_hub_id(name_or_path)
    if revision is not None and not from_hub:
        raise UsageError(f"a revision is of a model on the hub, but {name_or_path!r} is none")
    if activation is not None and not path.is_file():
        raise UsageError("activation is for checkpoint files; other checkpoints say themselves which one they have")
    if name_or_path == "builtin":
        if not (BUILTIN / "config.json").is_file():
            raise WeightsError(
                "the built-in backbone is missing from this installation: install blemish again or name another one",
                BUILTIN,
            )
        return _load_embedded()
    if path.is_dir():
        return _load_folder(path, name_or_path)
    if path.is_file():
        return _load_file(path, name_or_path, activation)
    if from_hub:
        return _load_folder(
            hub.fetch(name_or_path, revision), f"{name_or_path}@{revision}" if revision else name_or_path
        )
    raise WeightsError(
        f"there is no file or folder {name_or_path!r}, and it is not the name of a model on the hub (owner/model)", path
    )


def _load_embedded() -> Backbone:
    config = read_json(BUILTIN / "config.json")
    try:
        towers = Towers.read(BUILTIN, config)
    except Exception as error:  # of a damaged installation; safetensors and PyTorch have their own
        raise WeightsError(f"the weights in embedded cannot be loaded: {_in_short(error)}", BUILTIN) from error
    tokenizer = read_tokenizer(BUILTIN, config["text_config"]["eos_token_id"])
    return _assemble(towers, "builtin", tokenizer, _read_mean_std(BUILTIN))


def _load_file(path: Path, name: str, activation: Literal["quick_gelu", "gelu"] | None) -> Backbone:
    """An OpenAI archive or an open_clip checkpoint."""
    state, from_openai = read_state_dict(path)
    with _about(path):
        model = from_openai_state_dict(state, activation=activation or ("quick_gelu" if from_openai else "gelu"))
    # A tokenizer that happens to lie beside a file is asked only if the vocabulary is not CLIP's.
    known = model.config.text_config.vocab_size == CLIP_VOCABULARY
    return _assemble(model, name, None if known else read_tokenizer(path.parent), (CLIP_MEAN, CLIP_STD))


def _load_folder(folder: Path, name: str) -> Backbone:
    """A folder of transformers or open_clip."""
    if (folder / "config.json").is_file():
        kind = read_json(folder / "config.json").get("model_type")
        if kind == "clip":
            mean_std = _read_mean_std(folder)
            model = _from_pretrained(folder, name)
            return _assemble(model, name, read_tokenizer(folder, model.config.text_config.eos_token_id), mean_std)
        if not (folder / "open_clip_config.json").is_file():
            raise WeightsError(f"{name} holds a model of type {kind!r}, but blemish needs one of type 'clip'", folder)
    if (folder / "open_clip_config.json").is_file():
        return _load_open_clip_folder(folder, name)
    raise WeightsError(f"{name} holds no model: it has neither config.json nor open_clip_config.json", folder)


def _load_open_clip_folder(folder: Path, name: str) -> Backbone:
    path = folder / "open_clip_config.json"
    config = read_json(path)
    try:
        model_config, picture_config = config["model_cfg"], config.get("preprocess_cfg", {})
        vision, text = model_config["vision_cfg"], model_config["text_cfg"]
        if vision.get("pool_type", "tok") != "tok" or text.get("pool_type", "argmax") != "argmax":
            raise WeightsError(f"{name} pools tokens in another way than CLIP does", path)
        heads = (vision["width"] // vision.get("head_width", 64), text.get("heads", 8))
        mean_std = _check_mean_std(picture_config.get("mean", CLIP_MEAN), picture_config.get("std", CLIP_STD), path)
    except (KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{name} is not a CLIP with a vision transformer of open_clip's own", path) from error
    for weights in (folder / "open_clip_model.safetensors", folder / "open_clip_pytorch_model.bin"):
        if weights.is_file():
            break
    else:
        raise WeightsError(f"{name} has no weights (open_clip_model.safetensors)", folder)
    state, _ = read_state_dict(weights)
    with _about(weights):
        activation: Literal["quick_gelu", "gelu"] = "quick_gelu" if model_config.get("quick_gelu") else "gelu"
        model = from_openai_state_dict(state, heads=heads, activation=activation)
    return _assemble(model, name, read_tokenizer(folder), mean_std)


def _assemble(model: CLIPModel | Towers, name: str, tokenizer: TextTokenizer | None, mean_std: MeanStd) -> Backbone:
    vocabulary = model.config.text_config.vocab_size
    if tokenizer is None:
        if vocabulary != CLIP_VOCABULARY:
            raise WeightsError(f"{name} has no tokenizer: put its tokenizer.json beside the weights", name)
        tokenizer = clip_tokenizer()
    if tokenizer.backend.get_vocab_size() > vocabulary:
        raise WeightsError(f"the tokenizer of {name} has more tokens than the model's {vocabulary}", name)
    return Backbone(model, tokenizer, name, fingerprint_of(model), mean=mean_std[0], std=mean_std[1])


def _from_pretrained(folder: Path, name: str) -> CLIPModel:
    for weights in sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")]):
        refuse_pointer(weights)
    with _quiet_transformers():
        from transformers import CLIPModel

        try:
            model, report = CLIPModel.from_pretrained(
                folder,
                dtype=torch.float32,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # so that they are reported, and refused below
            )
        except Exception as error:  # transformers, safetensors and pickle each have their own
            raise WeightsError(f"the weights in {name} cannot be loaded: {_in_short(error)}", folder) from error
    for what in ("missing_keys", "mismatched_keys", "unexpected_keys", "error_msgs"):
        # Older checkpoints also hold position numbers, which are no weights.
        found = sorted(_entry(key) for key in report.get(what) or () if not str(key).endswith("position_ids"))
        if found:
            raise WeightsError(
                f"the weights in {name} do not fit its config.json: {what.replace('_', ' ')} {', '.join(found[:3])}"
                + (f" and {len(found) - 3} more" if len(found) > 3 else ""),
                folder,
            )
    return cast("CLIPModel", model.eval().requires_grad_(False))


def _read_mean_std(folder: Path) -> MeanStd:
    """From preprocessor_config.json where there is one, else CLIP's."""
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return CLIP_MEAN, CLIP_STD
    config = read_json(path)
    return _check_mean_std(config.get("image_mean", CLIP_MEAN), config.get("image_std", CLIP_STD), path)


def _check_mean_std(mean: Any, std: Any, path: Path) -> MeanStd:
    for values in (mean, std):
        if (
            not isinstance(values, list | tuple)
            or len(values) != 3
            or not all(isinstance(v, int | float) for v in values)
        ):
            raise WeightsError(f"{path.name} has a mean or std that is not three numbers", path)
    if min(std) <= 0:
        raise WeightsError(f"{path.name} has a std that is not above zero", path)
    return tuple(map(float, mean)), tuple(map(float, std))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        WeightsError: if the file cannot be read or holds none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read: {error}", path) from error
    if not isinstance(found, dict):
        raise WeightsError(f"{path} does not hold a JSON object", path)
    return found


def _entry(found: Any) -> str:
    """A key of transformers' report; mismatched ones come with the shapes in the file and in the model."""
    if isinstance(found, tuple) and len(found) == 3:
        return f"{found[0]} {tuple(found[1])} instead of {tuple(found[2])}"
    return str(found)


def _in_short(error: Exception) -> str:
    """What another library says, in one line."""
    if isinstance(error, pickle.UnpicklingError) or "weights_only" in str(error):
        return "they hold more than tensors, and blemish runs no code from a file"
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 300 else words[:300] + " ..."


@contextlib.contextmanager
def _about(path: Path) -> Iterator[None]:
    """Name the file in what goes wrong with its contents."""
    try:
        yield
    except WeightsError as error:
        raise WeightsError(f"{path.name}: {error}", path) from error


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
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
