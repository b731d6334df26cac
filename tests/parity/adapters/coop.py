"""CoOp: prompts, logits and scores of every position and kind of context; three training steps."""

from __future__ import annotations

import numpy as np
import torch
from cases import Array, Case, array
from torch import Tensor

from blemish.clip import ImageFeatures
from blemish.methods.coop import CoOp, CoOpRecipe
from blemish.methods.maps import anomalous_probability, normalise


def outputs(case: Case) -> dict[str, Array]:
    d, backbone = case.data, case.backbone
    methods, names = _methods(case), _names(case)
    pixels = case.pixels()
    with torch.no_grad():
        features = backbone.encode_image(pixels, methods[0].request, methods[0].computation)
        embeddings, ends = zip(*(m.prompts([name]) for m, name in zip(methods, names, strict=True)), strict=True)
        prompts, end = torch.cat(embeddings), torch.cat(ends)
        words = d["CTX_INIT"].replace("_", " ") or " ".join(["X"] * d["N_CTX"])
        phrases = [phrase.replace("_", " ") for phrase in d["class_phrases"]]
        out = {
            "ctx": _context(methods),
            "tokenized_prompts": backbone.tokenize([f"{words} {phrase}." for phrase in phrases]),
            "name_lens": backbone.end_of_text(backbone.tokenize(phrases)) - 1,
            "prompts": prompts,
            "text_features": backbone.encode_text(embeddings=prompts, end=end),
            "image": pixels,
            "image_features": methods[0].image_embedding(features),
            "logits": _logits(methods, names, features),
            "image_score": _scores(case, methods, names, features),
        }
    found = {name: array(value).copy() for name, value in out.items()}
    return found | (_training(case, methods[0], names, features) if "train" in d else {})


def _training(case: Case, method: CoOp, names: list[str], features: ImageFeatures) -> dict[str, Array]:
    d, train, methods = case.data, case.data["train"], [method] * len(names)
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
        logits = _logits(methods, names, features)
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
        return out | {"lr_by_epoch": rates, "image_score_after": array(_scores(case, methods, names, features))}


def _methods(case: Case) -> list[CoOp]:
    """A method per object: the same one, but where every phrase has its own context each object has its pair."""
    d, objects = case.data, len(case.data["class_phrases"]) // 2
    recipe = CoOpRecipe(
        size=d["image_size"],
        phrases=_phrases(case),
        n_ctx=d["N_CTX"],
        ctx_init=d["CTX_INIT"],
        per_state=d["CSC"],
        name_position=d["CLASS_TOKEN_POSITION"],
        momentum=d.get("train", {}).get("MOMENTUM", 0.9),
        weight_decay=d.get("train", {}).get("WEIGHT_DECAY", 5e-4),
    )
    if not case.weights:
        return [CoOp(case.backbone, recipe)] * objects
    context = case.weights["ctx"]
    pairs = context.split(2) if context.dim() == 3 else [context]
    made = []
    for pair in pairs:
        state = {"state_dict": {"ctx": pair}}
        method = CoOp(case.backbone, CoOp.official_recipe(state, recipe))
        method.load_official(state)
        made.append(method)
    return made if context.dim() == 3 else made * objects


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


def _context(methods: list[CoOp]) -> Tensor:
    contexts = [method.context for method in methods]
    return torch.cat(contexts) if contexts[0].dim() == 3 else contexts[0]


def _texts(methods: list[CoOp], names: list[str]) -> Tensor:
    return torch.cat([method.text_features([name]) for method, name in zip(methods, names, strict=True)])


def _logits(methods: list[CoOp], names: list[str], features: ImageFeatures) -> Tensor:
    """Every picture against all phrases."""
    text, method = _texts(methods, names).flatten(0, 1), methods[0]
    return normalise(method.image_embedding(features)) @ text.T / method.temperature


def _scores(case: Case, methods: list[CoOp], names: list[str], features: ImageFeatures) -> Tensor:
    text = _texts(methods, names)[case.data["class_ids"]]
    found = methods[0].score(features, text).score
    torch.testing.assert_close(found, anomalous_probability(methods[0].image_logits(features, text)))
    return found
