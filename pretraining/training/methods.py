"""Train the methods that learn, on a backbone and synthetic pictures, and compare all with plain CLIP.

    python -m pretraining.training.methods --out FOLDER [METHOD ...] [--backbone MODEL] [--photos FOLDER ...]

Writes FOLDER/METHOD.safetensors as soon as a method is trained. Losses and optimizers are the papers'; sizes, initial
weights, epochs and learning rate are those of `blemish.methods.builtin`. Products of a second stream choose the epoch
and, but for IMAGE_SCORES, the rule for the image score. Products of a third stream, which choose nothing, compare the
methods: these figures are the ones to quote. A METHOD that learns nothing (`musc`) is only compared.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

import synthesis
from blemish.clip import Backbone, Computation, load_backbone
from blemish.methods import checkpoints, create, info, list_methods
from blemish.methods.base import Method
from blemish.scoring import effective
from blemish.training import Features, Progress, Sample, train
from pretraining.validation.ranking import (
    PHOTOGRAPHS,
    Products,
    Ranking,
    best_rule,
    line,
    quality,
    shared_features,
    with_own_rule,
)
from synthesis.photos import load_photos
from synthesis.samples import LOST

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "methods.toml"
#: The method that all are compared with; it learns nothing.
BASELINE = "clip"
#: Rules for the image score that real pictures chose (`pretraining.search.rules`); validation chooses the others.
IMAGE_SCORES = dict.fromkeys(("anomalyclip", "clip-ad-sdp-plus", "coop"), "text+mean") | {"april-gan": "text+map"}
#: The most frequent object names stay; all other objects are called "object", since every name has to be encoded.
MAX_NAMES = 16


@dataclass(frozen=True)
class MethodsConfig:
    """Numbers of pictures, their streams and their size, as they stand in the file."""

    training_images: int
    validation_images: int
    test_images: int
    training_seed: int
    validation_seed: int
    test_seed: int
    image_size: int

    @classmethod
    def read(cls, path: Path) -> MethodsConfig:
        """Read a TOML file."""
        return cls(**tomllib.loads(path.read_text()))


def draw_samples(seed: int, count: int, size: int, photos: Sequence[np.ndarray]) -> list[Sample]:
    """Return the first `count` pictures of a stream whose defects are in sight."""
    with multiprocessing.Pool(initializer=_PHOTOS.extend, initargs=(photos,)) as pool:
        drawn = pool.imap(partial(_draw_sample, seed, size), range(2 * count), chunksize=16)
        samples = [sample for sample in drawn if sample is not None][:count]
        pool.terminate()
    return rename_rare_objects(samples)


def draw_products(seed: int, count: int, size: int, photos: Sequence[np.ndarray]) -> Products:
    """Return the photographs of `count // PHOTOGRAPHS` products whose defects are in sight."""
    with multiprocessing.Pool(initializer=_PHOTOS.extend, initargs=(photos,)) as pool:
        drawn = pool.map(partial(_draw_product, seed, size), range(count // PHOTOGRAPHS), chunksize=2)
    products = Products.of(drawn)
    return products._replace(samples=rename_rare_objects(products.samples))


def rename_rare_objects(samples: list[Sample]) -> list[Sample]:
    """Return the samples with rare object names replaced by "object"."""
    common = {name for name, _ in Counter(sample.object_name for sample in samples).most_common(MAX_NAMES)}
    return [sample if sample.object_name in common else sample._replace(object_name="object") for sample in samples]


#: Real pictures that scenes are made from, in a process that draws.
_PHOTOS: list[np.ndarray] = []


def _draw_sample(seed: int, size: int, index: int) -> Sample | None:
    return to_sample(synthesis.make_sample(seed, index, _PHOTOS, size))


def _draw_product(seed: int, size: int, index: int) -> list[Sample]:
    drawn = synthesis.make_product(seed, index, _PHOTOS, size, PHOTOGRAPHS)
    return [sample for picture in drawn if (sample := to_sample(picture)) is not None]


def to_sample(picture: synthesis.Sample) -> Sample | None:
    """Return a picture as training takes it; None if its defect is out of sight."""
    if picture.caption.kind == LOST:
        return None
    defective = bool(picture.mask.any())
    image = Image.fromarray(picture.image)
    return Sample(image, picture.mask if defective else None, int(defective), picture.caption.name)


def train_best_epoch(method: Method, features: Features, ranking: Ranking, epochs: int | None = None) -> int:
    """Train a method and restore the epoch that ranks the validation products best; return its number, from 1."""
    name, schedule, states = method.info.name, method.schedule, []
    assert schedule is not None
    per_epoch = -(-len(features) // schedule.batch_size)
    print(f"{name}: before training {line(ranking(method, coarse=True))}", flush=True)

    def on_progress(progress: Progress) -> None:
        if progress.stage == "steps" and progress.done % per_epoch == 0:
            scores = ranking(method, coarse=True)
            states.append((quality(scores), {key: value.clone() for key, value in method.state_dict().items()}))
            loss = progress.losses["total"]
            print(f"{name}: epoch {len(states)} loss {loss:.4f} {line(scores)}", flush=True)

    train(method, features, epochs=epochs, on_progress=on_progress)
    best = max(range(len(states)), key=lambda epoch: states[epoch][0])
    method.load_state_dict(states[best][1])
    return best + 1


def train_group(
    methods: Sequence[Method], samples: Sequence[Sample], products: Products, trained_on: str, out: Path,
    epochs: int | None = None,
) -> None:  # fmt: skip
    """Train and save the methods of a group that learn. All share their computation, so features are computed once."""
    ranking = Ranking.make(methods, products)
    features = shared_features(methods, samples, scoring=False)
    for method in methods:
        name = method.info.name
        epoch = train_best_epoch(method, features, ranking, epochs)
        scores = ranking(method)
        rule = IMAGE_SCORES.get(name) or best_rule(scores)
        method.config = replace(method.config, image_score=rule)
        header = {"trained_on": f"{trained_on}, {epoch} epochs", "source": "pretraining/"}
        checkpoints.save(method, out / f"{name}.safetensors", **header)
        print(f"{name}: epoch {epoch}, image score by {rule}, validation {line(scores)}", flush=True)


def compare(methods: Sequence[Method], products: Products) -> bool:
    """Print how methods that share their computation rank products; return whether none is worse than the first."""
    ranking = Ranking.make(methods, products)
    baseline, fine = None, True
    for method in methods:
        scores = with_own_rule(method, ranking(method))
        baseline = baseline or scores
        print(f"{method.info.name}: test {line(scores)}", flush=True)
        for key in ("image_auroc", "pixel_auroc", "aupro"):
            if scores[key] < baseline[key]:
                fine = False
                print(f"{method.info.name}: WORSE THAN {BASELINE} in {key}: {scores[key]:.4f} < {baseline[key]:.4f}")
    return fine


def run(
    backbone: Backbone, method_names: Sequence[str], config: MethodsConfig, photos: Sequence[np.ndarray], out: Path,
    epochs: int | None = None,
) -> bool:  # fmt: skip
    """Train, save and compare methods; return whether none is worse than the baseline."""
    out.mkdir(parents=True, exist_ok=True)
    draw = partial(draw_products, size=config.image_size, photos=photos)
    samples = draw_samples(config.training_seed, config.training_images, config.image_size, photos)
    validation = draw(config.validation_seed, config.validation_images)
    test = draw(config.test_seed, config.test_images)
    trained_on = f"{len(samples)} synthetic pictures (pretraining/, stream {config.training_seed})"
    groups: dict[Computation, list[Method]] = {}
    for name in method_names:
        method = create(name, backbone)
        groups.setdefault(effective(method.computation, backbone), []).append(method)
    fine = []
    for computation, methods in groups.items():
        learning = [method for method in methods if method.info.trainable]
        if learning:
            train_group(learning, samples, validation, trained_on, out, epochs)
        baseline = create(BASELINE, backbone, {"size": computation.size})
        fine.append(compare([baseline, *methods], test))
    return all(fine)


def default_methods() -> list[str]:
    """Return the names of the methods that learn or are transductive."""
    return [name for name in list_methods() if info(name).trainable or info(name).transductive]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", metavar="METHOD", help="default: all that learn, and musc")
    parser.add_argument("--out", type=Path, required=True, help="folder of the weights")
    parser.add_argument("--backbone", default="builtin", help="name or folder")
    parser.add_argument("--config", type=Path, default=CONFIG, help="numbers and streams of the pictures")
    parser.add_argument("--photos", type=Path, nargs="*", default=[], help="folders of real pictures")
    args = parser.parse_args()
    config, photos = MethodsConfig.read(args.config), load_photos(args.photos)
    run(load_backbone(args.backbone), args.methods or default_methods(), config, photos, args.out)


if __name__ == "__main__":
    main()
