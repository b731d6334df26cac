"""CoOp as a zero-shot anomaly detector: learnt context before the object's name.

CoOp is by Zhou et al., IJCV 2022, https://arxiv.org/abs/2109.01134; code: https://github.com/KaiyangZhou/CoOp.
AnomalyCLIP (ICLR 2024, https://arxiv.org/abs/2310.18961) made it a baseline with the prompts "[V1]..[Vn] normal X." and
"[V1]..[Vn] anomalous X.". Nothing but the context is learnt, from the label of the whole picture; the image side is
plain CLIP. Nobody published that baseline's code: prompts, loss and training are CoOp's, what it has no word on is here
as for `clip` (the score, and a map of the last block's patches, which is known to be a weak one).

Weights: none are published for anomalies; `load_official` takes the `model.pth.tar-N` that CoOp's code writes, as far
as its tensors go (files that also hold the scheduler as a Python object are refused where they are read).

One context serves all objects, or there is one for normal and one for anomalous (`per_state`), or, as in CoOp's
class-specific contexts (CSC, the paper's section 3.1), each object of the training has its own (`classes`, with
`per_state` one for each of its two phrases, which is what CoOp's code makes of these prompts). Those do not carry over:
such a method scores the objects that it knows.

Deviations from CoOp: float32 instead of half precision; pictures are squashed to a square, because its random crops cut
defects away and leave the label; all tokens of `ctx_init` are learnt, not as many as it has words, and where there are
several contexts each starts from them (CoOp then falls back to a single one). Kept: the first epoch of training is a
warm-up with a learning rate so small that hardly anything is learnt.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blemish.clip import Backbone, ImageFeatures, PositionMode, Request, Tap
from blemish.errors import WeightsError
from blemish.methods import configs, weights
from blemish.methods.base import Method, Prediction, Training, class_token
from blemish.methods.catalogue import CATALOGUE
from blemish.methods.configs import Config, require
from blemish.methods.maps import anomalous_probability, as_grid, cosine_logits, normalise, upsample_smoothly
from blemish.prompts.coop import PHRASES


@dataclass(frozen=True, kw_only=True)
class CoOpConfig(Config):
    """What CoOp leaves open; the defaults are its own and AnomalyCLIP's."""

    position: PositionMode = "bilinear"
    phrases: tuple[str, str] = PHRASES
    """Normal and anomalous; `{}` is the object's name. AnomalyCLIP's own prompts would be "{}" and "damaged {}"."""
    n_ctx: int = 16
    """Learnt tokens."""
    ctx_init: str = ""
    """Words to start from ("a photo of a") in place of random numbers; they set `n_ctx`."""
    classes: tuple[str, ...] = ()
    """Objects that have a context of their own (CoOp's CSC), in its order; no others can then be trained or scored."""
    per_state: bool = False
    """A context of its own for each of the two phrases: of all objects, or of each of `classes`."""
    name_position: Literal["end", "middle", "front"] = "end"
    """Where the phrase stands in the context."""
    temperature: float | None = None
    """None: the checkpoint's own, 0.01 for OpenAI's."""
    sigma: float = 0.0
    """Gaussian smoothing of the map, in pixels; 0 for none."""
    momentum: float = 0.9
    """Of the training; so is the weight decay, which is added to the gradient."""
    weight_decay: float = 5e-4

    def check(self) -> None:
        super().check()
        require(all("{}" in phrase for phrase in self.phrases), f"each phrase needs a {{}}, not {self.phrases}")
        known = [_plain(name) for name in self.classes]
        require(all(known) and len({*known}) == len(known), f"classes have to be different names, not {self.classes}")
        require(self.n_ctx >= 1, f"n_ctx has to be at least 1, not {self.n_ctx}")
        require(self.temperature is None or self.temperature > 0, "temperature has to be greater than 0")
        require(self.sigma >= 0, f"sigma must not be negative, not {self.sigma}")
        require(0 <= self.momentum < 1, f"momentum lies between 0 and 1, not at {self.momentum}")
        require(self.weight_decay >= 0, f"weight_decay must not be negative, not {self.weight_decay}")


class _Phrase(NamedTuple):
    """A phrase with full stop, start, end and padding, (context - n_ctx, Wt), and how a prompt is made of it."""

    words: Tensor
    order: Tensor
    """(context,): what stands at each place, counted through the learnt context first and then the words."""
    end: int
    """The place of the end token."""


class CoOp(Method):
    """Learnt context: `context` (n_ctx, Wt).

    With `per_state`, `classes` or both, one for each: (2, n_ctx, Wt), (classes, n_ctx, Wt) or (2 classes, n_ctx, Wt),
    those of an object beside each other, normal first.
    """

    info = CATALOGUE["coop"]
    Config: ClassVar[type[CoOpConfig]] = CoOpConfig
    BUILTIN: ClassVar[CoOpConfig] = CoOpConfig(size=336, ctx_init="a photo of a", per_state=True, sigma=4.0)
    TRAINING = Training(epochs=50, batch_size=32, lr=2e-3, masks=False)
    BUILTIN_TRAINING = Training(epochs=12, batch_size=32, lr=0.5, masks=False)
    WARM_UP: ClassVar[float] = 1e-5
    """The learning rate of the first epoch."""

    config: CoOpConfig

    def __init__(self, backbone: Backbone, config: CoOpConfig | None = None) -> None:
        super().__init__(backbone, config)
        r = self.config
        # CoOp takes underscores for spaces here too
        self._start = self._tokens([r.ctx_init.replace("_", " ")])[0] if r.ctx_init else None
        n_ctx = r.n_ctx if self._start is None else len(self._start)
        contexts = (max(1, len(r.classes)) * self._states,) if r.per_state or r.classes else ()
        configs.at_most(n_ctx + 3, backbone.context, f"n_ctx {n_ctx}: a prompt of", "text positions")
        self.context = nn.Parameter(torch.empty(*contexts, n_ctx, backbone.text_width))
        self._phrases: dict[str, _Phrase] = {}
        self.reset()

    def reset(self, seed: int = 0) -> None:
        """Draws the context from N(0, 0.02^2), or sets it to the embeddings of `ctx_init`."""
        with torch.no_grad():
            if self._start is not None:
                self.context.copy_(self.backbone.embed(self._start.to(self.device)))
            else:
                generator = torch.Generator().manual_seed(seed)
                self.context.copy_(0.02 * torch.randn(self.context.shape, generator=generator))

    def optimizer(self, *, lr: float | None = None, betas: tuple[float, float] | None = None) -> torch.optim.Optimizer:
        """Stochastic gradient descent with momentum and weight decay. Raises UsageError if betas are given."""
        require(betas is None, "coop is trained by gradient descent with momentum, which has no betas")
        r, schedule = self.config, self.schedule
        assert schedule is not None
        return torch.optim.SGD(
            self.parameters(), lr=lr or schedule.lr, momentum=r.momentum, weight_decay=r.weight_decay
        )

    def learning_rate(self, initial: float, epoch: int, epochs: int) -> float:
        """The warm-up rate in the first epoch, then half a cosine, which begins at `initial` and never reaches 0."""
        return self.WARM_UP if epoch == 0 else initial * (1 + math.cos(math.pi * (epoch - 1) / epochs)) / 2

    # the text side

    @property
    def _states(self) -> int:
        """Contexts of an object: one, or one for each phrase."""
        return 2 if self.config.per_state else 1

    def _tokens(self, texts: Sequence[str]) -> list[Tensor]:
        """The tokens of each text between start and end, (n,)."""
        ids = self.backbone.tokenize(texts)
        return [row[1:end] for row, end in zip(ids, self.backbone.end_of_text(ids).tolist(), strict=True)]

    def _phrase(self, phrase: str) -> _Phrase:
        """What is the same in each prompt with a phrase: its words never change."""
        if phrase not in self._phrases:
            n_ctx = self.context.shape[-2]
            ids = self.backbone.tokenize([f"{phrase}."])
            first = {"end": n_ctx, "middle": n_ctx // 2, "front": 0}[self.config.name_position]
            after = 1 + n_ctx + len(self._tokens([phrase])[0])
            # places among the context followed by the words: start, context, the phrase, context, the rest
            parts = ((n_ctx, n_ctx + 1), (0, first), (n_ctx + 1, after), (first, n_ctx), (after, self.backbone.context))
            order = torch.tensor([place for part in parts for place in range(*part)])
            words = self.backbone.embed(ids)[0, : self.backbone.context - n_ctx]
            self._phrases[phrase] = _Phrase(words, order, int(self.backbone.end_of_text(ids)) + n_ctx)
        return self._phrases[phrase]

    def check_objects(self, object_names: Sequence[str]) -> None:
        """Raises UsageError for an object that is none of `classes`, if there are any."""
        known = [_plain(name) for name in self.config.classes]
        for name in object_names:
            require(
                not known or _plain(name) in known,
                f"coop has a context for each of {', '.join(known)}, and none for {name!r}: name one of these "
                "as the object, or use contexts that all objects share",
            )

    def contexts(self, object_names: Sequence[str]) -> Tensor:
        """The context of each object's two phrases: (2 C, n_ctx, Wt). Raises UsageError as `check_objects` does."""
        self.check_objects(object_names)
        known = [_plain(name) for name in self.config.classes]
        rows = [known.index(_plain(name)) if known else 0 for name in object_names]
        pairs = self.context.view(-1, self._states, *self.context.shape[-2:]).expand(-1, 2, -1, -1)
        return pairs[rows].flatten(0, 1)

    def prompts(self, object_names: Sequence[str]) -> tuple[Tensor, Tensor]:
        """The prompts as token embeddings without positions (2 C, context, Wt), and where each ends (2 C,).

        start | context, first part | "normal X" | context, second part | "." | end of text | padding;
        rows 2 c and 2 c + 1 are the normal and the anomalous prompt of object c, whose underscores become spaces.

        Raises:
            UsageError: a name is too long, or none that the contexts are for.
        """
        contexts = self.contexts(object_names)
        phrases = [
            self._phrase(phrase.replace("{}", name.replace("_", " ")))
            for name in object_names
            for phrase in self.config.phrases
        ]
        for number, phrase in enumerate(phrases):
            require(
                phrase.end < self.backbone.context,
                f"the name {object_names[number // 2]!r} is too long for a prompt with {contexts.shape[1]} learnt tokens: "
                "shorten it",
            )
        words = torch.stack([phrase.words for phrase in phrases]).to(self.device)
        order = torch.stack([phrase.order for phrase in phrases]).to(self.device)
        parts = torch.cat([contexts.to(words.dtype), words], dim=1)
        end = torch.tensor([phrase.end for phrase in phrases], device=self.device)
        return parts[torch.arange(len(parts), device=self.device).unsqueeze(1), order], end

    def text_features(self, object_names: Sequence[str]) -> Tensor:
        embeddings, end = self.prompts(object_names)
        raw = self.backbone.encode_text(embeddings=embeddings, end=end, activation=self.config.activation)
        return normalise(raw).reshape(len(object_names), 2, -1)

    # the image side

    @property
    def tap(self) -> Tap:
        """The patches of the map: those of the last block."""
        return Tap(self.backbone.layers)

    @property
    def request(self) -> Request:
        return Request(frozenset({self.tap}), class_token=True)

    @property
    def training_request(self) -> Request:
        return Request(class_token=True)

    @property
    def map_range(self) -> tuple[float, float]:
        return 0.0, 1.0

    @property
    def temperature(self) -> float:
        """The config's, or else the checkpoint's."""
        return self.config.temperature or math.exp(-float(self.backbone.towers.logit_scale))

    def image_embedding(self, features: ImageFeatures) -> Tensor:
        """The picture in CLIP's joint space: (B, E), not normalised."""
        return self.backbone.project(class_token(features))

    def image_logits(self, features: ImageFeatures, text: Tensor) -> Tensor:
        """(B, 2): cosine with both prompts over the temperature."""
        return cosine_logits(self.image_embedding(features), text, self.temperature)

    def score(self, features: ImageFeatures, text: Tensor) -> Prediction:
        patches = self.backbone.project(features.taps[self.tap][:, 1:])
        probability = anomalous_probability(cosine_logits(patches, text, self.temperature))
        maps = upsample_smoothly(as_grid(probability, features.grid), self.config.size, self.config.sigma)
        return self.prediction(anomalous_probability(self.image_logits(features, text)), maps)

    def loss(
        self, features: ImageFeatures, masks: Tensor, labels: Tensor, object_names: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """Cross-entropy of each picture against the two prompts of its own object: "image" and "total" are the same ().

        Masks are not used. Pictures without names are called "object".
        """
        names = list(object_names or ["object"] * len(labels))
        distinct = list(dict.fromkeys(names))
        text = self.text_features(distinct)[[distinct.index(name) for name in names]]
        image = F.cross_entropy(self.image_logits(features, text), labels.long())
        return {"image": image, "total": image}

    # the authors' files

    @classmethod
    def official_config(cls, state: Mapping[str, Any], config: CoOpConfig) -> CoOpConfig:
        shape = _learnt(state)["ctx"].shape
        return configs.change(config, {"n_ctx": shape[-2], "per_state": len(shape) == 3, "ctx_init": ""})

    def load_official(self, state: Mapping[str, Any]) -> None:
        """Takes `ctx` over; the tokens around it belong to the training's class names and are left out."""
        learnt = _learnt(state)
        found, wanted = learnt["ctx"], self.context
        if found.dim() == wanted.dim() == 3 and len(found) != len(wanted):
            raise WeightsError(
                f"the weights have contexts for {len(found)} phrases where the config has {len(wanted)}: name the "
                f"objects that they were trained on as classes, in that order"
            )
        weights.fit({"ctx": learnt["ctx"]}, {"ctx": tuple(self.context.shape)})
        self.load_state_dict({"context": learnt["ctx"].float()})


def _plain(name: str) -> str:
    """An object's name without underscores, as it enters a prompt."""
    return name.replace("_", " ").strip()


def _learnt(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """CoOp's `state_dict`: `ctx`, and buffers that are not needed. Raises WeightsError."""
    inner = state.get("state_dict")
    if not isinstance(inner, dict) or not isinstance(inner.get("ctx"), Tensor) or inner["ctx"].dim() not in (2, 3):
        raise WeightsError("these are no weights of CoOp: they have no 'state_dict' with a context 'ctx'")
    if unknown := sorted(set(inner) - {"ctx", "token_prefix", "token_suffix"}):
        raise WeightsError(f"the weights have a tensor {unknown[0]!r} that CoOp does not know")
    return inner
