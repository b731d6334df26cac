"""VCP-CLIP: visual context prompting (Qu et al., ECCV 2024, https://arxiv.org/abs/2407.12276).

Code: https://github.com/xiaozhen228/VCP-CLIP

Method: learnt tokens stand where a sentence would name the object. Pre-VCP adds a convolution of the image's embedding
to them, so every image has two sentences of its own, and no name. Learnt tokens also go into every text block. The
sentences are compared with adapted patches (the raw map). Post-VCP lets them attend to the patches themselves and
compares them with those (the new map). The map is alpha * raw + (1 - alpha) * new, each the mean over layers; the
image score is the mean of the most anomalous pixels. In the ablation, alpha = 1 is Pre-VCP alone and alpha = 0
Post-VCP; training sums the losses of both in any case.

Weights: the authors publish files for ViT-L/14@336, one per training set.

The published weights depend on these properties of the code, which are kept: exact GELU on OpenAI's weights, attention
without the usual 1/sqrt scale, no deep tokens and no extra norm with `total_d_layer_len=0`, Dice over rows in a batch
of one image.

Deviation: `top_k` is scaled with the area, so that images of any size have a score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blemish.clip import Activation, Backbone, ImageFeatures, Request, Tap
from blemish.methods import configs
from blemish.methods.base import Method, Prediction, Training, class_token
from blemish.methods.configs import Config, ImageScore, require
from blemish.methods.linear_adapters import LinearAdapters, Start, linear_projection
from blemish.methods.losses import adapter_losses
from blemish.methods.ops import as_grid, cosine_logits, min_max, normalise, probability_map, smooth
from blemish.methods.registry import METHODS
from blemish.prompts import VCP_CLIP, PromptSet

M = TypeVar("M", bound=nn.Module)

#: Heads of Post-VCP's attention.
HEADS = 8
#: Sharpness of Post-VCP's attention where it starts at CLIP's projection: the factor of a cosine, shared by the heads.
SHARPNESS = 100.0


@dataclass(frozen=True, kw_only=True)
class VcpClipConfig(Config):
    """The config of VCP-CLIP; the defaults are those of its scripts for ViT-L/14@336, the names are the authors'."""

    activation: Activation = "gelu"
    image_score: ImageScore = "top"
    layers: tuple[int, ...] = (6, 12, 18, 24)
    """Tapped layers, from 1; -1 is the last."""
    prompt_len: int = 2
    """Number of tokens in place of the object's name."""
    deep_prompt_len: int = 1
    """Number of learnt tokens in each text block, after start-of-text."""
    total_d_layer_len: int = 11
    """Number of text blocks minus one, or 0 for no deep tokens."""
    use_global: bool = True
    """Whether the image adds to the tokens in place of the name; otherwise all images share two sentences."""
    dropout: float = 0.1
    """Dropout of the deep tokens in training."""
    alpha: float = 0.2
    """Weight of the raw map (Pre-VCP); the new map (Post-VCP) has 1 - alpha."""
    sigma: float = 8.0
    """Gaussian smoothing of the map, in pixels; 0 for none."""
    start: Start = "random"
    """Where training starts: the paper's random values, or values from CLIP, which need fewer images: adapters at its
    own projection, sentences about an "object", texts that attend to patches close to them."""
    top_k: int = 2000
    """Number of most anomalous pixels of each map that make the score, in an image of 518 x 518 pixels."""

    @property
    def image_scores(self) -> tuple[ImageScore, ...]:
        return "top", "map"

    def check(self) -> None:
        super().check()
        for name in ("prompt_len", "deep_prompt_len", "top_k"):
            require(getattr(self, name) >= 1, f"{name} has to be at least 1, not {getattr(self, name)}")
        require(0 <= self.dropout < 1, f"dropout has to be at least 0 and less than 1, not {self.dropout}")
        require(0 <= self.alpha <= 1, f"alpha has to be between 0 and 1, not {self.alpha}")


class VCPCLIP(Method):
    """Two sentences for each image, and two maps."""

    info = METHODS["vcp-clip"]
    Config: ClassVar[type[VcpClipConfig]] = VcpClipConfig
    # As for the weights trained on VisA; those on MVTec AD were trained with half of this learning rate.
    TRAINING = Training(epochs=10, batch_size=32, lr=4e-5, betas=(0.5, 0.999))
    TEMPERATURE_LR: ClassVar[float] = 0.01
    PAPER_SIZE: ClassVar[int] = 518
    PROMPTS: ClassVar[PromptSet] = VCP_CLIP

    backbone: Backbone
    config: VcpClipConfig

    def __init__(self, backbone: Backbone, config: VcpClipConfig | None = None) -> None:
        super().__init__(backbone, config)
        c, blocks, width = self.config, backbone.text_layers, backbone.text_width
        require(
            width == backbone.embed_dim,
            f"vcp-clip needs a backbone whose text tower is as wide as its joint space, not {width} and "
            f"{backbone.embed_dim}",
        )
        require(
            backbone.width % HEADS == 0, f"vcp-clip needs an image width that {HEADS} divides, not {backbone.width}"
        )
        require(
            c.total_d_layer_len in (0, blocks - 1),
            f"total_d_layer_len has to be 0 or {blocks - 1} on this backbone, not {c.total_d_layer_len}",
        )
        self.layers = configs.resolve_layers(c.layers, backbone.layers)
        self._normal = len(self.PROMPTS.sentences("{}")[0])
        self._ids, self._name_positions, self._end = self._sentences()
        # Indices of the sentences by the position of the name and of the end, which go through the text tower together.
        self._groups: dict[tuple[int, int], list[int]] = {}
        for index, key in enumerate(zip(self._name_positions[:, 0].tolist(), self._end.tolist(), strict=True)):
            self._groups.setdefault(key, []).append(index)
        grouped = [index for indices in self._groups.values() for index in indices]
        self._order = sorted(range(len(grouped)), key=grouped.__getitem__)
        longest = self._ids.shape[1] + (c.deep_prompt_len if c.total_d_layer_len else 0)
        configs.at_most(longest, backbone.context, "prompt_len and deep_prompt_len: a sentence of", "text positions")
        self.pre = PreContext(c.prompt_len, width, c.use_global)
        self.deep = DeepPrompts(blocks, c.deep_prompt_len, width, c.dropout) if c.total_d_layer_len else None
        self.linear = LinearAdapters(len(self.layers), backbone.width, width)
        self.post = PostContext(width, backbone.width)
        self.raw_scale, self.new_scale = nn.Parameter(torch.empty(())), nn.Parameter(torch.empty(()))
        self.reset()

    def reset(self, seed: int = 0) -> None:
        """Set the learnt parts to the config's start, drawn as in the code; both scales start at ln(1 / 0.07)."""
        generator = torch.Generator().manual_seed(seed)
        for part in (self.pre, self.deep, self.linear, self.post):
            if part is not None:
                part.reset(generator)
        if self.config.start == "projection":
            ids = self.backbone.tokenize(["object"])
            self.pre.init_from_tokens(self.backbone.embed(ids[0, 1 : int(self.backbone.end_of_text(ids))]))
            self.linear.init_from_projection(self.backbone)
            self.post.init_from_projection(linear_projection(self.backbone))
            if self.deep is not None:
                self.deep.init_zero()
        for scale in (self.raw_scale, self.new_scale):
            nn.init.constant_(scale, math.log(1 / 0.07))

    def optimizer(self, *, lr: float | None = None, betas: tuple[float, float] | None = None) -> torch.optim.Optimizer:
        """Return Adam without decay; the two scales have a learning rate of their own, 0.01."""
        optimizer = super().optimizer(lr=lr, betas=betas)
        scales, group = [self.raw_scale, self.new_scale], optimizer.param_groups[0]
        group["params"] = [p for p in group["params"] if all(p is not scale for scale in scales)]
        optimizer.add_param_group({"params": scales, "lr": self.TEMPERATURE_LR})
        return optimizer

    @property
    def request(self) -> Request:
        return Request(frozenset(Tap(layer) for layer in self.layers))

    @property
    def map_range(self) -> tuple[float, float]:
        return 0.0, 1.0

    @property
    def reads_pictures(self) -> bool:
        return self.config.use_global

    # the text side

    def _sentences(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return token ids (T, n), normal sentences first, positions of the name (T, r) and of the end token (T,)."""
        rows, starts = [], []
        for sentence in [sentence for group in self.PROMPTS.sentences("{}") for sentence in group]:
            # Both sides of the name are tokenized separately, since the name is no word.
            sides = self.backbone.tokenize([side.strip() for side in sentence.split("{}")])
            ends = self.backbone.end_of_text(sides).tolist()
            start, rest = sides[0, : ends[0]], sides[1, 1 : ends[1] + 1]
            rows.append(torch.cat([start, start.new_zeros(self.config.prompt_len), rest]))
            starts.append(len(start))
        end = torch.tensor([len(row) - 1 for row in rows])
        positions = torch.tensor(starts).unsqueeze(1) + torch.arange(self.config.prompt_len)
        return nn.utils.rnn.pad_sequence(rows, batch_first=True), positions, end

    def names(self, features: ImageFeatures) -> Tensor:
        """Return the tokens in place of the object's name in each image's sentences: (B, r, Wt)."""
        names: Tensor = self.pre(self.backbone.project(class_token(features).float()))
        return names

    def prompts(self, names: Tensor) -> tuple[Tensor, Tensor]:
        """Put each of the names (B, r, Wt) into every sentence.

        Returns:
            Token embeddings without positions, (T * B, n, Wt), beginning with the first sentence with all names, and
            the end positions, (T * B,).
        """
        words = self.backbone.embed(self._ids).unsqueeze(2).repeat(1, 1, len(names), 1)
        words[torch.arange(len(words)).unsqueeze(1), self._name_positions] = names.transpose(0, 1).to(words.dtype)
        return words.transpose(1, 2).flatten(0, 1), self._end.repeat_interleave(len(names))

    def sentence_features(self, names: Tensor, *, learning: bool = False) -> Tensor:
        """Return the mean of the normal and of the anomalous sentences with each of the names: (B, 2, E), normalised.

        Args:
            names: (B, r, Wt), from `names`.
            learning: Apply dropout, if the method is in training mode.
        """
        # Without dropout the tokens before the name are the same for all images, and go through the text tower once.
        if learning and self.training and self.config.dropout > 0:
            embeddings, ends = self.prompts(names)
            raw = self.backbone.encode_text(embeddings=embeddings, end=ends, **self._options(len(embeddings), learning))
            raw = raw.view(-1, len(names), raw.shape[-1])
        else:
            parts = []
            for (name, end), rows in self._groups.items():
                words = self.backbone.embed(self._ids[rows, : end + 1])
                after = words[:, None, name + names.shape[1] :].expand(-1, names.shape[0], -1, -1)
                rest = torch.cat([names.to(words.dtype).expand(len(rows), -1, -1, -1), after], dim=2)
                parts.append(self.backbone.encode_endings(words[:, :name], rest, **self._options(len(rows), learning)))
            raw = torch.cat(parts)[self._order]
        units = normalise(raw)
        return normalise(torch.stack([part.mean(dim=0) for part in units.tensor_split([self._normal])], dim=1))

    def _options(self, sentences: int, learning: bool) -> dict[str, Any]:
        """Return the arguments of the text tower for a number of sentences."""
        options: dict[str, Any] = {"activation": self.config.activation}
        if self.deep is None:
            return options
        inserted, *deep = self.deep(sentences, learning=learning)
        return {**options, "inserted": inserted, "deep": deep, "before_norm": self.deep.norm}

    def text_features(self, object_names: Sequence[str]) -> Tensor:
        """Return the sentences before an image adds to them, the same for every object: (C, 2, E)."""
        return self.sentence_features(self.pre.query.unsqueeze(0)).expand(len(object_names), -1, -1)

    # the maps

    def tokens(self, features: ImageFeatures) -> list[Tensor]:
        """Return the class token and the patches of each tapped layer: (B, 1 + N, D) each, raw."""
        return [features.taps[Tap(layer)].float() for layer in self.layers]

    def raw_logits(self, features: ImageFeatures, text: Tensor) -> list[Tensor]:
        """Compare the adapted patches of each layer with the texts (B, 2, E): (B, N, 2) each."""
        adapted: list[Tensor] = self.linear([tokens[:, 1:] for tokens in self.tokens(features)])
        return [self.raw_scale.exp() * cosine_logits(patches, text, 1.0) for patches in adapted]

    def attended_texts(self, features: ImageFeatures, text: Tensor) -> list[Tensor]:
        """Let the texts (B, 2, E) attend to each layer's patches: (B, 2, D) each, normalised."""
        return [self.post(text, tokens) for tokens in self.tokens(features)]

    def new_logits(self, features: ImageFeatures, text: Tensor) -> list[Tensor]:
        """Compare the patches of each layer with the texts (B, 2, E) that attended to them: (B, N, 2) each."""
        pairs = zip(self.tokens(features), self.attended_texts(features, text), strict=True)
        return [self.new_scale.exp() * cosine_logits(tokens, attended, 1.0)[:, 1:] for tokens, attended in pairs]

    def layer_maps(self, features: ImageFeatures, text: Tensor) -> tuple[Tensor, Tensor]:
        """Return the raw and the new map of every layer for texts (B, 2, E): (layers, B, S, S) in [0, 1] each."""
        raw, new = (
            torch.stack([probability_map(layer, features.grid, self.config.size) for layer in logits])
            for logits in (self.raw_logits(features, text), self.new_logits(features, text))
        )
        return raw, new

    # scores and losses

    @property
    def top_pixels(self) -> int:
        """Number of pixels of each map that make the score: `top_k`, scaled from the paper's area to this one."""
        area = self.config.size**2
        return min(area, max(1, round(self.config.top_k * area / self.PAPER_SIZE**2)))

    def score(self, features: ImageFeatures, text: Tensor) -> Prediction:
        """Score a batch by the most anomalous pixels of the raw and of the new map before smoothing.

        Args:
            features: As for every method.
            text: (2, E) or (B, 2, E); used only with `use_global=False`, since otherwise each image makes its own
            texts.
        """
        tokens = features.taps[Tap(self.layers[0])]
        with torch.autocast(tokens.device.type, enabled=False):
            if self.config.use_global:
                text = self.sentence_features(self.names(features))
            both = self.layer_maps(features, text.float().expand(tokens.shape[0], -1, -1))
        raw, new = (maps.mean(dim=0) for maps in both)
        maps = smooth(self.config.alpha * raw + (1 - self.config.alpha) * new, self.config.sigma)
        if self.config.image_score == "map":
            return self.prediction(None, maps)
        return Prediction((top_mean(raw, self.top_pixels) + top_mean(new, self.top_pixels)) / 2, maps)

    def set_scores(self, scores: Tensor) -> Tensor:
        """Return the code's image scores of all test images of one object.

        Args:
            scores: (n,), from `score`. They are half of the code's, which makes no difference here.

        Returns:
            (n,), stretched to [0, 1] over the set; nan where all are equal.
        """
        return min_max(scores)

    def loss(
        self, features: ImageFeatures, masks: Tensor, labels: Tensor, object_names: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """Return the focal and the Dice loss of the raw and of the new map of every layer, all with weight 1.

        "focal_raw", "dice_raw", "focal_new" and "dice_new" are (layers,); "raw", "new" and "total" are sums, ().
        """
        text = self.sentence_features(self.names(features), learning=True)
        losses: dict[str, Tensor] = {}
        for branch, logits in (("raw", self.raw_logits(features, text)), ("new", self.new_logits(features, text))):
            part = adapter_losses([as_grid(p[..., 1] - p[..., 0], features.grid) for p in logits], masks)
            losses |= {f"focal_{branch}": part["focal"], f"dice_{branch}": part["dice"], branch: part["total"]}
        return {**losses, "total": losses["raw"] + losses["new"]}


def top_mean(maps: Tensor, count: int) -> Tensor:
    """Return the mean of the `count` greatest pixels of each map: (B, H, W) to (B,)."""
    return maps.flatten(1).topk(count).values.mean(dim=1)


# the learnt parts; they are made without drawing numbers, and `reset` draws them


class PreContext(nn.Module):
    """Pre-VCP: r tokens in place of the object's name, to which the image adds a convolution of its embedding.

    Args:
        length: Number r of tokens.
        width: Width Wt of the text tower and of the image embedding.
        use_global: Whether the image adds anything.
    """

    def __init__(self, length: int, width: int, use_global: bool) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.empty(length, width))
        # The embedding is a sequence of Wt numbers to the convolution; each output channel is a token.
        self.conv = _uninitialised(nn.Conv1d(1, length, 3, padding=1, device="meta")) if use_global else None

    def reset(self, generator: torch.Generator) -> None:
        if self.conv is not None:
            _uniform(self.conv, generator)
        nn.init.trunc_normal_(self.query, generator=generator)

    def init_from_tokens(self, tokens: Tensor) -> None:
        """Set the tokens to the embeddings of a word's tokens (n, Wt), to which the image adds nothing."""
        rows = torch.arange(len(self.query)).clamp_max(len(tokens) - 1)
        with torch.no_grad():
            self.query.copy_(tokens[rows])
        if self.conv is not None:
            _zero(self.conv)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Map image embeddings (B, Wt), not normalised, to tokens (B, r, Wt)."""
        if self.conv is None:
            return self.query.expand(embeddings.shape[0], -1, -1)
        tokens: Tensor = self.query + self.conv(embeddings.unsqueeze(1))
        return tokens


class DeepPrompts(nn.Module):
    """Learnt tokens for every text block, (blocks, n, Wt), their common projection, and a norm after the last block."""

    def __init__(self, blocks: int, length: int, width: int, dropout: float) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.empty(blocks, length, width))
        self.projection = _uninitialised(nn.Linear(width, width, device="meta"))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.dropout = nn.Dropout(dropout)

    def reset(self, generator: torch.Generator) -> None:
        _uniform(self.projection, generator)
        nn.init.kaiming_normal_(self.projection.weight, mode="fan_out", generator=generator)
        nn.init.uniform_(self.tokens, -1, 1, generator=generator)
        self.norm.reset_parameters()

    def init_zero(self) -> None:
        """Set the projection to zero, so that the tokens hardly disturb the sentences."""
        _zero(self.projection)

    def forward(self, sentences: int, *, learning: bool = False) -> Tensor:
        """Return the tokens of T sentences: (blocks, T, n, Wt), with a dropout of their own if `learning`."""
        tokens: Tensor = self.projection(self.tokens).unsqueeze(1).expand(-1, sentences, -1, -1)
        if learning:
            tokens = self.dropout(tokens)
        return tokens


class PostContext(nn.Module):
    """Post-VCP: the texts attend to the patches and become vectors of the patches' width.

    With texts t, patches x_j of length 1, and learnt linear maps Q, K, V and O, each of the heads computes

        a_j = softmax_j(Q t . K x_j),  z = sum_j a_j V x_j,

    and the result is O z of all heads, normalised. There is no 1/sqrt scale.
    """

    def __init__(self, embed_dim: int, width: int) -> None:
        super().__init__()
        self.query = _uninitialised(nn.Linear(embed_dim, width, device="meta"))
        self.key = _uninitialised(nn.Linear(width, width, device="meta"))
        self.value = _uninitialised(nn.Linear(width, width, device="meta"))
        self.out = _uninitialised(nn.Linear(width, width, device="meta"))

    def reset(self, generator: torch.Generator) -> None:
        for module in self.children():
            _uniform(module, generator)

    def init_from_projection(self, projection: Tensor) -> None:
        """Let the texts attend to patches close to them in the joint space, and become a mean of those.

        Args:
            projection: (E, D), from `linear_projection`.
        """
        with torch.no_grad():
            self.query.weight.copy_(SHARPNESS * projection.T / torch.linalg.matrix_norm(projection, 2))
            for module in (self.key, self.value, self.out):
                nn.init.eye_(module.weight)
            for module in (self.query, self.key, self.value, self.out):
                nn.init.zeros_(module.bias)

    def forward(self, text: Tensor, tokens: Tensor) -> Tensor:
        """Let the texts attend to the patches.

        There are two queries and hundreds of patches. So K and V are applied to the queries and to the mixture, and
        not to each patch: Q t . (K x + b) = (K^T Q t) . x + Q t . b, and sum_j a_j (V x_j + c) = V (sum_j a_j x_j) + c.

        Args:
            text: (B, 2, E), normalised.
            tokens: (B, 1 + N, D), raw; the class token comes first and is left out.

        Returns:
            (B, 2, D), normalised.
        """
        batch, states, width = *text.shape[:2], tokens.shape[-1]
        key, value = (weight.view(HEADS, -1, width) for weight in (self.key.weight, self.value.weight))
        # The heads come first, since they have weights of their own: (heads, B * 2, ...).
        queries = self.query(text).view(batch * states, HEADS, -1).transpose(0, 1)
        constant = queries @ self.key.bias.view(HEADS, -1, 1)
        key_queries, constant = (
            x.view(HEADS, batch, states, -1).transpose(0, 1).flatten(1, 2) for x in (queries @ key, constant)
        )
        lengths = torch.linalg.vector_norm(tokens, dim=-1)[:, None, 1:]
        logits = (key_queries @ tokens.mT)[..., 1:] / lengths + constant
        # The class token has the weight 0.
        attention = F.pad(logits.softmax(dim=-1) / lengths, (1, 0))
        mixed = (attention @ tokens).view(batch, HEADS, states, width).transpose(0, 1).flatten(1, 2)
        values = mixed @ value.mT + self.value.bias.view(HEADS, 1, -1)
        return normalise(self.out(values.transpose(0, 1).reshape(batch, states, width)))


def _uninitialised(module: M) -> M:
    """Return a module made on the meta device: on a real one PyTorch would draw from its global random state."""
    return module.to_empty(device="cpu")


def _zero(module: nn.Module) -> None:
    for parameter in module.parameters():
        nn.init.zeros_(parameter)


def _uniform(module: nn.Module, generator: torch.Generator) -> None:
    """Draw weight and bias as PyTorch does for linear and convolution layers."""
    bound = module.get_parameter("weight")[0].numel() ** -0.5
    for parameter in module.parameters():
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
