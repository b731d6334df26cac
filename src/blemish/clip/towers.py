"""The modules of a `transformers.CLIPModel` under the names they have there, without transformers.

Importing transformers takes longer than to import PyTorch, load the built-in model and score a picture with it; so that
model, whose folder is known to the letter, is held by these. All other checkpoints are read by transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from blemish.clip.blocks import nonlinearity

if TYPE_CHECKING:
    from transformers import CLIPModel


class Towers(nn.Module):
    """Both towers and what projects them, on the meta device until weights are given.

    Args:
        config: what config.json of a CLIPModel says.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.settings = dict(config)
        vision, text = SimpleNamespace(**config["vision_config"]), SimpleNamespace(**config["text_config"])
        self.config = SimpleNamespace(vision_config=vision, text_config=text, projection_dim=config["projection_dim"])
        with torch.device("meta"):
            width, side = vision.hidden_size, vision.patch_size
            self.vision_model = _parts(
                embeddings=_parts(
                    class_embedding=nn.Parameter(torch.empty(width)),
                    patch_embedding=nn.Conv2d(vision.num_channels, width, side, side, bias=False),
                    position_embedding=_table(1 + (vision.image_size // side) ** 2, width),
                ),
                pre_layrnorm=nn.LayerNorm(width, eps=vision.layer_norm_eps),
                encoder=_encoder(vision),
                post_layernorm=nn.LayerNorm(width, eps=vision.layer_norm_eps),
            )
            self.text_model = _parts(
                embeddings=_parts(
                    token_embedding=_table(text.vocab_size, text.hidden_size),
                    position_embedding=_table(text.max_position_embeddings, text.hidden_size),
                ),
                encoder=_encoder(text),
                final_layer_norm=nn.LayerNorm(text.hidden_size, eps=text.layer_norm_eps),
            )
            self.visual_projection = nn.Linear(width, config["projection_dim"], bias=False)
            self.text_projection = nn.Linear(text.hidden_size, config["projection_dim"], bias=False)
            self.logit_scale = nn.Parameter(torch.empty(()))

    @classmethod
    def read(cls, folder: Path, config: Mapping[str, Any]) -> Towers:
        """Frozen towers with the weights of model.safetensors as float32. Raises what safetensors and PyTorch raise."""
        from safetensors.torch import load_file

        towers = cls(config).eval().requires_grad_(False)
        state = {name: value.float() for name, value in load_file(folder / "model.safetensors").items()}
        towers.load_state_dict(state, assign=True)
        return towers

    def to_transformers(self) -> CLIPModel:
        """A CLIPModel of these very parameters: what happens to the ones happens to the others."""
        from transformers import CLIPConfig, CLIPModel

        from blemish.clip.convert import restore_buffers

        with torch.device("meta"):
            model = CLIPModel(CLIPConfig.from_dict(_without_dtype(self.settings))).eval().requires_grad_(False)
        model.load_state_dict(self.state_dict(keep_vars=True), assign=True)
        restore_buffers(model)
        return model


def _without_dtype(config: Mapping[str, Any]) -> dict[str, Any]:
    """The file's weights are half, these are float32, and so is a model made anew of this configuration."""
    return {k: _without_dtype(v) if isinstance(v, Mapping) else v for k, v in config.items() if k != "dtype"}


def _parts(**parts: Any) -> nn.Module:
    """A module that only holds others."""
    holder = nn.Module()
    for name, part in parts.items():
        setattr(holder, name, part)
    return holder


def _table(rows: int, width: int) -> nn.Embedding:
    """Without drawing its values: to draw them on the meta device loads a compiler."""
    return nn.Embedding(rows, width, _weight=torch.empty(rows, width))


def _encoder(tower: SimpleNamespace) -> nn.Module:
    return _parts(layers=nn.ModuleList(_block(tower) for _ in range(tower.num_hidden_layers)))


def _block(tower: SimpleNamespace) -> nn.Module:
    width, inner = tower.hidden_size, tower.intermediate_size
    projections = {f"{name}_proj": nn.Linear(width, width) for name in ("k", "v", "q", "out")}
    return _parts(
        self_attn=_parts(**projections, num_heads=tower.num_attention_heads),
        layer_norm1=nn.LayerNorm(width, eps=tower.layer_norm_eps),
        mlp=_parts(
            activation_fn=nonlinearity(tower.hidden_act, ()), fc1=nn.Linear(width, inner), fc2=nn.Linear(inner, width)
        ),
        layer_norm2=nn.LayerNorm(width, eps=tower.layer_norm_eps),
    )
