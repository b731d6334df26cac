"""Ranking of methods: how well they find the defects of products, each product scored by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_
from typing import NamedTuple

import numpy as np
import torch

from blemish.clip import Request
from blemish.datasets.masks import resize_mask
from blemish.engine import TorchEngine
from blemish.few_shot import sample_memory_bank
from blemish.methods.base import MemoryBank, Method, TransductiveMethod
from blemish.metrics import auroc, pixel_metrics
from blemish.training import Features, Sample

#: Photographs of a product.
PHOTOGRAPHS = 10
#: A coarse ranking reads one pixel in so many, along each side.
STRIDE = 8
_IMAGE_AUROC = "image_auroc/"

Scores = dict[str, float]


class Products(NamedTuple):
    """Photographs of products, those of a product side by side, and the number (n,) of each one's product."""

    samples: list[Sample]
    numbers: np.ndarray

    @classmethod
    def of(cls, products: Sequence[list[Sample]]) -> Products:
        """Join the photographs of several products."""
        numbers = np.repeat(np.arange(len(products)), [len(samples) for samples in products])
        return cls([sample for samples in products for sample in samples], numbers)


def shared_features(methods: Sequence[Method], samples: Sequence[Sample], *, scoring: bool) -> Features:
    """Compute once what all methods need of the pictures, for a score or for training."""
    # Every rule for the image score is tried, so all need the class token.
    requests = [method.request | Request() if scoring else method.training_request for method in methods]
    return Features(methods[0], samples, request=reduce(or_, requests), batch_size=16)


@dataclass(frozen=True)
class Ranking:
    """Products with what all methods need of them; call it to score a method.

    Attributes:
        products: The photographs.
        features: Their features.
        masks: Their defects at the methods' input size, (n, S, S) bool.
    """

    products: Products
    features: Features
    masks: np.ndarray

    @classmethod
    def make(cls, methods: Sequence[Method], products: Products) -> Ranking:
        """Compute the features for methods that share their computation."""
        size = methods[0].computation.size
        masks = np.stack([resize_mask(sample.mask, size) for sample in products.samples])
        return cls(products, shared_features(methods, products.samples, scoring=True), masks)

    def __call__(self, method: Method, *, coarse: bool = False) -> Scores:
        """Return the mean image AUROC of the products by every rule for the image score, and AUROC and AUPRO of pixels.

        A coarse ranking has no AUPRO.
        """
        scores, maps = self.predict(method, STRIDE if coarse else 1)
        result = {f"{_IMAGE_AUROC}{rule}": self.mean_auroc(values) for rule, values in scores.items()}
        if coarse:
            return {**result, "pixel_auroc": auroc(self.masks[:, ::STRIDE, ::STRIDE].ravel(), maps.ravel())}
        pixel = pixel_metrics(list(self.masks), list(maps))
        return {**result, "pixel_auroc": pixel.auroc, "aupro": pixel.aupro}

    def mean_auroc(self, scores: np.ndarray) -> float:
        """Return the mean AUROC of the products that have both normal and defective photographs."""
        labels = np.array([sample.label for sample in self.products.samples])
        rows = [self.products.numbers == number for number in np.unique(self.products.numbers)]
        return float(np.mean([auroc(labels[r], scores[r]) for r in rows if 0 < labels[r].mean() < 1]))

    @torch.inference_mode()
    def predict(self, method: Method, stride: int, batch_size: int = 16) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Return scores (n,) by rule, and every `stride`-th pixel of the maps."""
        config, training = method.config, method.training
        method.eval()
        text = method.text_features(["object"])[0]
        scores: dict[str, list[float]] = {rule: [] for rule in config.image_scores}
        maps = []
        order = np.arange(len(self.products.samples))
        transductive = method if isinstance(method, TransductiveMethod) else None
        # A transductive method sees the photographs of a product as its set.
        ends = order[batch_size::batch_size]
        if transductive is not None:
            ends = np.flatnonzero(np.diff(self.products.numbers)) + 1
        for rows in np.split(order, ends):
            features = self.features.batch(rows.tolist(), method.request | Request())[0]
            memory = () if transductive is None else (self._memory_bank(transductive, rows),)
            for rule in scores:
                method.config = replace(config, image_score=rule)
                prediction = method.score(features, text, *memory)
                scores[rule] += prediction.score.tolist()
            maps.append(prediction.map[:, ::stride, ::stride].numpy())
        method.config = config
        method.train(training)
        return {rule: np.array(values) for rule, values in scores.items()}, np.concatenate(maps)

    def _memory_bank(self, method: TransductiveMethod, rows: np.ndarray) -> MemoryBank | None:
        """Return the memory bank of a transductive method for these photographs."""
        return sample_memory_bank(TorchEngine(method), [self.products.samples[row].image for row in rows])


def best_rule(scores: Scores) -> str:
    """Return the rule for the image score with the highest image AUROC."""
    rules = [name for name in scores if name.startswith(_IMAGE_AUROC)]
    return max(rules, key=lambda name: scores[name]).removeprefix(_IMAGE_AUROC)


def quality(scores: Scores) -> float:
    """Return the sum of image AUROC, by the best rule, and pixel AUROC."""
    return scores[f"{_IMAGE_AUROC}{best_rule(scores)}"] + scores["pixel_auroc"]


def with_own_rule(method: Method, scores: Scores) -> Scores:
    """Return the scores with the image AUROC of the method's own rule as "image_auroc"."""
    return {"image_auroc": scores[f"{_IMAGE_AUROC}{method.config.image_score}"], **scores}


def line(scores: Scores) -> str:
    """Return the scores as text."""
    return " ".join(f"{name} {value:.4f}" for name, value in scores.items())
