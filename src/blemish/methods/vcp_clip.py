"""VCP-CLIP: visual context prompting (Qu et al., ECCV 2024, https://arxiv.org/abs/2407.12276).

Code: https://github.com/xiaozhen228/VCP-CLIP. Where a sentence would name the object stand learnt tokens, to which the
picture adds a convolution of its own embedding (Pre-VCP); so every picture has two sentences of its own, and no name.
Learnt tokens also go into every text block. The sentences are compared with adapted patches (the raw map) and, after
attending to the patches themselves (Post-VCP), with those (the new map). In the ablation `alpha=1` is Pre-VCP alone,
`alpha=0` Post-VCP; training sums the losses of both all the same.

Weights: the authors' files for ViT-L/14@336, one per training set; `load_official` takes them.

Reproduced, since published weights were learnt with it: exact GELU on OpenAI's weights, attention without the usual
1/sqrt scale, no deep tokens and no extra norm with `total_d_layer_len=0`, Dice over rows in a batch of one picture.
Deviation from the code: `top_k` is scaled with the area, so that pictures of any size have a score.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from blemish.clip import Activation, Backbone, ImageFeatures, Request, Tap
from blemish.methods import configs, vcp_clip_official
from blemish.methods.adapters import LinearAdapters, Start, linear_projection
from blemish.methods.base import Method, Prediction, Training, class_token
from blemish.methods.catalogue import CATALOGUE
from blemish.methods.configs import Config, ImageScore, require
from blemish.methods.losses import adapter_losses
from blemish.methods.maps import as_grid, cosine_logits, min_max, normalise, probability_map, smooth
from blemish.methods.vcp_clip_parts import HEADS, DeepPrompts, PostContext, PreContext
from blemish.prompts import PromptSet
from blemish.prompts.vcp_clip import GOOD_DAMAGED


@dataclass(frozen=True, kw_only=True)
class VcpClipConfig(Config):
    """What VCP-CLIP leaves open; the defaults are its scripts' for ViT-L/14@336, the names the authors'."""

    activation: Activation = "gelu"
    image_score: ImageScore = "top"
    layers: tuple[int, ...] = (6, 12, 18, 24)
    """Tapped layers, from 1; -1 is the last."""
    prompt_len: int = 2
    """Tokens that stand for the object's name."""
    deep_prompt_len: int = 1
    """Learnt tokens in each text block, after start-of-text."""
    total_d_layer_len: int = 11
    """One less than the text blocks, or 0 for no deep tokens."""
    use_global: bool = True
    """Whether the picture adds to the tokens that stand for its name; without, all pictures share two sentences."""
    dropout: float = 0.1
    """Of the deep tokens, in training."""
    alpha: float = 0.2
    """Weight of the raw map (Pre-VCP); the new map (Post-VCP) gets the rest."""
    sigma: float = 8.0
    """Gaussian smoothing of the map, in pixels; 0 for none."""
    start: Start = "random"
    """Where training starts: the paper's random values, or what CLIP gives by itself, with which few pictures suffice:
    adapters at its own projection, sentences about an "object", texts that attend to the patches near them."""
    top_k: int = 2000
    """How many of each map's most anomalous pixels make the score, in a picture of 518 x 518 pixels."""

    @property
    def image_scores(self) -> tuple[ImageScore, ...]:
        return "top", "map"

    def check(self) -> None:
        super().check()
        for name in ("prompt_len", "deep_prompt_len", "top_k"):
            require(getattr(self, name) >= 1, f"{name} has to be at least 1, not {getattr(self, name)}")
        require(0 <= self.dropout < 1, f"dropout has to be at least 0 and less than 1, not {self.dropout}")
        require(0 <= self.alpha <= 1, f"alpha has to be between 0 and 1, not {self.alpha}")
        require(self.sigma >= 0, f"sigma must not be negative, not {self.sigma}")


class VCPCLIP(Method):
    """Two sentences that have seen their picture, and two maps."""

    info = CATALOGUE["vcp-clip"]
    Config: ClassVar[type[VcpClipConfig]] = VcpClipConfig
    BUILTIN: ClassVar[VcpClipConfig] = VcpClipConfig(
        size=336,
        activation="checkpoint",
        layers=(8,),
        prompt_len=1,
        total_d_layer_len=3,
        dropout=0.0,
        alpha=0.8,
        sigma=3.0,
        start="projection",
    )
    # for the weights trained on VisA; those on MVTec AD were trained with half of this learning rate
    TRAINING = Training(epochs=10, batch_size=32, lr=4e-5, betas=(0.5, 0.999))
    BUILTIN_TRAINING = Training(epochs=5, batch_size=16, lr=2e-6, betas=(0.5, 0.999))
    TEMPERATURE_LR: ClassVar[float] = 0.01
    PAPER_SIZE: ClassVar[int] = 518
    PROMPTS: ClassVar[PromptSet] = GOOD_DAMAGED

    config: VcpClipConfig

    def __init__(self, backbone: Backbone, config: VcpClipConfig | None = None) -> None:
        super().__init__(backbone, config)
        r, blocks, width = self.config, backbone.text_layers, backbone.text_width
        require(
            width == backbone.embed_dim,
            f"vcp-clip needs a backbone whose text tower is as wide as its joint space, not {width} and "
            f"{backbone.embed_dim}",
        )
        require(
            backbone.width % HEADS == 0, f"vcp-clip needs an image width that {HEADS} divides, not {backbone.width}"
        )
        require(
            r.total_d_layer_len in (0, blocks - 1),
            f"total_d_layer_len has to be 0 or {blocks - 1} on this backbone, not {r.total_d_layer_len}",
        )
        self.layers = configs.resolve_layers(r.layers, backbone.layers)
        self._normal = len(self.PROMPTS.sentences("{}")[0])
        self._ids, self._places, self._end = self._sentences()
        # the numbers of the sentences in which the name stands at the same place, and that end together
        self._alike: dict[tuple[int, int], list[int]] = {}
        for number, where in enumerate(zip(self._places[:, 0].tolist(), self._end.tolist(), strict=True)):
            self._alike.setdefault(where, []).append(number)
        grouped = [number for numbers in self._alike.values() for number in numbers]
        self._order = sorted(range(len(grouped)), key=grouped.__getitem__)
        longest = self._ids.shape[1] + (r.deep_prompt_len if r.total_d_layer_len else 0)
        configs.at_most(longest, backbone.context, "prompt_len and deep_prompt_len: a sentence of", "text positions")
        self.pre = PreContext(r.prompt_len, width, r.use_global)
        self.deep = DeepPrompts(blocks, r.deep_prompt_len, width, r.dropout) if r.total_d_layer_len else None
        self.linear = LinearAdapters(len(self.layers), backbone.width, width)
        self.post = PostContext(width, backbone.width)
        self.raw_scale, self.new_scale = nn.Parameter(torch.empty(())), nn.Parameter(torch.empty(()))
        self.reset()

    def reset(self, seed: int = 0) -> None:
        """Sets the learnt parts to the config's start, drawn as the code does; both scales start at ln(1 / 0.07)."""
        generator = torch.Generator().manual_seed(seed)
        for part in (self.pre, self.deep, self.linear, self.post):
            if part is not None:
                part.reset(generator)
        if self.config.start == "projection":
            ids = self.backbone.tokenize(["object"])
            self.pre.stand_for(self.backbone.embed(ids[0, 1 : int(self.backbone.end_of_text(ids))]))
            self.linear.follow(self.backbone)
            self.post.follow(linear_projection(self.backbone))
            if self.deep is not None:
                self.deep.say_nothing()
        for scale in (self.raw_scale, self.new_scale):
            nn.init.constant_(scale, math.log(1 / 0.07))

    def optimizer(self, *, lr: float | None = None, betas: tuple[float, float] | None = None) -> torch.optim.Optimizer:
        """Adam without decay; the two scales have a learning rate of their own, 0.01."""
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
        """Token numbers (T, n), normal sentences first; the places of the name (T, r); the end tokens (T,)."""
        rows, starts = [], []
        for sentence in [sentence for group in self.PROMPTS.sentences("{}") for sentence in group]:
            # either side of the name by itself, since the name is no word that the tokenizer knows
            sides = self.backbone.tokenize([side.strip() for side in sentence.split("{}")])
            ends = self.backbone.end_of_text(sides).tolist()
            start, rest = sides[0, : ends[0]], sides[1, 1 : ends[1] + 1]
            rows.append(torch.cat([start, start.new_zeros(self.config.prompt_len), rest]))
            starts.append(len(start))
        end = torch.tensor([len(row) - 1 for row in rows])
        places = torch.tensor(starts).unsqueeze(1) + torch.arange(self.config.prompt_len)
        return nn.utils.rnn.pad_sequence(rows, batch_first=True), places, end

    def names(self, features: ImageFeatures) -> Tensor:
        """What stands for the object's name in each picture's sentences: (B, r, Wt)."""
        names: Tensor = self.pre(self.backbone.project(class_token(features).float()))
        return names

    def prompts(self, names: Tensor) -> tuple[Tensor, Tensor]:
        """Every sentence with each of the names (B, r, Wt), as token embeddings without positions.

        Returns:
            (T * B, n, Wt), the first sentence with all names first, and where they end, (T * B,).
        """
        words = self.backbone.embed(self._ids).unsqueeze(2).repeat(1, 1, len(names), 1)
        words[torch.arange(len(words)).unsqueeze(1), self._places] = names.transpose(0, 1).to(words.dtype)
        return words.transpose(1, 2).flatten(0, 1), self._end.repeat_interleave(len(names))

    def sentence_features(self, names: Tensor, *, learning: bool = False) -> Tensor:
        """The means of the normal and of the anomalous sentences with each of the names: (B, 2, E), normalised.

        `learning`: with the dropout of training, if the method is in training mode. Without it, what comes before the
        names is the same for all pictures, and goes through the text tower once.
        """
        if learning and self.training and self.config.dropout > 0:
            embeddings, ends = self.prompts(names)
            raw = self.backbone.encode_text(embeddings=embeddings, end=ends, **self._options(len(embeddings), learning))
            raw = raw.view(-1, len(names), raw.shape[-1])
        else:
            parts = []
            for (name, end), rows in self._alike.items():
                words = self.backbone.embed(self._ids[rows, : end + 1])
                after = words[:, None, name + names.shape[1] :].expand(-1, names.shape[0], -1, -1)
                rest = torch.cat([names.to(words.dtype).expand(len(rows), -1, -1, -1), after], dim=2)
                parts.append(self.backbone.encode_endings(words[:, :name], rest, **self._options(len(rows), learning)))
            raw = torch.cat(parts)[self._order]
        units = normalise(raw)
        return normalise(torch.stack([part.mean(dim=0) for part in units.tensor_split([self._normal])], dim=1))

    def _options(self, sentences: int, learning: bool) -> dict[str, Any]:
        """What the text tower is told besides so many sentences."""
        options: dict[str, Any] = {"activation": self.config.activation}
        if self.deep is None:
            return options
        inserted, *deep = self.deep(sentences, learning=learning)
        return {**options, "inserted": inserted, "deep": deep, "before_norm": self.deep.norm}

    def text_features(self, object_names: Sequence[str]) -> Tensor:
        """The sentences as they are before a picture adds to them, the same for every object: (C, 2, E)."""
        return self.sentence_features(self.pre.query.unsqueeze(0)).expand(len(object_names), -1, -1)

    # the maps

    def tokens(self, features: ImageFeatures) -> list[Tensor]:
        """The class token and the patches of each tapped layer: (B, 1 + N, D) each, raw."""
        return [features.taps[Tap(layer)].float() for layer in self.layers]

    def raw_logits(self, features: ImageFeatures, text: Tensor) -> list[Tensor]:
        """Adapted patches against the texts (B, 2, E), for each layer: (B, N, 2) each."""
        adapted: list[Tensor] = self.linear([tokens[:, 1:] for tokens in self.tokens(features)])
        return [self.raw_scale.exp() * cosine_logits(patches, text, 1.0) for patches in adapted]

    def seen_texts(self, features: ImageFeatures, text: Tensor) -> list[Tensor]:
        """The texts (B, 2, E) after attending to each layer's patches: (B, 2, D) each, normalised."""
        return [self.post(text, tokens) for tokens in self.tokens(features)]

    def new_logits(self, features: ImageFeatures, text: Tensor) -> list[Tensor]:
        """Patches against the texts (B, 2, E) that have attended to them, for each layer: (B, N, 2) each."""
        pairs = zip(self.tokens(features), self.seen_texts(features, text), strict=True)
        return [self.new_scale.exp() * cosine_logits(tokens, seen, 1.0)[:, 1:] for tokens, seen in pairs]

    def layer_maps(self, features: ImageFeatures, text: Tensor) -> tuple[Tensor, Tensor]:
        """The raw and the new map of every layer, for texts (B, 2, E): (layers, B, S, S) in [0, 1] each."""
        raw, new = (
            torch.stack([probability_map(layer, features.grid, self.config.size) for layer in logits])
            for logits in (self.raw_logits(features, text), self.new_logits(features, text))
        )
        return raw, new

    # scores and losses

    @property
    def top_pixels(self) -> int:
        """How many pixels of each map make the score: `top_k`, scaled from the paper's area to this one."""
        area = self.config.size**2
        return min(area, max(1, round(self.config.top_k * area / self.PAPER_SIZE**2)))

    def score(self, features: ImageFeatures, text: Tensor) -> Prediction:
        """Scores a batch: the mean of the most anomalous pixels of the raw and of the new map, before smoothing.

        Args:
            features: as for every method.
            text: (2, E) or (B, 2, E); only used with `use_global=False`, else each picture makes its own texts here.
        """
        pictures = features.taps[Tap(self.layers[0])]
        with torch.autocast(pictures.device.type, enabled=False):
            if self.config.use_global:
                text = self.sentence_features(self.names(features))
            both = self.layer_maps(features, text.float().expand(pictures.shape[0], -1, -1))
        raw, new = (maps.mean(dim=0) for maps in both)
        maps = smooth(self.config.alpha * raw + (1 - self.config.alpha) * new, self.config.sigma)
        if self.config.image_score == "map":
            return self.prediction(None, maps)
        return Prediction((top_mean(raw, self.top_pixels) + top_mean(new, self.top_pixels)) / 2, maps)

    def set_scores(self, scores: Tensor) -> Tensor:
        """The code's image scores for all test pictures of one object; its maps are stretched in the same way.

        Args:
            scores: (n,), from `score`: half of the code's sums, which makes no difference here.

        Returns:
            (n,) stretched to [0, 1] over the set, nan where all are equal.
        """
        return min_max(scores)

    def loss(
        self, features: ImageFeatures, masks: Tensor, labels: Tensor, object_names: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """Focal and Dice loss on the raw and on the new map of every layer, all of the same weight.

        "focal_raw", "dice_raw", "focal_new" and "dice_new" are (layers,); "raw", "new" and "total" are sums, ().
        """
        text = self.sentence_features(self.names(features), learning=True)
        raw = [self.raw_scale.exp() * c for c in self.linear.differences(self.tokens(features), text)]
        new = [both[..., 1] - both[..., 0] for both in self.new_logits(features, text)]
        losses: dict[str, Tensor] = {}
        for branch, layers in (("raw", raw), ("new", new)):
            found = adapter_losses([as_grid(layer, features.grid) for layer in layers], masks)
            losses |= {f"focal_{branch}": found["focal"], f"dice_{branch}": found["dice"], branch: found["total"]}
        return {**losses, "total": losses["raw"] + losses["new"]}

    # the authors' files

    @classmethod
    def official_config(cls, state: Mapping[str, Any], config: VcpClipConfig) -> VcpClipConfig:
        return configs.change(config, vcp_clip_official.sizes(state))

    def load_official(self, state: Mapping[str, Any]) -> None:
        self.load_state_dict(vcp_clip_official.read(state, self.state_dict()))


def top_mean(maps: Tensor, count: int) -> Tensor:
    """The mean of the `count` greatest pixels of each map: (B, H, W) to (B,)."""
    return maps.flatten(1).topk(count).values.mean(dim=1)
