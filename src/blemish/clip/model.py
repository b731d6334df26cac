"""CLIP's two towers as PyTorch modules, with the parameter names of transformers' `CLIPModel`.

The modules only hold weights; `blemish.clip.forward` computes with them. transformers is not needed to read a
checkpoint: importing it takes longer than importing PyTorch, loading the built-in model and scoring an image with it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blemish.errors import UsageError, WeightsError

if TYPE_CHECKING:
    from transformers import CLIPModel

Nonlinearity = Callable[[Tensor], Tensor]

#: The factor in OpenAI's approximation of GELU.
QUICK_GELU_FACTOR = 1.702


def quick_gelu(x: Tensor) -> Tensor:
    """Return x * sigmoid(1.702 x), OpenAI's approximation of GELU."""
    return x * torch.sigmoid(QUICK_GELU_FACTOR * x)


def swiglu(x: Tensor) -> Tensor:
    """Return silu(a) * b of the halves a and b of the last axis, which is half as long afterwards."""
    gate, value = x.chunk(2, dim=-1)
    return F.silu(gate) * value


ACTIVATIONS: dict[str, Nonlinearity] = {"quick_gelu": quick_gelu, "gelu": F.gelu}


@dataclass(frozen=True, kw_only=True)
class TowerConfig:
    """Sizes of one tower, under transformers' names.

    Raises:
        WeightsError: A size is not a whole number above 0, the heads do not divide the width, or the activation is
            unknown.
    """

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int = 12
    num_attention_heads: int
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5

    @property
    def gated(self) -> bool:
        """Whether the MLPs have `swiglu` in place of an activation, and so a first layer of twice the size."""
        return False

    def __post_init__(self) -> None:
        _require_sizes(self)
        if self.hidden_size % self.num_attention_heads:
            raise WeightsError(
                f"a hidden size of {self.hidden_size} cannot be split into {self.num_attention_heads} attention heads"
            )
        if not self.gated and self.hidden_act not in ACTIVATIONS:
            raise WeightsError(f"the activation {self.hidden_act!r} is not one of {', '.join(ACTIVATIONS)}")


@dataclass(frozen=True, kw_only=True)
class VisionConfig(TowerConfig):
    """Sizes of the vision tower; the defaults are those of transformers."""

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_attention_heads: int = 12
    image_size: int = 224
    patch_size: int = 32


@dataclass(frozen=True, kw_only=True)
class TextConfig(TowerConfig):
    """Sizes of the text tower; the defaults are those of transformers."""

    hidden_size: int = 512
    intermediate_size: int = 2048
    num_attention_heads: int = 8
    vocab_size: int = 49408
    max_position_embeddings: int = 77
    bos_token_id: int | None = 49406
    eos_token_id: int | None = 49407


T = TypeVar("T", bound=TowerConfig)


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """Sizes of a CLIP, under transformers' names."""

    vision_config: VisionConfig
    text_config: TextConfig
    projection_dim: int = 512

    def __post_init__(self) -> None:
        _require_sizes(self)

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> ClipConfig:
        """Read the content of a CLIPModel's config.json; what it leaves out has transformers' defaults.

        Raises:
            WeightsError: The content does not describe a CLIP that blemish can compute.
        """
        return cls(
            vision_config=_tower_config(VisionConfig, config, "vision_config"),
            text_config=_tower_config(TextConfig, config, "text_config"),
            projection_dim=config.get("projection_dim", 512),
        )


def _tower_config(kind: type[T], config: Mapping[str, Any], part: str) -> T:
    # Old files hold each part twice; transformers takes the second copy.
    given: Any = next((config[name] for name in (f"{part}_dict", part) if config.get(name) is not None), {})
    if not isinstance(given, Mapping):
        raise WeightsError(f"{part} must be a JSON object, not {given!r}")
    names = [field.name for field in dataclasses.fields(kind)]
    return kind(**{name: given[name] for name in names if given.get(name) is not None})


def _require_sizes(config: TowerConfig | ClipConfig) -> None:
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name == "num_register_tokens" and value == 0:
            continue
        if field.type == "int" and not (isinstance(value, int) and value > 0):
            raise WeightsError(f"the model's {field.name} must be a whole number above 0, not {value!r}")


class Attention(nn.Module):
    """Projections of one attention layer."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)


class MLP(nn.Module):
    """The two linear layers of a block's MLP."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size * (2 if config.gated else 1))
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)


class EncoderLayer(nn.Module):
    """One pre-norm transformer block."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.layer_norm1 = layer_norm(config)
        self.mlp = MLP(config)
        self.layer_norm2 = layer_norm(config)


class Encoder(nn.Module):
    """All blocks of a tower."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_hidden_layers))
        self.layers = cast("Sequence[EncoderLayer]", layers)


class VisionEmbeddings(nn.Module):
    """Class token, patch embedding and positions."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width, side = config.hidden_size, config.patch_size
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.patch_embedding = nn.Conv2d(3, width, side, side, bias=False)
        self.position_embedding = embedding(1 + (config.image_size // side) ** 2, width)


class VisionTower(nn.Module):
    """The vision transformer, without the projection into the joint space."""

    #: Number of register tokens, which CLIP has not.
    registers: ClassVar[int] = 0

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = VisionEmbeddings(config)
        self.pre_layrnorm = layer_norm(config)  # transformers spells it so
        self.encoder = Encoder(config)
        self.post_layernorm = layer_norm(config)


class TextEmbeddings(nn.Module):
    """Token embeddings and positions."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.token_embedding = embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = embedding(config.max_position_embeddings, config.hidden_size)


class TextTower(nn.Module):
    """The text transformer, without the projection into the joint space."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = TextEmbeddings(config)
        self.encoder = Encoder(config)
        self.final_layer_norm = layer_norm(config)


class Towers(nn.Module):
    """Both towers and their projections. The weights are on the meta device until they are set.

    Args:
        config: Sizes of the model.
    """

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.config = config
        # On the meta device nothing is allocated, and the caller's random state is not touched.
        with torch.device("meta"):
            vision, text = config.vision_config, config.text_config
            self.vision_model = VisionTower(vision)
            self.text_model = TextTower(text)
            self.visual_projection = nn.Linear(vision.hidden_size, config.projection_dim, bias=False)
            self.text_projection = nn.Linear(text.hidden_size, config.projection_dim, bias=False)
            self.logit_scale = nn.Parameter(torch.empty(()))

    @classmethod
    def from_state_dict(cls, config: ClipConfig, state: Mapping[str, Tensor]) -> Towers:
        """Build frozen float32 towers in evaluation mode.

        Args:
            config: Sizes of the model.
            state: Weights of any floating type under the names of a `CLIPModel`. They are copied.

        Raises:
            WeightsError: Weights are missing, unknown or of other shapes than `config` says.
        """
        towers = cls(config).eval().requires_grad_(False)
        expected = {name: tuple(value.shape) for name, value in towers.state_dict().items()}
        # Older checkpoints also hold position numbers, which are not weights.
        given = {name: value for name, value in state.items() if not name.endswith("position_ids")}
        require_same_shapes(expected, {name: tuple(value.shape) for name, value in given.items()})
        # Memory of their own: views and memory-mapped files may be aligned so that products are summed differently.
        copies = {name: torch.empty(value.shape).copy_(value) for name, value in given.items()}
        towers.load_state_dict(copies, assign=True)
        return towers

    @classmethod
    def from_transformers(cls, model: CLIPModel) -> Towers:
        """Hold the parameters of a `CLIPModel`. They are shared, not copied.

        Raises:
            WeightsError: The model's configuration is not one that blemish can compute.
        """
        towers = cls(ClipConfig.from_dict(model.config.to_dict())).train(model.training)
        _share_parameters(model, towers)
        return towers

    def to_transformers(self) -> CLIPModel:
        """Return a `CLIPModel` with these parameters. They are shared, not copied."""
        try:
            from transformers import CLIPConfig, CLIPModel
        except ImportError as error:
            raise UsageError("a CLIPModel needs transformers; run: pip install 'blemish[transformers]'.") from error

        with torch.device("meta"):
            model = CLIPModel(CLIPConfig(**dataclasses.asdict(self.config))).train(self.training)
        _share_parameters(self, model)
        for tower in (model.vision_model, model.text_model):
            count = tower.embeddings.position_embedding.weight.shape[0]
            tower.embeddings.position_ids = torch.arange(count).expand(1, -1)  # not a weight, so still on meta
        return model


def _share_parameters(source: nn.Module, target: nn.Module) -> None:
    for name, parameter in source.named_parameters():
        module, _, attribute = name.rpartition(".")
        setattr(target.get_submodule(module), attribute, parameter)


def require_same_shapes(expected: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]]) -> None:
    shared = expected.keys() & given.keys()
    problems = {
        "missing keys": expected.keys() - given.keys(),
        "unexpected keys": given.keys() - expected.keys(),
        "other shapes": {f"{n} {given[n]} instead of {expected[n]}" for n in shared if given[n] != expected[n]},
    }
    for problem, names in problems.items():
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise WeightsError(f"{problem}: {', '.join(sorted(names)[:3])}{more}")


def layer_norm(config: TowerConfig) -> nn.LayerNorm:
    return nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)


def embedding(rows: int, width: int) -> nn.Embedding:
    # Given, not drawn: drawing an embedding's values on the meta device loads PyTorch's compiler.
    return nn.Embedding(rows, width, _weight=torch.empty(rows, width))
