"""What methods with a prompt ensemble share: sentences to unit vectors, and their mean."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from blemish.methods.base import Method
from blemish.methods.maps import normalise
from blemish.prompts import PromptSet


def sentence_units(method: Method, prompts: PromptSet, name: str) -> tuple[Tensor, Tensor]:
    """The normal and the anomalous sentences about an object, through the text tower.

    Returns:
        (T0, E) and (T1, E), each row normalised, float32, in the order of the prompts.
    """
    normal, anomalous = prompts.sentences(name)
    ids = method.backbone.tokenize([*normal, *anomalous]).to(method.device)
    units = normalise(method.backbone.encode_text(ids, activation=method.config.activation))
    return units[: len(normal)], units[len(normal) :]


def mean_texts(method: Method, prompts: PromptSet, object_names: Sequence[str]) -> Tensor:
    """The mean of each state's unit vectors, normalised again: (C, 2, E), float32."""
    pairs = (sentence_units(method, prompts, name) for name in object_names)
    return normalise(torch.stack([torch.stack([units.mean(dim=0) for units in pair]) for pair in pairs]))
