"""CoOp as a zero-shot anomaly detector: learnt context before the object's name.

CoOp is by Zhou et al., IJCV 2022, https://arxiv.org/abs/2109.01134; code: https://github.com/KaiyangZhou/CoOp.
AnomalyCLIP (ICLR 2024, https://arxiv.org/abs/2310.18961) made it a baseline with the prompts "[V1]..[Vn] normal X." and
"[V1]..[Vn] anomalous X.", whose code nobody published.

Method: only the context is learnt, from image labels; the image side is plain CLIP. Prompts, loss and training are
CoOp's. The score, and a map of the last block's patches, are those of `clip`; the map is known to be weak.

One context serves all objects, or there is one for normal and one for anomalous (`per_state`). As in CoOp's
class-specific contexts (CSC, section 3.1), each training object may have its own (`classes`; with `per_state`, one for
each of its two phrases, which is what CoOp's code makes of these prompts). Those do not transfer: such a method scores
these objects only.

Weights: none are published for anomalies. The tensors of `model.pth.tar-N`, which CoOp's code writes, are read; files
that also hold the scheduler as a Python object are refused.

Deviations from CoOp: float32 in place of half precision; images are squashed to a square, because CoOp's random crops
cut defects away and keep the label; all tokens of `ctx_init` are learnt, not as many as it has words; several contexts
each start from `ctx_init`, where CoOp falls back to a single one. Kept: the first epoch is a warm-up with a learning
rate so small that hardly anything is learnt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blemish.clip import Backbone, ImageFeatures, PositionMode, Request, Tap
from blemish.methods import configs
from blemish.methods.base import Method, Prediction, Training, class_token
from blemish.methods.configs import Config, require
from blemish.methods.ops import anomalous_probability, as_grid, cosine_logits, normalise, upsample_smoothly
from blemish.methods.registry import METHODS
from blemish.prompts import COOP


@dataclass(frozen=True, kw_only=True)
class CoOpConfig(Config):
    """The config of CoOp; the defaults are its own and AnomalyCLIP's."""

    position: PositionMode = "bilinear"
    phrases: tuple[str, str] = COOP
    """Normal and anomalous phrase; `{}` is the object's name. AnomalyCLIP's own would be "{}" and "damaged {}"."""
    n_ctx: int = 16
    """Number of learnt tokens."""
    ctx_init: str = ""
    """Words to start from ("a photo of a") in place of random numbers; their number of tokens replaces `n_ctx`."""
    classes: tuple[str, ...] = ()
    """Objects with a context of their own (CoOp's CSC), in its order; no others can be trained or scored then."""
    per_state: bool = False
    """Whether each of the two phrases has a context of its own."""
    name_position: Literal["end", "middle", "front"] = "end"
    """Position of the phrase in the context."""
    temperature: float | None = None
    """None for the checkpoint's own, which is 0.01 for OpenAI's."""
    sigma: float = 0.0
    """Gaussian smoothing of the map, in pixels; 0 for none."""
    momentum: float = 0.9
    """Momentum of the training."""
    weight_decay: float = 5e-4
    """Weight decay of the training, added to the gradient."""

    def check(self) -> None:
        super().check()
        require(all("{}" in phrase for phrase in self.phrases), f"each phrase needs a {{}}, not {self.phrases}")
        known = [_plain(name) for name in self.classes]
        require(all(known) and len({*known}) == len(known), f"classes have to be different names, not {self.classes}")
        require(self.n_ctx >= 1, f"n_ctx has to be at least 1, not {self.n_ctx}")
        require(0 <= self.momentum < 1, f"momentum lies between 0 and 1, not at {self.momentum}")
        require(self.weight_decay >= 0, f"weight_decay must not be negative, not {self.weight_decay}")


class _Phrase(NamedTuple):
    """The parts of a prompt that are not learnt."""

    words: Tensor
    """Token embeddings of start, phrase, full stop, end and padding: (context - n_ctx, Wt)."""
    order: Tensor
    """(context,): the row at each position, counted through the learnt context first and then `words`."""
    end: int
    """Position of the end token."""


class CoOp(Method):
    """Learnt context: `context` (n_ctx, Wt).

    With `per_state` it is (2, n_ctx, Wt), with `classes` (classes, n_ctx, Wt), with both (2 classes, n_ctx, Wt): the
    two contexts of an object come one after the other, normal first.
    """

    info = METHODS["coop"]
    Config: ClassVar[type[CoOpConfig]] = CoOpConfig
    TRAINING = Training(epochs=50, batch_size=32, lr=2e-3, masks=False)
    WARM_UP: ClassVar[float] = 1e-5
    """Learning rate of the first epoch."""

    backbone: Backbone
    config: CoOpConfig

    def __init__(self, backbone: Backbone, config: CoOpConfig | None = None) -> None:
        super().__init__(backbone, config)
        c = self.config
        # CoOp takes underscores for spaces here as well.
        self._start = self._tokens([c.ctx_init.replace("_", " ")])[0] if c.ctx_init else None
        n_ctx = c.n_ctx if self._start is None else len(self._start)
        contexts = (max(1, len(c.classes)) * self._states,) if c.per_state or c.classes else ()
        configs.at_most(n_ctx + 3, backbone.context, f"n_ctx {n_ctx}: a prompt of", "text positions")
        self.context = nn.Parameter(torch.empty(*contexts, n_ctx, backbone.text_width))
        self._phrases: dict[str, _Phrase] = {}
        self.reset()

    def reset(self, seed: int = 0) -> None:
        """Draw the context from N(0, 0.02^2), or set it to the embeddings of `ctx_init`."""
        with torch.no_grad():
            if self._start is not None:
                self.context.copy_(self.backbone.embed(self._start.to(self.device)))
            else:
                generator = torch.Generator().manual_seed(seed)
                self.context.copy_(0.02 * torch.randn(self.context.shape, generator=generator))

    def optimizer(self, *, lr: float | None = None, betas: tuple[float, float] | None = None) -> torch.optim.Optimizer:
        """Return stochastic gradient descent with momentum and weight decay. Raises UsageError if betas are given."""
        require(betas is None, "coop is trained by gradient descent with momentum, which has no betas")
        c, schedule = self.config, self.schedule
        assert schedule is not None
        return torch.optim.SGD(
            self.parameters(), lr=lr or schedule.lr, momentum=c.momentum, weight_decay=c.weight_decay
        )

    def learning_rate(self, initial: float, epoch: int, epochs: int) -> float:
        """Return the warm-up rate for the first epoch, then half a cosine from `initial` on, which never reaches 0."""
        return self.WARM_UP if epoch == 0 else initial * (1 + math.cos(math.pi * (epoch - 1) / epochs)) / 2

    # the text side

    @property
    def _states(self) -> int:
        """Number of contexts of an object: one, or one for each phrase."""
        return 2 if self.config.per_state else 1

    def _tokens(self, texts: Sequence[str]) -> list[Tensor]:
        """Return the token ids of each text between start and end, (n,)."""
        ids = self.backbone.tokenize(texts)
        return [row[1:end] for row, end in zip(ids, self.backbone.end_of_text(ids).tolist(), strict=True)]

    def _phrase(self, phrase: str) -> _Phrase:
        """Return the parts of a phrase's prompts that are not learnt; they never change, so they are cached."""
        if phrase not in self._phrases:
            n_ctx = self.context.shape[-2]
            ids = self.backbone.tokenize([f"{phrase}."])
            first = {"end": n_ctx, "middle": n_ctx // 2, "front": 0}[self.config.name_position]
            after = 1 + n_ctx + len(self._tokens([phrase])[0])
            # In the rows of the context followed by the words: start, context, phrase, context, rest.
            parts = ((n_ctx, n_ctx + 1), (0, first), (n_ctx + 1, after), (first, n_ctx), (after, self.backbone.context))
            order = torch.tensor([row for part in parts for row in range(*part)])
            words = self.backbone.embed(ids)[0, : self.backbone.context - n_ctx]
            self._phrases[phrase] = _Phrase(words, order, int(self.backbone.end_of_text(ids)) + n_ctx)
        return self._phrases[phrase]

    def check_objects(self, object_names: Sequence[str]) -> None:
        """Raise a UsageError for an object that is none of `classes`, if there are any."""
        known = [_plain(name) for name in self.config.classes]
        for name in object_names:
            require(
                not known or _plain(name) in known,
                f"coop has a context for each of {', '.join(known)}, and none for {name!r}: name one of these "
                "as the object, or use contexts that all objects share",
            )

    def contexts(self, object_names: Sequence[str]) -> Tensor:
        """Return the contexts of each object's phrases: (2 C, n_ctx, Wt). Raises UsageError as `check_objects` does."""
        self.check_objects(object_names)
        known = [_plain(name) for name in self.config.classes]
        rows = [known.index(_plain(name)) if known else 0 for name in object_names]
        pairs = self.context.view(-1, self._states, *self.context.shape[-2:]).expand(-1, 2, -1, -1)
        return pairs[rows].flatten(0, 1)

    def prompts(self, object_names: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return prompts as token embeddings without positions, (2 C, context, Wt), and their end positions, (2 C,).

        A prompt is: start | context, first part | "normal X" | context, second part | "." | end of text | padding.
        Rows 2 c and 2 c + 1 are the normal and the anomalous prompt of object c, whose underscores become spaces.

        Raises:
            UsageError: A name is too long, or not one of `classes`.
        """
        contexts = self.contexts(object_names)
        phrases = [
            self._phrase(phrase.replace("{}", name.replace("_", " ")))
            for name in object_names
            for phrase in self.config.phrases
        ]
        for row, phrase in enumerate(phrases):
            require(
                phrase.end < self.backbone.context,
                f"the name {object_names[row // 2]!r} is too long for a prompt with {contexts.shape[1]} learnt tokens: "
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
        """Tap of the map's patches, those of the last block."""
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
        """Temperature of the config, or else of the checkpoint."""
        return self.config.temperature or math.exp(-float(self.backbone.towers.logit_scale))

    def image_embedding(self, features: ImageFeatures) -> Tensor:
        """Project the class token into CLIP's joint space: (B, E), not normalised."""
        return self.backbone.project(class_token(features))

    def image_logits(self, features: ImageFeatures, text: Tensor) -> Tensor:
        """Return the cosines of the whole image with both prompts over the temperature: (B, 2)."""
        return cosine_logits(self.image_embedding(features), text, self.temperature)

    def score(self, features: ImageFeatures, text: Tensor) -> Prediction:
        patches = self.backbone.project(features.taps[self.tap][:, 1:])
        probability = anomalous_probability(cosine_logits(patches, text, self.temperature))
        maps = upsample_smoothly(as_grid(probability, features.grid), self.config.size, self.config.sigma)
        return self.prediction(anomalous_probability(self.image_logits(features, text)), maps)

    def loss(
        self, features: ImageFeatures, masks: Tensor, labels: Tensor, object_names: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """Return the cross-entropy of each image over the two prompts of its object; "image" and "total" are the same.

        Masks are not used. The name of images without a name is "object".
        """
        names = list(object_names or ["object"] * len(labels))
        distinct = list(dict.fromkeys(names))
        text = self.text_features(distinct)[[distinct.index(name) for name in names]]
        image = F.cross_entropy(self.image_logits(features, text), labels.long())
        return {"image": image, "total": image}


def _plain(name: str) -> str:
    """Return an object's name without underscores, as it enters a prompt."""
    return name.replace("_", " ").strip()
