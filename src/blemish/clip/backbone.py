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
from blemish.clip.model import Towers
from blemish.clip.request import Activation, Computation, ImageFeatures, Request
from blemish.clip.tokenizer import as_text_tokenizer
from blemish.errors import UsageError

if TYPE_CHECKING:
    from transformers import CLIPModel

#: Mean and standard deviation of the images that OpenAI's CLIP was trained on, per channel of [0, 1].
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def fingerprint_of(model: nn.Module) -> str:
    """Return the first 16 hex digits of the SHA-256 over all parameters: sorted names, shapes, and bytes as float32."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        values = parameter.detach().to("cpu", torch.float32).contiguous().numpy().astype("<f4", copy=False)
        digest.update(f"{name} {tuple(values.shape)}\n".encode())
        digest.update(values.data)
    return digest.hexdigest()[:16]


def resize_image(image: Image.Image, size: int) -> Tensor:
    """Return the pixels that CLIP sees before they are normalised, (3, size, size) uint8.

    Pillow's bicubic filter works in the image's own mode and does not keep the aspect ratio; then comes the conversion
    to RGB.
    """
    square = image.resize((size, size), Image.Resampling.BICUBIC).convert("RGB")
    return torch.from_numpy(np.array(square)).permute(2, 0, 1)


class Backbone(nn.Module):
    """A CLIP with a vision transformer, its tokenizer and its preprocessing. No call changes it.

    Calls are differentiable: the caller chooses `torch.no_grad()`. The weights are taken as they are; `load_backbone`
    returns frozen ones.

    Args:
        model: `Towers`, or a `CLIPModel` of transformers, whose parameters are then shared.
        tokenizer: A `TextTokenizer` or a fast tokenizer of transformers.
        name: Name of the backbone in results.
        fingerprint: Fingerprint of the weights; computed when it is first needed if not given.
        mean: Per channel, subtracted from pixels in [0, 1].
        std: Per channel, pixels are divided by it.

    Attributes:
        towers: The modules, with the parameter names of a `CLIPModel`.
        name: Name of the backbone in results.
        layers: L, number of blocks of the vision tower.
        width: D, width of the vision tower.
        patch: Side of a patch in pixels.
        size: Side of the checkpoint's own input in pixels.
        embed_dim: E, dimension of the space that images and text share.
        text_layers: Number of blocks of the text tower.
        text_width: Wt, width of the text tower.
        context: Largest number of tokens in a sentence.

    Raises:
        WeightsError: The `CLIPModel` has a configuration that blemish cannot compute.
    """

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
        super().__init__()
        self.towers = model if isinstance(model, Towers) else Towers.from_transformers(model)
        vision, text = self.towers.config.vision_config, self.towers.config.text_config
        self.tokenizer = as_text_tokenizer(tokenizer)
        self.name = name
        self._fingerprint = fingerprint
        self.mean, self.std = tuple(mean), tuple(std)
        self.layers = vision.num_hidden_layers
        self.width = vision.hidden_size
        self.patch = vision.patch_size
        self.size = vision.image_size
        self.embed_dim = self.towers.config.projection_dim
        self.text_layers = text.num_hidden_layers
        self.text_width = text.hidden_size
        self.context = text.max_position_embeddings
        self._half: dict[tuple[Activation, torch.dtype, torch.device], list[blocks.HalfBlock]] = {}

    @cached_property
    def model(self) -> CLIPModel:
        """A `CLIPModel` of transformers that shares these parameters."""
        return self.towers.to_transformers()

    @property
    def fingerprint(self) -> str:
        """First 16 hex digits of the SHA-256 over the weights."""
        if self._fingerprint is None:
            self._fingerprint = fingerprint_of(self.towers)
        return self._fingerprint

    def preprocess(self, images: Sequence[Image.Image], size: int) -> Tensor:
        """Resize and normalise images as the reference implementations do.

        Args:
            images: B images of 8 bits per channel.
            size: Side of the result in pixels.

        Returns:
            (B, 3, size, size) float32 on the CPU.
        """
        mean, std = torch.tensor(self.mean).view(3, 1), torch.tensor(self.std).view(3, 1)
        table = (torch.arange(256).div(255) - mean).div(std).numpy()  # (3, 256): the result for each level
        out = np.empty((len(images), 3, size, size), np.float32)
        for row, image in enumerate(images):
            # NumPy, because this runs in threads: each thread that used PyTorch would start a thread pool of its own.
            for channel, levels in enumerate(resize_image(image, size).numpy()):
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
            pixels: (B, 3, S, S) from `preprocess`, on the backbone's device.
            request: What to return; the class token only if not given.
            computation: How to compute it; at the pixels' size with the defaults of `Computation` if not given.
            precision: Type of the matrix products in the blocks: float32, or bfloat16 or float16 with weights that are
                cast at the first such call and kept. The streams are always float32.
            windows: Type of the products for windows, if it differs from `precision`.

        Returns:
            The streams, tokens and windows of the request.

        Raises:
            UsageError: The pixels do not have the size of the computation or are smaller than a patch, a tap lies
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
        chosen = self._image_blocks(computation.activation, precision)
        tokens, grid = forward.embed_image(vision, pixels, computation.position, precision)
        x = vision.pre_layrnorm(tokens)
        taps, class_token = forward.run_image_blocks(chosen, x, request.taps, class_token=request.class_token)
        if windows is not None and request.windows:
            chosen = self._image_blocks(computation.activation, windows)
        window_tokens = {side: forward.run_windows(chosen, x, grid, side) for side in request.windows}
        return ImageFeatures(taps, class_token, window_tokens, grid, precision)

    def _image_blocks(self, activation: Activation, precision: torch.dtype) -> Sequence[blocks.Block]:
        vision = self.towers.vision_model
        layers, function = vision.encoder.layers, blocks.nonlinearity(activation, vision.config)
        if precision == torch.float32:
            return [blocks.ModuleBlock(layer, function) for layer in layers]
        key = activation, precision, layers[0].mlp.fc1.weight.device
        if key not in self._half:
            # Two threads that arrive at once both cast the weights, which only costs time.
            self._half[key] = [blocks.halve(layer, function, precision) for layer in layers]
        return self._half[key]

    def project(self, tokens: Tensor, *, norm: bool = True) -> Tensor:
        """Project vision tokens into the space shared with text.

        Args:
            tokens: (..., D) raw tokens.
            norm: Whether to apply the final layer norm first.

        Returns:
            (..., E), not normalised.
        """
        if norm:
            tokens = self.towers.vision_model.post_layernorm(tokens)
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
