"""Text features of the search: sentences to train with, to score with, and sentences that no head has seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from blemish.clip import Backbone
from blemish.methods.ops import normalise
from blemish.prompts import CLIP_AC, PromptSet

#: Words that `CLIP_AC`, which heads are trained with, does not have.
UNSEEN = PromptSet(
    normal=("spotless {}", "intact {}", "{} in good condition"),
    anomalous=("ruined {}", "{} with a blemish", "deteriorated {}"),
    templates=("{}.", "a picture of a {}.", "the {} here."),
)
#: Sentences of a state that are averaged in a step.
DRAWN = 8


@dataclass(frozen=True)
class Words:
    """Unit vectors (T, E) of the sentences about a thing in its two states."""

    normal: Tensor
    damaged: Tensor

    @classmethod
    def encode(cls, backbone: Backbone, name: str, prompts: PromptSet) -> Words:
        """Encode sentences about `name`."""
        states = prompts.sentences(name)
        with torch.inference_mode():
            normal, damaged = (normalise(backbone.encode_text(backbone.tokenize(state))) for state in states)
        return cls(normal.clone(), damaged.clone())

    def mean(self) -> Tensor:
        """Return the normalised mean of each state, (2, E)."""
        return normalise(torch.stack([self.normal.mean(0), self.damaged.mean(0)]))

    def draw(self, generator: torch.Generator) -> Tensor:
        """Return the normalised mean of a few sentences of each state, (2, E)."""
        states = (self.normal, self.damaged)
        drawn = [state[torch.randint(len(state), (DRAWN,), generator=generator)].mean(0) for state in states]
        return normalise(torch.stack(drawn))


def encode_names(backbone: Backbone, names: Sequence[str], prompts: PromptSet = CLIP_AC) -> dict[str, Words]:
    """Return the words of each name."""
    return {name: Words.encode(backbone, name, prompts) for name in sorted(set(names))}
