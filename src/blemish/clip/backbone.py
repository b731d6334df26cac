"""The frozen CLIP that methods with words share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from blemish.clip import blocks, forward
from blemish.clip.image import ImageBackbone
from blemish.clip.model import Towers, VisionTower
from blemish.clip.request import Activation, Computation
from blemish.clip.tokenizer import as_text_tokenizer
from blemish.errors import UsageError

if TYPE_CHECKING:
    from transformers import CLIPModel

#: Mean and standard deviation of the images that OpenAI's CLIP was trained on, per channel of [0, 1].
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class Backbone(ImageBackbone):
    """A CLIP with a vision transformer, its tokenizer and its preprocessing: an `ImageBackbone` that reads words, too.

    Args:
        model: `Towers`, or a `CLIPModel` of transformers, whose parameters are then shared.
        tokenizer: A `TextTokenizer` or a fast tokenizer of transformers.
        name: Name of the backbone in results.
        fingerprint: Fingerprint of the weights; computed when it is first needed if not given.
        mean: Per channel, subtracted from pixels in [0, 1].
        std: Per channel, pixels are divided by it.

    Attributes:
        towers: The modules, with the parameter names of a `CLIPModel`.
        embed_dim: E, dimension of the space that images and text share.
        text_layers: Number of blocks of the text tower.
        text_width: Wt, width of the text tower.
        context: Largest number of tokens in a sentence.

    Raises:
        WeightsError: The `CLIPModel` has a configuration that blemish cannot compute.
    """

    reads_words = True
    towers: Towers

    def __init__(
        self,
        model: Towers | CLIPModel,
        tokenizer: Any,
        name: str = "clip",
        fingerprint: str | None = None,
        *,
        mean: Sequence[float] = CLIP_MEAN,
        std: Sequence[float] = CLIP_STD,
    ) -> None:
        towers = model if isinstance(model, Towers) else Towers.from_transformers(model)
        super().__init__(towers, towers.vision_model, name, fingerprint, mean=mean, std=std)
        text = towers.config.text_config
        self.tokenizer = as_text_tokenizer(tokenizer)
        self.embed_dim = towers.config.projection_dim
        self.text_layers = text.num_hidden_layers
        self.text_width = text.hidden_size
        self.context = text.max_position_embeddings

    @property
    def vision(self) -> VisionTower:
        """The modules of the vision tower."""
        return self.towers.vision_model

    @cached_property
    def model(self) -> CLIPModel:
        """A `CLIPModel` of transformers that shares these parameters."""
        return self.towers.to_transformers()

    def _embed_image(
        self, pixels: Tensor, computation: Computation, precision: torch.dtype
    ) -> tuple[Tensor, tuple[int, int]]:
        tokens, grid = super()._embed_image(pixels, computation, precision)
        return self.vision.pre_layrnorm(tokens), grid

    def project(self, tokens: Tensor, *, norm: bool = True) -> Tensor:
        """Project vision tokens into the space shared with text.

        Args:
            tokens: (..., D) raw tokens.
            norm: Whether to apply the final layer norm first.

        Returns:
            (..., E), not normalised.
        """
        if norm:
            tokens = self.final_norm(tokens)
        out: Tensor = self.towers.visual_projection(tokens)
        return out

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Turn sentences into token numbers.

        Args:
            texts: T sentences.

        Returns:
            (T, context) int64 on the CPU, padded with 0 after the end token.

        Raises:
            UsageError: A sentence is longer than the context; nothing is cut off.
        """
        return self.tokenizer.encode(texts, self.context)

    def embed(self, ids: Tensor) -> Tensor:
        """Return token embeddings without positions.

        Args:
            ids: (T, n) int64 on any device.

        Returns:
            (T, n, Wt) on the backbone's device.
        """
        table = self.towers.text_model.embeddings.token_embedding
        out: Tensor = table(ids.to(table.weight.device))
        return out

    def end_of_text(self, ids: Tensor) -> Tensor:
        """Return the position of the end token, the first that has the tokenizer's end-of-text number.

        Args:
            ids: (T, n) int64.

        Returns:
            (T,) int64.

        Raises:
            UsageError: A row has no end token.
        """
        is_end = ids == self.tokenizer.eos
        if not bool(is_end.any(dim=-1).all()):
            raise UsageError(f"a sentence has no end-of-text token (number {self.tokenizer.eos})")
        # Not argmax: PyTorch does not promise which of several equal values it returns.
        positions = torch.arange(ids.shape[-1], device=ids.device).expand_as(ids)
        return positions.masked_fill(~is_end, ids.shape[-1]).amin(dim=-1)

    def encode_text(
        self,
        ids: Tensor | None = None,
        *,
        embeddings: Tensor | None = None,
        end: Tensor | None = None,
        deep: Sequence[Tensor] | None = None,
        inserted: Tensor | None = None,
        before_norm: Callable[[Tensor], Tensor] | None = None,
        activation: Activation = "checkpoint",
    ) -> Tensor:
        """Run the text tower.

        Sentences are read up to the longest end token only, and long lists in batches sorted by length; attention is
        causal, so both are exact.

        Args:
            ids: (T, n) int64 on any device, n at most the context. With `embeddings`, it only says where the sentences
                end.
            embeddings: (T, n, Wt) token embeddings without positions, in place of those of `ids`.
            end: (T,) positions of the end tokens, on any device; taken from `ids` if not given.
            deep: deep[k], (m, Wt) or (T, m, Wt), replaces the hidden states at positions 1..m before block k + 2.
            inserted: (m, Wt) or (T, m, Wt) tokens after the first one, without positions. The other tokens keep their
                positions, and `end` does not count the inserted ones; `deep` counts them as 1..m.
            before_norm: Function of the end tokens (T, Wt), applied before the final layer norm.
            activation: As in `Computation`.

        Returns:
            (T, E), not normalised.

        Raises:
            UsageError: Neither ids nor embeddings are given, the end is unknown or outside the sentence, there are more
                tokens than the model reads, or more or longer deep prompts than fit.
        """
        count, length = self._text_shape(ids, embeddings)
        if end is None:
            if ids is None:
                raise UsageError("embeddings do not show where the sentences end: give end or ids")
            end = self.end_of_text(ids)
        weight = self.towers.text_projection.weight
        if count == 0:
            return weight.new_zeros(0, self.embed_dim)
        if int(end.min()) < 0 or int(end.max()) >= length:
            raise UsageError(f"end tokens lie within the {length} tokens of a sentence, not at {end.tolist()}")
        end, ids = end.to(weight.device), None if ids is None else ids.to(weight.device)
        added = 0 if inserted is None else inserted.shape[-2]
        deep = self._expand_deep(deep or (), count, length + added)
        inserted = None if inserted is None else inserted.expand(count, -1, -1)

        text = self.towers.text_model
        function = blocks.nonlinearity(activation, text.config)

        def run(rows: Tensor | slice) -> Tensor:
            if embeddings is not None:
                tokens = embeddings[rows]
            else:
                assert ids is not None
                # Embed only what is read.
                tokens = self.embed(ids[rows][:, : int(end[rows].max()) + 1])
            return forward.run_text(
                text,
                tokens,
                end[rows],
                [prompt[rows] for prompt in deep],
                function,
                inserted=None if inserted is None else inserted[rows],
                before_norm=before_norm,
            )

        if count <= forward.SENTENCES:
            hidden = run(slice(None))
        else:
            order = end.argsort(stable=True)
            parts = [run(rows) for rows in torch.split(order, forward.SENTENCES)]
            hidden = torch.cat(parts)[order.argsort()]
        out: Tensor = self.towers.text_projection(hidden)
        return out

    def encode_endings(
        self,
        embeddings: Tensor,
        endings: Tensor,
        *,
        deep: Sequence[Tensor] | None = None,
        inserted: Tensor | None = None,
        before_norm: Callable[[Tensor], Tensor] | None = None,
        activation: Activation = "checkpoint",
    ) -> Tensor:
        """Run the text tower over sentences that begin alike, computing each beginning once. Exact (causal attention).

        Args:
            embeddings: (T, s, Wt) token embeddings of T beginnings, without positions.
            endings: (T, B, r, Wt) continuations of each beginning in B sentences, each with its end token last.
            deep: As for `encode_text`; the tokens lie in the beginnings.
            inserted: As for `encode_text`; the tokens lie in the beginnings.
            before_norm: As for `encode_text`.
            activation: As in `Computation`.

        Returns:
            (T, B, E), not normalised.

        Raises:
            UsageError: There are more tokens than the model reads, or more or longer deep prompts than fit.
        """
        count, length = embeddings.shape[:2]
        self._require_context(length + endings.shape[2])
        added = 0 if inserted is None else inserted.shape[-2]
        text = self.towers.text_model
        hidden = forward.run_endings(
            text,
            embeddings,
            endings,
            self._expand_deep(deep or (), count, length + added),
            blocks.nonlinearity(activation, text.config),
            inserted=None if inserted is None else inserted.expand(count, -1, -1),
            before_norm=before_norm,
        )
        out: Tensor = self.towers.text_projection(hidden)
        return out

    def _require_context(self, length: int) -> None:
        if length > self.context:
            raise UsageError(f"sentences of {length} tokens were given, but the model reads {self.context}")

    def _text_shape(self, ids: Tensor | None, embeddings: Tensor | None) -> tuple[int, int]:
        given = embeddings if embeddings is not None else ids
        if given is None:
            raise UsageError("there is no text to encode: give ids or embeddings")
        count, length = given.shape[:2]
        self._require_context(length)
        if ids is not None and tuple(ids.shape) != (count, length):
            raise UsageError(f"ids {tuple(ids.shape)} and embeddings {tuple(given.shape)} are not of the same text")
        return count, length

    def _expand_deep(self, deep: Sequence[Tensor], count: int, length: int) -> list[Tensor]:
        """Give each sentence its row of the deep prompts: (T, m, Wt) each."""
        if len(deep) > self.text_layers - 1:
            raise UsageError(f"{len(deep)} deep prompts were given, but the text tower has {self.text_layers} layers")
        out = [prompt.expand(count, -1, -1) for prompt in deep]
        if out and max(prompt.shape[1] for prompt in out) > length - 1:
            raise UsageError(f"deep prompts do not fit into sentences of {length} tokens")
        return out
