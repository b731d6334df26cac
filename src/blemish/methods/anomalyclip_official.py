"""AnomalyCLIP's published files: `{"prompt_learner": {...}}`.

Learnt: `ctx_pos`, `ctx_neg` (1, 1, n_ctx, Wt) and `compound_prompts_text.0`, `.1`, ... (t_n_ctx, Wt). Frozen: the token
embeddings and numbers around them, which have to be the backbone's own. `compound_prompt_projections.*` are skipped:
the authors' code never uses them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from blemish.errors import WeightsError
from blemish.methods import weights

_DEEP = "compound_prompts_text."


def sizes(state: Mapping[str, Any]) -> dict[str, int]:
    """n_ctx, depth and (where there are deep tokens) t_n_ctx, read off the shapes. Raises WeightsError."""
    learner = _learner(state)
    deep = [value for key, value in learner.items() if key.startswith(_DEEP)]
    found = {"n_ctx": learner["ctx_pos"].shape[-2], "depth": len(deep) + 1}
    return found | {"t_n_ctx": deep[0].shape[0]} if deep and deep[0].dim() == 2 else found


def read(
    state: Mapping[str, Any], words: Tensor, embedded: Tensor, *, n_ctx: int, depth: int, t_n_ctx: int
) -> tuple[Tensor, Tensor]:
    """The learnt tokens in a published file.

    Args:
        state: the file's content.
        words: (2, context) numbers of "object." and "damaged object.".
        embedded: (2, context, Wt) their token embeddings, for comparison.

    Returns:
        context (2, n_ctx, Wt) and deep (depth - 1, t_n_ctx, Wt), float32.

    Raises:
        WeightsError: a tensor is missing, unknown, of another shape, or was made with another CLIP.
    """
    width, kept = embedded.shape[2], embedded.shape[1] - n_ctx
    learner = {k: v for k, v in _learner(state).items() if not k.startswith("compound_prompt_projections.")}
    frozen = {k: learner.pop(k) for k in list(learner) if k.startswith(("token_", "tokenized_prompts_"))}
    deep = [f"{_DEEP}{k}" for k in range(depth - 1)]
    contexts = dict.fromkeys(("ctx_pos", "ctx_neg"), (1, 1, n_ctx, width))
    weights.fit(learner, {**contexts, **dict.fromkeys(deep, (t_n_ctx, width))})
    for row, name in enumerate(("pos", "neg")):
        _same(frozen.pop(f"token_prefix_{name}", None), embedded[row, :1], f"token_prefix_{name}")
        _same(frozen.pop(f"token_suffix_{name}", None), embedded[row, 1:kept], f"token_suffix_{name}")
        ids = frozen.pop(f"tokenized_prompts_{name}", None)
        if ids is not None:  # without the placeholders, of which only the number matters
            ids = torch.cat([ids.flatten()[:1], ids.flatten()[n_ctx + 1 :]])
        _same(ids, words[row, :kept], f"tokenized_prompts_{name}")
    weights.fit(frozen, {})
    context = torch.cat([learner["ctx_pos"], learner["ctx_neg"]]).view(2, n_ctx, width).float()
    return context, torch.stack([learner[k] for k in deep]).float() if deep else torch.empty(0, t_n_ctx, width)


def _learner(state: Mapping[str, Any]) -> dict[str, Tensor]:
    learner = state.get("prompt_learner")
    if not isinstance(learner, dict) or not all(isinstance(v, Tensor) for v in learner.values()):
        raise WeightsError("these are no weights of AnomalyCLIP: they have no 'prompt_learner' with tensors")
    if "ctx_pos" not in learner or learner["ctx_pos"].dim() != 4:
        raise WeightsError("the weights' prompt_learner has no 'ctx_pos' of shape (1, 1, n_ctx, width)")
    return learner


def _same(found: Tensor | None, expected: Tensor, name: str) -> None:
    """A frozen tensor in the file against the backbone's own. Half-precision archives differ by their rounding."""
    if found is None:
        return
    found, expected = found.to(expected.dtype).flatten(), expected.detach().flatten()
    if found.shape != expected.shape or not found.allclose(expected, rtol=2e-3, atol=1e-4):
        raise WeightsError(f"{name!r} in the weights is not what this backbone has: they were learnt with another CLIP")
