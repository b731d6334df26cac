"""The frozen CLIP that all methods share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from blemish.clip import blocks, forward
from blemish.clip.request import Activation, Computation, ImageFeatures, Request
from blemish.clip.tokenizer import as_text_tokenizer
from blemish.clip.towers import Towers
from blemish.errors import UsageError

if TYPE_CHECKING:
    from transformers import CLIPModel

#: The mean and spread of the pictures that OpenAI's CLIP was trained on, per channel of [0, 1].
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def fingerprint_of(model: nn.Module) -> str:
    """First 16 hex digits of the SHA-256 over all parameters: sorted names, shapes, and bytes as float32."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        values = parameter.detach().to("cpu", torch.float32).contiguous().numpy().astype("<f4", copy=False)
        digest.update(f"{name} {tuple(values.shape)}\n".encode())
        digest.update(values.data)
    return digest.hexdigest()[:16]


def resized(picture: Image.Image, size: int) -> Tensor:
    """The pixels that CLIP sees, before the mean is taken off: (3, size, size) uint8.

    Resized with Pillow's bicubic filter in the picture's own mode (the aspect is not kept), and only then made RGB.
    """
    square = picture.resize((size, size), Image.Resampling.BICUBIC).convert("RGB")
    return torch.from_numpy(np.array(square)).permute(2, 0, 1)


class Backbone(nn.Module):
    """Holds a `transformers.CLIPModel`, or `Towers` like it, and runs it; no call changes it.

    Calls are differentiable: the caller chooses `torch.no_grad()`. The model is taken as it is; `load_backbone` hands
    out frozen ones.

    Args:
        model: a CLIP with a vision transformer.
        tokenizer: a `TextTokenizer` or one of transformers' fast tokenizers.
        name: what the backbone is called in results.
        fingerprint: of the weights; computed when first asked for if not given.
        mean: per channel, taken from pixels in [0, 1].
        std: per channel, pixels are divided by it.

    Attributes:
        towers: the modules, under the names that they have in a CLIPModel.
        name: what the backbone is called in results.
        layers: L, blocks of the vision tower.
        width: D, of the vision tower.
        patch: side of a patch in pixels.
        size: side of the checkpoint's own input in pixels.
        embed_dim: E, of the space that pictures and text share.
        text_layers: blocks of the text tower.
        text_width: Wt, of the text tower.
        context: tokens in a sentence, at most.
    """

    def __init__(
        self,
        model: CLIPModel | Towers,
        tokenizer: Any,
        name: str = "clip",
        fingerprint: str | None = None,
        *,
        mean: Sequence[float] = CLIP_MEAN,
        std: Sequence[float] = CLIP_STD,
    ) -> None:
        super().__init__()
        vision, text = model.config.vision_config, model.config.text_config
        self.towers: Any = model
        self.tokenizer = as_text_tokenizer(tokenizer)
        self.name = name
        self._fingerprint = fingerprint
        self.mean, self.std = tuple(mean), tuple(std)
        self.layers: int = vision.num_hidden_layers
        self.width: int = vision.hidden_size
        self.patch: int = vision.patch_size
        self.size: int = vision.image_size
        self.embed_dim: int = model.config.projection_dim
        self.text_layers: int = text.num_hidden_layers
        self.text_width: int = text.hidden_size
        self.context: int = text.max_position_embeddings
        self._half: dict[tuple[Activation, torch.dtype, torch.device], list[blocks.HalfBlock]] = {}

    @cached_property
    def model(self) -> CLIPModel:
        """transformers' own model, with these very parameters."""
        return self.towers.to_transformers() if isinstance(self.towers, Towers) else self.towers

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the weights, first 16 hex digits."""
        if self._fingerprint is None:
            self._fingerprint = fingerprint_of(self.towers)
        return self._fingerprint

    def preprocess(self, pictures: Sequence[Image.Image], size: int) -> Tensor:
        """Pictures to pixels as CLIP wants them.

        Each picture is `resized`, as the reference implementations do it.

        Args:
            pictures: B pictures of 8 bits a channel.
            size: side in pixels.

        Returns:
            (B, 3, size, size) float32 on the CPU, mean taken off and divided by the spread.
        """
        mean, std = torch.tensor(self.mean).view(3, 1), torch.tensor(self.std).view(3, 1)
        table = (torch.arange(256).div(255) - mean).div(std).numpy()  # what each of the 256 levels becomes
        out = np.empty((len(pictures), 3, size, size), np.float32)
        for row, picture in enumerate(pictures):
            # NumPy, as this runs in threads: each of them that used PyTorch would bring threads of its own.
            for channel, levels in enumerate(resized(picture, size).numpy()):
                np.take(table[channel], levels, out=out[row, channel], mode="clip")
        return torch.from_numpy(out)

    def encode_image(
        self,
        pixels: Tensor,
        request: Request | None = None,
        computation: Computation | None = None,
        *,
        precision: torch.dtype = torch.float32,
        windows: torch.dtype | None = None,
    ) -> ImageFeatures:
        """Run the vision tower once, as far as `request` needs it.

        Args:
            pixels: (B, 3, S, S) as from `preprocess`, on the backbone's device.
            request: what to hand out; the class token if not given.
            computation: how to compute it; if not given, at the pixels' size with the defaults of `Computation`.
            precision: of the matrix products within the blocks: float32, or bfloat16 or float16 with weights that are
                cast at the first such call and kept beside the others. The streams are float32 always.
            windows: the same for windows, if they are to be computed in another precision than all else.

        Returns:
            the streams, tokens and windows asked for.

        Raises:
            UsageError: if the pixels do not have the size of the computation or are smaller than a patch, a tap lies
                beyond the last block, or a window does not fit into the grid.
        """
        request = Request() if request is None else request
        if pixels.ndim != 4 or pixels.shape[1] != 3 or min(pixels.shape[2:]) < self.patch:
            raise UsageError(
                f"pixels are (B, 3, S, S) with S at least {self.patch} for this backbone, not {tuple(pixels.shape)}"
            )
        computation = Computation(pixels.shape[-1]) if computation is None else computation
        if tuple(pixels.shape[2:]) != (computation.size, computation.size):
            raise UsageError(f"the computation is for size {computation.size}, the pixels are {tuple(pixels.shape)}")
        if beyond := [tap.layer for tap in request.taps if tap.layer > self.layers]:
            raise UsageError(f"layer {max(beyond)} was asked for, but the backbone has {self.layers} layers")

        vision = self.towers.vision_model
        chosen = self._blocks(computation.activation, precision)
        tokens, grid = forward.embed_image(vision, pixels, computation.position, precision)
        x = vision.pre_layrnorm(tokens)
        taps, class_token = forward.run_image_blocks(chosen, x, request.taps, class_token=request.class_token)
        if windows is not None and request.windows:
            chosen = self._blocks(computation.activation, windows)
        found = {side: forward.run_windows(chosen, x, grid, side) for side in request.windows}
        return ImageFeatures(taps=taps, class_token=class_token, windows=found, grid=grid, precision=precision)

    def _blocks(self, activation: Activation, precision: torch.dtype) -> Sequence[blocks.Block]:
        """The vision blocks with this activation in this precision."""
        modules = self.towers.vision_model.encoder.layers
        between = blocks.nonlinearity(activation, modules)
        if precision == torch.float32:
            return [blocks.ModuleBlock(module, between) for module in modules]
        key = activation, precision, modules[0].mlp.fc1.weight.device
        if key not in self._half:
            # Two threads that come here at once both make them, which only costs time.
            self._half[key] = [blocks.halve(module, between, precision) for module in modules]
        return self._half[key]

    def project(self, tokens: Tensor, *, norm: bool = True) -> Tensor:
        """Bring vision tokens into the space shared with text.

        Args:
            tokens: (..., D) raw tokens.
            norm: apply the final layer norm first.

        Returns:
            (..., E), not normalised.
        """
        if norm:
            tokens = self.towers.vision_model.post_layernorm(tokens)
        out: Tensor = self.towers.visual_projection(tokens)
        return out

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Sentences to token numbers.

        Args:
            texts: T sentences.

        Returns:
            (T, context) int64 on the CPU, padded with 0 after the end token.

        Raises:
            UsageError: if a sentence is longer than the context; nothing is cut off.
        """
        return self.tokenizer.encode(texts, self.context)

    def embed(self, ids: Tensor) -> Tensor:
        """Token embeddings without positions: (T, n) int64 on any device to (T, n, Wt) on the backbone's."""
        table = self.towers.text_model.embeddings.token_embedding
        out: Tensor = table(ids.to(table.weight.device))
        return out

    def end_of_text(self, ids: Tensor) -> Tensor:
        """Position of the end token, which is the first that equals the tokenizer's end-of-text number.

        Args:
            ids: (T, n) int64.

        Returns:
            (T,) int64.

        Raises:
            UsageError: if a row has no end token.
        """
        is_end = ids == self.tokenizer.eos
        if not bool(is_end.any(dim=-1).all()):
            raise UsageError(f"a sentence has no end-of-text token (number {self.tokenizer.eos})")
        # Not argmax: which of several equal values it finds is nowhere promised.
        places = torch.arange(ids.shape[-1], device=ids.device).expand_as(ids)
        return places.masked_fill(~is_end, ids.shape[-1]).amin(dim=-1)

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
            ids: (T, n) int64 on any device, n at most the context. May come with `embeddings` to say where the
                sentences end.
            embeddings: (T, n, Wt) token embeddings without positions, in place of those of `ids`.
            end: (T,) position of the end token, on any device; found in `ids` if not given.
            deep: deep[k], (m, Wt) or (T, m, Wt), replaces the hidden states at positions 1..m before block k + 2.
            inserted: (m, Wt) or (T, m, Wt), tokens put in after the first one, without positions of their own: the
                sentence keeps its positions, and `end` counts only its own tokens. `deep` then counts these as 1..m.
            before_norm: a function of the end tokens (T, Wt) that comes before the final layer norm.
            activation: as in `Computation`.

        Returns:
            (T, E), not normalised.

        Raises:
            UsageError: if neither ids nor embeddings are given, the end is not known or outside the sentence, there are
                more tokens than the model reads, or more or longer deep prompts than fit.
        """
        count, length = self._text_shape(ids, embeddings)
        if end is None:
            if ids is None:
                raise UsageError("embeddings need to be told where the sentences end: give end or ids")
            end = self.end_of_text(ids)
        weight: Tensor = self.towers.text_projection.weight
        if count == 0:
            return weight.new_zeros(0, self.embed_dim)
        if int(end.min()) < 0 or int(end.max()) >= length:
            raise UsageError(f"end tokens lie within the {length} tokens of a sentence, not at {end.tolist()}")
        end, ids = end.to(weight.device), None if ids is None else ids.to(weight.device)
        added = 0 if inserted is None else inserted.shape[-2]
        spread = self._spread_deep(deep or (), count, length + added)
        spread_inserted = None if inserted is None else inserted.expand(count, -1, -1)

        text = self.towers.text_model
        chosen = blocks.nonlinearity(activation, text.encoder.layers)

        def run(rows: Tensor | slice) -> Tensor:
            if embeddings is not None:
                tokens = embeddings[rows]
            else:
                assert ids is not None
                # Embed only what will be read.
                tokens = self.embed(ids[rows][:, : int(end[rows].max()) + 1])
            return forward.run_text(
                text,
                tokens,
                end[rows],
                [prompt[rows] for prompt in spread],
                chosen,
                inserted=None if spread_inserted is None else spread_inserted[rows],
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
        """Run the text tower over sentences that begin alike, what they share once: exact, since attention is causal.

        Args:
            embeddings: (T, s, Wt) token embeddings of T beginnings, without positions.
            endings: (T, B, r, Wt) how each beginning goes on in B sentences, each with its end token last.
            deep, inserted, before_norm, activation: as for `encode_text`, the tokens in the beginnings.

        Returns:
            (T, B, E), not normalised.

        Raises:
            UsageError: if there are more tokens than the model reads, or more or longer deep prompts than fit.
        """
        count, length = embeddings.shape[:2]
        if length + endings.shape[2] > self.context:
            total = length + endings.shape[2]
            raise UsageError(f"sentences of {total} tokens were given, but the model reads {self.context}")
        added = 0 if inserted is None else inserted.shape[-2]
        text = self.towers.text_model
        hidden = forward.run_endings(
            text,
            embeddings,
            endings,
            self._spread_deep(deep or (), count, length + added),
            blocks.nonlinearity(activation, text.encoder.layers),
            inserted=None if inserted is None else inserted.expand(count, -1, -1),
            before_norm=before_norm,
        )
        out: Tensor = self.towers.text_projection(hidden)
        return out

    def _text_shape(self, ids: Tensor | None, embeddings: Tensor | None) -> tuple[int, int]:
        given = embeddings if embeddings is not None else ids
        if given is None:
            raise UsageError("there is no text to encode: give ids or embeddings")
        count, length = given.shape[:2]
        if length > self.context:
            raise UsageError(f"sentences of {length} tokens were given, but the model reads {self.context}")
        if ids is not None and tuple(ids.shape) != (count, length):
            raise UsageError(f"ids {tuple(ids.shape)} and embeddings {tuple(given.shape)} are not of the same text")
        return count, length

    def _spread_deep(self, deep: Sequence[Tensor], count: int, length: int) -> list[Tensor]:
        """One row of deep tokens for each sentence."""
        if len(deep) > self.text_layers - 1:
            raise UsageError(f"{len(deep)} deep prompts were given, but the text tower has {self.text_layers} layers")
        out = [prompt.expand(count, -1, -1) for prompt in deep]
        if out and max(prompt.shape[1] for prompt in out) > length - 1:
            raise UsageError(f"deep prompts do not fit into sentences of {length} tokens")
        return out
