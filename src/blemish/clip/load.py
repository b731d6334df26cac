"""Find a backbone by name or path and load it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, overload

from torch import Tensor

from blemish.clip import huggingface
from blemish.clip.backbone import CLIP_MEAN, CLIP_STD, Backbone
from blemish.clip.dinov2 import IMAGENET_MEAN, IMAGENET_STD, MODEL_TYPES, Dinov2Tower, is_dinov2
from blemish.clip.image import Dinov2Backbone, ImageBackbone, fingerprint_of
from blemish.clip.model import ClipConfig, Towers
from blemish.clip.openai import from_openai_state_dict, is_openai
from blemish.clip.state_dict import is_torchscript, read_state_dict
from blemish.clip.tokenizer import CLIP_VOCABULARY, TextTokenizer, clip_tokenizer, read_tokenizer
from blemish.concurrency import check_not_forked
from blemish.errors import UsageError, WeightsError
from blemish.files import parse_json

#: Folder of the built-in backbone.
BUILTIN = Path(__file__).resolve().parent.parent / "weights" / "builtin"
#: "embedded" is the earlier name of the built-in backbone, which scripts and weights files of users still give.
_ALIASES = {"embedded": "builtin"}

#: Endings of a file's name that give its activation: clip.pt#quick_gelu.
_ACTIVATIONS: dict[str, Literal["quick_gelu", "gelu"]] = {"#quick_gelu": "quick_gelu", "#gelu": "gelu"}

_logger = logging.getLogger(__name__)

MeanStd = tuple[tuple[float, ...], tuple[float, ...]]


def resolve_name(name: str) -> str:
    """Return the name that a backbone has now."""
    return _ALIASES.get(name, name)


@overload
def load_backbone(name_or_path: Literal["builtin"] = ...) -> Backbone: ...
@overload
def load_backbone(
    name_or_path: str,
    *,
    revision: str | None = ...,
    activation: Literal["quick_gelu", "gelu"] | None = ...,
    heads: int | None = ...,
) -> ImageBackbone: ...
def load_backbone(
    name_or_path: str = "builtin",
    *,
    revision: str | None = None,
    activation: Literal["quick_gelu", "gelu"] | None = None,
    heads: int | None = None,
) -> ImageBackbone:
    """Load a frozen CLIP with a vision transformer, or a DINOv2, which reads no words.

    Args:
        name_or_path: One of
            `builtin`, the model that comes with blemish (`embedded` is its earlier name);
            a folder of transformers (config.json of type clip, dinov2 or dinov2_with_registers) or open_clip
            (open_clip_config.json);
            a model of either kind on the Hugging Face hub, owner/model (HF_HOME and HF_HUB_OFFLINE are respected);
            a file: one of OpenAI's `.pt` archives, an open_clip checkpoint (`.safetensors`, `.bin`, `.pt`), or one of
            Meta's DINOv2 checkpoints (`.pth`). The name of a CLIP file may give its activation: `clip.pt#quick_gelu`,
            `clip.pt#gelu`.
        revision: Branch, tag or commit of a model on the hub.
        activation: Activation of the MLPs; for files only, which do not show it. The default is `quick_gelu` for
            OpenAI's archives and state dicts that were taken from one, and exact `gelu` for all others, which is
            logged as a warning. Give `quick_gelu` for open_clip models that were trained
            with it (those of OpenAI and DFN, MetaCLIP, and those that open_clip lists as `-quickgelu`).
        heads: Number of attention heads of a DINOv2 file, which does not show it. The default is right for all models
            that Meta published.

    Returns:
        The backbone in float32, on the CPU, in evaluation mode, with frozen parameters: a `Backbone` if it reads words,
        a `Dinov2Backbone` if not. A CLIP has CLIP's own tokenizer if the checkpoint has none and its vocabulary is
        CLIP's.

    Raises:
        WeightsError: There is no such checkpoint or it cannot be used. Nothing in a file is ever executed.
        UsageError: The name is empty, an activation is given for a checkpoint that states its own, or a revision is
            given for something that is not on the hub, or the process was forked from one that had loaded a model.
    """
    check_not_forked()
    if not name_or_path:
        raise UsageError("a backbone needs a name: builtin, a folder, a file, or a model on the hub (owner/model)")
    name_or_path = resolve_name(name_or_path)
    path = Path(name_or_path).expanduser()
    for ending, named in _ACTIVATIONS.items():
        file = Path(str(path).removesuffix(ending))
        if str(path).endswith(ending) and not path.exists() and file.is_file():
            path, activation = file, activation or named
    from_hub = name_or_path != "builtin" and not path.exists() and huggingface.is_hub_id(name_or_path)
    if revision is not None and not from_hub:
        raise UsageError(f"a revision is for models on the hub, and {name_or_path!r} is not one")
    if activation is not None and not path.is_file():
        raise UsageError("an activation is for checkpoint files only; other checkpoints state their own")
    if heads is not None and not path.is_file():
        raise UsageError("a number of heads is for checkpoint files only; other checkpoints state their own")
    if name_or_path == "builtin":
        if not (BUILTIN / "config.json").is_file():
            raise WeightsError(
                "the built-in backbone is missing from this installation: install blemish again or name another one",
                BUILTIN,
            )
        return _load_folder(BUILTIN, "builtin")
    if path.is_dir():
        return _load_folder(path, name_or_path)
    if path.is_file():
        return _load_file(path, name_or_path, activation, heads)
    if from_hub:
        folder = huggingface.fetch(name_or_path, revision)
        return _load_folder(folder, f"{name_or_path}@{revision}" if revision else name_or_path)
    raise WeightsError(
        f"there is no file or folder {name_or_path!r}, and it is not the name of a model on the hub (owner/model)", path
    )


def _load_file(
    path: Path, name: str, activation: Literal["quick_gelu", "gelu"] | None, heads: int | None
) -> ImageBackbone:
    """Load an OpenAI archive, an open_clip checkpoint or one of Meta's DINOv2 checkpoints."""
    state = read_state_dict(path)
    if is_dinov2(state):
        if activation is not None:
            raise UsageError("an activation is for checkpoint files of a CLIP; a DINOv2 has its own")
        with _named_in_errors(path):
            tower = Dinov2Tower.from_state_dict(state, {"num_attention_heads": heads})
        return Dinov2Backbone(tower, name, fingerprint_of(tower))
    if heads is not None:
        raise UsageError("a number of heads is for checkpoint files of a DINOv2 only")
    if any(key.startswith("encoder.layer.") for key in state):
        raise WeightsError(f"{path.name} is part of a folder written by transformers: name the folder instead", path)
    if any(key.startswith("vision_model.") for key in state):
        raise WeightsError(f"{path.name} is part of a folder written by transformers: name the folder instead", path)
    with _named_in_errors(path):
        usual: Literal["quick_gelu", "gelu"] = "quick_gelu" if is_torchscript(path) or is_openai(state) else "gelu"
        towers = from_openai_state_dict(state, activation=activation or usual)
    if activation is None and usual == "gelu":
        _logger.warning(
            "%s does not say its activation: exact GELU is taken, as in most models of open_clip. Name it as "
            "%s#quick_gelu if it was trained with QuickGELU, as OpenAI's models were, or as %s#gelu to confirm.",
            *(path.name,) * 3,
        )
    # A tokenizer beside a file may belong to something else; it is read only if the vocabulary is not CLIP's.
    is_clips = towers.config.text_config.vocab_size == CLIP_VOCABULARY
    return _assemble(towers, name, None if is_clips else read_tokenizer(path.parent), (CLIP_MEAN, CLIP_STD))


def _load_folder(folder: Path, name: str) -> ImageBackbone:
    """Load a folder of transformers or open_clip."""
    if (folder / "config.json").is_file():
        config = read_json(folder / "config.json")
        if config.get("model_type") == "clip":
            return _load_transformers_folder(folder, name, config)
        if config.get("model_type") in MODEL_TYPES:
            return _load_dinov2_folder(folder, name, config)
        if not (folder / "open_clip_config.json").is_file():
            raise WeightsError(
                f"{name} holds a model of type {config.get('model_type')!r}, but blemish needs one of type 'clip' or "
                f"{' or '.join(map(repr, MODEL_TYPES))}",
                folder,
            )
    if (folder / "open_clip_config.json").is_file():
        return _load_open_clip_folder(folder, name)
    raise WeightsError(f"{name} holds no model: it has neither config.json nor open_clip_config.json", folder)


def _load_transformers_folder(folder: Path, name: str, settings: dict[str, Any]) -> Backbone:
    mean_std = _read_mean_std(folder)
    try:
        config = ClipConfig.from_dict(settings)
        towers = Towers.from_state_dict(config, _read_weights(folder))
    except WeightsError as error:
        raise WeightsError(f"the model in {name} cannot be loaded: {error}", folder) from error
    return _assemble(towers, name, read_tokenizer(folder, config.text_config.eos_token_id), mean_std)


def _load_dinov2_folder(folder: Path, name: str, settings: dict[str, Any]) -> Dinov2Backbone:
    mean, std = _read_mean_std(folder, (IMAGENET_MEAN, IMAGENET_STD))
    # A file may leave out what transformers has as default: 12 heads.
    settings = {"num_attention_heads": 12} | {key: value for key, value in settings.items() if value is not None}
    try:
        tower = Dinov2Tower.from_state_dict(_read_weights(folder), settings)
        for key in ("hidden_size", "num_hidden_layers", "num_register_tokens"):
            value = getattr(tower.config, key)
            if settings.get(key, value) != value:
                raise WeightsError(f"the weights have a {key} of {value}, but config.json says {settings[key]}")
    except WeightsError as error:
        raise WeightsError(f"the model in {name} cannot be loaded: {error}", folder) from error
    return Dinov2Backbone(tower, name, fingerprint_of(tower), mean=mean, std=std)


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """Read the weights of a transformers folder, in one file or in several that an index lists."""
    path = next((folder / name for name in huggingface.WEIGHTS if (folder / name).is_file()), None)
    if path is None:
        raise WeightsError(f"the folder has no weights ({huggingface.WEIGHTS[0]})", folder)
    if path.suffix != ".json":
        return read_state_dict(path)
    files = read_json(path).get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
        raise WeightsError(f"{path.name} does not list the files of the weights", path)
    state: dict[str, Tensor] = {}
    for file in sorted(set(files.values())):
        state |= read_state_dict(folder / file)
    return state


def _load_open_clip_folder(folder: Path, name: str) -> Backbone:
    path = folder / "open_clip_config.json"
    config = read_json(path)
    try:
        model_config, image_config = config["model_cfg"], config.get("preprocess_cfg", {})
        vision, text = model_config["vision_cfg"], model_config["text_cfg"]
        if vision.get("pool_type", "tok") != "tok" or text.get("pool_type", "argmax") != "argmax":
            raise WeightsError(f"{name} pools tokens in another way than CLIP does", path)
        heads = (vision["width"] // vision.get("head_width", 64), text.get("heads", 8))
        mean_std = _check_mean_std(image_config.get("mean", CLIP_MEAN), image_config.get("std", CLIP_STD), path)
    except (KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{name} is not a CLIP with a vision transformer of open_clip's own", path) from error
    weights = next((folder / file for file in huggingface.OPEN_CLIP_WEIGHTS if (folder / file).is_file()), None)
    if weights is None:
        raise WeightsError(f"{name} has no weights ({huggingface.OPEN_CLIP_WEIGHTS[0]})", folder)
    state = read_state_dict(weights)
    with _named_in_errors(weights):
        activation: Literal["quick_gelu", "gelu"] = "quick_gelu" if model_config.get("quick_gelu") else "gelu"
        towers = from_openai_state_dict(state, heads=heads, activation=activation)
    return _assemble(towers, name, read_tokenizer(folder), mean_std)


def _assemble(towers: Towers, name: str, tokenizer: TextTokenizer | None, mean_std: MeanStd) -> Backbone:
    vocabulary = towers.config.text_config.vocab_size
    if tokenizer is None:
        if vocabulary != CLIP_VOCABULARY:
            raise WeightsError(f"{name} has no tokenizer: put its tokenizer.json beside the weights", name)
        tokenizer = clip_tokenizer()
    if tokenizer.backend.get_vocab_size() > vocabulary:
        raise WeightsError(f"the tokenizer of {name} has more tokens than the model's {vocabulary}", name)
    return Backbone(towers, tokenizer, name, fingerprint_of(towers), mean=mean_std[0], std=mean_std[1])


def _read_mean_std(folder: Path, default: MeanStd = (CLIP_MEAN, CLIP_STD)) -> MeanStd:
    """Read preprocessor_config.json; without one, or without the values, take the default."""
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return default
    config = read_json(path)
    return _check_mean_std(config.get("image_mean", default[0]), config.get("image_std", default[1]), path)


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
        WeightsError: The file cannot be read or holds no object.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read: {error}", path) from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} does not hold a JSON object", path)
    return content


@contextlib.contextmanager
def _named_in_errors(path: Path) -> Iterator[None]:
    """Put the file's name in front of errors about its content."""
    try:
        yield
    except WeightsError as error:
        raise WeightsError(f"{path.name}: {error}", path) from error
