"""CoOp: prompts, logits and scores of every position and kind of context; three training steps."""

from __future__ import annotations

import numpy as np
import torch
from cases import Array, Case, array
from torch import Tensor

from blemish.clip import ImageFeatures
from blemish.methods import checkpoints
from blemish.methods.coop import CoOp, CoOpConfig
from blemish.methods.ops import anomalous_probability, normalise


def outputs(case: Case) -> dict[str, Array]:
    d, backbone = case.data, case.backbone
    method, names = _method(case), _names(case)
    pixels = case.pixels()
    with torch.no_grad():
        features = backbone.encode_image(pixels, method.request, method.computation)
        prompts, end = method.prompts(names)
        words = d["CTX_INIT"].replace("_", " ") or " ".join(["X"] * d["N_CTX"])
        phrases = [phrase.replace("_", " ") for phrase in d["class_phrases"]]
        out = {
            "ctx": method.context,
            "tokenized_prompts": backbone.tokenize([f"{words} {phrase}." for phrase in phrases]),
            "name_lens": backbone.end_of_text(backbone.tokenize(phrases)) - 1,
            "prompts": prompts,
            "text_features": backbone.encode_text(embeddings=prompts, end=end),
            "image": pixels,
            "image_features": method.image_embedding(features),
            "logits": _logits(method, names, features),
            "image_score": _scores(case, method, names, features),
        }
    found = {name: array(value).copy() for name, value in out.items()}
    return found | (_training(case, method, names, features) if "train" in d else {})


def _training(case: Case, method: CoOp, names: list[str], features: ImageFeatures) -> dict[str, Array]:
    d, train = case.data, case.data["train"]
    optimizer = method.optimizer(lr=train["LR"])
    rates = np.array(
        [method.learning_rate(train["LR"], epoch, train["MAX_EPOCH"]) for epoch in range(train["MAX_EPOCH"])]
    )
    labels, masks = torch.tensor(train["labels"]), torch.zeros(len(d["image_files"]), d["image_size"], d["image_size"])
    objects = [names[c] for c in d["class_ids"]]
    columns: dict[str, list[Array]] = {}
    for step in range(len(case.expected["train_loss"])):
        rate = float(rates[step // train["steps_per_epoch"]])
        for group in optimizer.param_groups:
            group["lr"] = rate
        losses = method.loss(features, masks, labels, objects)
        logits = _logits(method, names, features)
        optimizer.zero_grad()
        losses["total"].backward()
        gradient = array(method.context.grad).copy()  # type: ignore[arg-type]
        optimizer.step()
        row = {
            "train_loss": array(losses["total"]),
            "train_lr": np.array(rate),
            "train_logits": array(logits),
            "train_ctx_grad": gradient,
            "train_ctx": array(method.context).copy(),
            "train_ctx_norm": array(method.context.norm()),
        }
        for key, value in row.items():
            columns.setdefault(key, []).append(value)
    out = {key: np.stack(values) for key, values in columns.items()}
    with torch.no_grad():
        return out | {"lr_by_epoch": rates, "image_score_after": array(_scores(case, method, names, features))}


def _method(case: Case) -> CoOp:
    """With CSC every phrase has its own context, unless there are words to start from: then CoOp leaves it out."""
    d, apart = case.data, case.data["CSC"] and not case.data["CTX_INIT"]
    config = CoOpConfig(
        size=d["image_size"],
        phrases=_phrases(case),
        n_ctx=d["N_CTX"],
        ctx_init=d["CTX_INIT"],
        classes=tuple(_names(case)) if apart else (),
        per_state=apart,
        name_position=d["CLASS_TOKEN_POSITION"],
        momentum=d.get("train", {}).get("MOMENTUM", 0.9),
        weight_decay=d.get("train", {}).get("WEIGHT_DECAY", 5e-4),
    )
    if not case.weights:
        return CoOp(case.backbone, config)
    state = {"state_dict": case.weights}
    method = CoOp(case.backbone, checkpoints.official_config("coop", state, config))
    checkpoints.load_official(method, state)
    return method


def _phrases(case: Case) -> tuple[str, str]:
    """The case's phrases with the object's name left out: what the normal and the anomalous one end in."""
    normal, anomalous = case.data["class_phrases"][:2]
    name = _name(normal, anomalous)
    return normal.removesuffix(name) + "{}", anomalous.removesuffix(name) + "{}"


def _names(case: Case) -> list[str]:
    normal, _ = _phrases(case)
    return [phrase.removeprefix(normal.removesuffix("{}")) for phrase in case.data["class_phrases"][::2]]


def _name(normal: str, anomalous: str) -> str:
    """The longest run of whole words in which both end."""
    words = normal.split(" ")
    tails = (" ".join(words[k:]) for k in range(len(words)))
    return next(tail for tail in tails if anomalous.endswith(tail))


def _logits(method: CoOp, names: list[str], features: ImageFeatures) -> Tensor:
    """Every picture against all phrases."""
    text = method.text_features(names).flatten(0, 1)
    return normalise(method.image_embedding(features)) @ text.T / method.temperature


def _scores(case: Case, method: CoOp, names: list[str], features: ImageFeatures) -> Tensor:
    text = method.text_features(names)[case.data["class_ids"]]
    found = method.score(features, text).score
    torch.testing.assert_close(found, anomalous_probability(method.image_logits(features, text)))
    return found
