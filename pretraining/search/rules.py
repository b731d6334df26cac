"""Compare rules for the image score, and calibrate scores and heatmaps, for methods that ship and ask with words.

    python -m pretraining.search.rules --sets DIR --scored FILE.npz [--methods NAME ...]    # scores what is missing
    python -m pretraining.search.rules --scored FILE.npz --table

Every picture is scored once. Of a map the file keeps the means of the 24 x 24 patches, at which rules read it, and its
maximum. What is fitted, a pooling or a typical value, is measured on whole sets that it was not fitted on.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from scipy.optimize import minimize

import blemish
from blemish.clip import load_backbone
from blemish.methods.builtin import made_with
from blemish.metrics import auroc
from blemish.scoring import Scored, Scorer, Task
from pretraining.search.pictures import Numbers, Picture, list_pictures, open_picture

METHODS = (
    "clip", "coop", "anomalyclip", "april-gan", "clip-ad-sdp-plus", "vcp-clip", "clip-ac", "clip-ad", "clip-ad-sdp",
)  # fmt: skip
#: Methods that have a class token and ship with another rule: it is asked, too.
ASKED = ("coop", "anomalyclip")
CLASS_TOKEN = ", class token"
#: Rules that shipped before these were compared; other methods keep their own.
BEFORE = dict.fromkeys(("anomalyclip", "clip-ad-sdp-plus", "coop"), "maximum")
OWN = "its own"
#: Side in patches of the built-in model.
GRID = 24
#: Pictures that are scored before the file is written.
CHUNK = 64
NUMBERS = Numbers(real=60, painted=40, drawn=120)
#: Damaged part of a picture below which damage is fine.
FINE = 0.01
#: Fewest pictures of a label with which a set is measured.
MINIMUM = 5
#: Strength of the prior on the weights of the learnt pooling.
RIDGE = 1e-2
#: Share of the undamaged pictures whose heatmap is to be transparent everywhere: that of profiles.
TRANSPARENT = 0.8

Array = np.ndarray
Table = Mapping[str, Array]


# scores


def tasks(
    pictures: Sequence[Picture], rows: Sequence[int], sets: Path, names: frozenset[str], areas: dict[int, float]
) -> Iterator[Task[int]]:
    """Yield the pictures of some rows; `areas` gets the damaged part of each, nan if it is not known."""
    for row in rows:
        image, mask = open_picture(pictures[row], sets)
        areas[row] = float("nan") if mask is None else float(mask.mean())
        yield Task(row, image, names, pictures[row].name)


def score(methods: Sequence[str], sets: Path, path: Path) -> None:
    """Score the fixed pictures with all methods together and write the file again and again."""
    pictures, backbone = list_pictures(sets, NUMBERS), load_backbone("builtin")
    options = {"backbone": backbone, "precision": "float32"}
    detectors = {name: blemish.load(name, **options) for name in methods}
    for name in set(ASKED) & set(methods):
        detectors[name + CLASS_TOKEN] = blemish.load(name, config={"image_score": "text"}, **options)
    with_text = {name for name, found in detectors.items() if hasattr(found.torch_engine.method, "text_score")}
    scorer = Scorer({name: found.torch_engine for name, found in detectors.items()}, text_scores=with_text)
    table: dict[str, list] = {key: [] for key in ("row", "origin", "source", "label", "area")}
    table |= {f"{name} {key}": [] for name in detectors for key in ("grid", "max", "score", "text")}
    ranges = {f"{name} range": found.engine.map_range() for name, found in detectors.items()}
    keys = {f"{name} made with": made_with(found.provenance) for name, found in detectors.items()}
    # Random order, so that what is done is a fair part at any time.
    order = np.random.default_rng(0).permutation(len(pictures)).tolist()
    for first in range(0, len(order), CHUNK):
        rows, areas = order[first : first + CHUNK], {}
        found: dict[int, dict[str, Scored[int]]] = {row: {} for row in rows}
        for result in scorer.run(tasks(pictures, rows, sets, frozenset(detectors), areas)):
            assert isinstance(result, Scored), result
            found[result.item][result.method] = result
        for row in rows:
            picture, area = pictures[row], areas[row]
            label = picture.label if picture.source == "real" else int(area > 0)
            for key, value in zip(table, (row, picture.origin, picture.source, label, area), strict=False):
                table[key].append(value)
            for name, one in found[row].items():
                table[f"{name} grid"].append(F.adaptive_avg_pool2d(one.map[None], GRID)[0].half().numpy())
                table[f"{name} max"].append(float(one.map.max()))
                table[f"{name} score"].append(one.score)
                table[f"{name} text"].append(np.nan if one.text_score is None else one.text_score)
        np.savez(path, **{key: np.array(values) for key, values in (table | ranges | keys).items()})
        print(f"{first + len(rows)} of {len(order)}", flush=True)


# rules


def largest(values: Array, share: float) -> Array:
    """Return the mean of the largest values of each row (n, N): (n,)."""
    count = max(1, int(share * values.shape[1]))
    mean: Array = np.sort(values, axis=1)[:, -count:].mean(1)
    return mean


def rules(table: Table, name: str) -> dict[str, Array]:
    """Return the image scores (n,) of a method by each rule. Maps are scaled to [0, 1] by their range."""
    low, high = table[f"{name} range"]
    patches = (table[f"{name} grid"].reshape(len(table["row"]), -1).astype(np.float64) - low) / (high - low)
    maximum, mean = (table[f"{name} max"] - low) / (high - low), patches.mean(1)
    found = {
        OWN: table[f"{name} score"],
        "maximum": maximum,
        "largest 0.6 %": largest(patches, 0.006),
        "largest 3 %": largest(patches, 0.03),
        "largest 10 %": largest(patches, 0.1),
        "largest 30 %": largest(patches, 0.3),
        "mean": mean,
        "largest 1 % + mean": largest(patches, 0.01) + mean,
        "largest 1 % + 4 x mean": largest(patches, 0.01) + 4 * mean,
        "geometric mean of maximum and mean": np.sqrt(maximum * mean),
        "mean of eighth powers": (patches**8).mean(1),
        "maximum - median": maximum - np.median(patches, 1),
    }
    text = table.get(f"{name}{CLASS_TOKEN} score", table[f"{name} text"])
    text = table[f"{name} score"] if name in ("clip", "clip-ac", "clip-ad") else text
    if np.isfinite(text).all():
        found["class token"] = text
        for other in ("maximum", "largest 10 %", "mean"):
            found[f"class token + {other}"] = text + found[other]
        found["class token + 0.25 x mean"] = text + 0.25 * mean
        found["class token + 0.5 x mean"] = text + 0.5 * mean
        found["class token + 2 x mean"] = text + 2 * mean
    read = ("maximum", "largest 0.6 %", "largest 3 %", "largest 10 %", "largest 30 %", "mean", "class token")
    found["learnt pooling"] = pooled(table, np.stack([found[rule] for rule in read if rule in found], 1))
    return found


def pooled(table: Table, features: Array) -> Array:
    """Return scores (n,) by a logistic regression of features (n, k), for each set learnt from the other ones.

    Sets count alike, and their means are taken away: only the order within a set is learnt.
    """
    origins, label = table["origin"], table["label"] * 2.0 - 1
    features, result = features / features.std(0), np.zeros(len(features))
    centred, weight = np.zeros_like(features), np.zeros(len(features))
    for rows in groups(table):
        for value in (-1, 1):
            weight[rows & (label == value)] = 1 / max((rows & (label == value)).sum(), 1)
        centred[rows] = features[rows] - features[rows].mean(0)
    for origin in np.unique(origins):
        x, y, w = (values[origins != origin] for values in (centred, label, weight))

        def loss(beta: Array, x: Array = x, y: Array = y, w: Array = w) -> float:
            return float((w * np.logaddexp(0, -y * (x @ beta))).sum() / w.sum() + RIDGE * beta @ beta)

        result[origins == origin] = features[origins == origin] @ minimize(loss, np.zeros(x.shape[1])).x
    return result


def groups(table: Table, source: str | None = None) -> list[Array]:
    """Return the rows (n,) bool of each set and source."""
    origins, sources = table["origin"], table["source"]
    pairs = [(o, s) for o in np.unique(origins) for s in np.unique(sources) if source in (None, s)]
    return [rows for o, s in pairs if (rows := (origins == o) & (sources == s)).any()]


def set_aurocs(table: Table, scores: Array, source: str, *, fine: bool = False) -> dict[str, float]:
    """Return the image AUROC of each set of a source; `fine` counts only damage of a small area."""
    found = {}
    for rows in groups(table, source):
        kept = rows & ((table["label"] == 0) | (table["area"] < FINE)) if fine else rows
        label = table["label"][kept]
        if min(label.sum(), (1 - label).sum()) >= MINIMUM:
            found[str(table["origin"][kept][0])] = float(auroc(label, scores[kept]))
    return found


def rules_table(table: Table, methods: Sequence[str], share: float) -> str:
    """Return each rule's means over methods and sets, with the difference to what shipped before.

    The columns are image AUROC, and the share of the real damaged pictures at or above one value for all sets, the one
    that a share of the undamaged ones stays below.
    """
    scored, damaged = {name: rules(table, name) for name in methods}, real_sets(table, 1)

    def measure(scores: Array) -> dict[str, float]:
        real = set_aurocs(table, scores, "real")
        typical = quantile(scores, [*real_sets(table, 0).values()], share)
        parts = {"real": real, "painted": set_aurocs(table, scores, "painted")}
        parts |= {"drawn": set_aurocs(table, scores, "drawn"), "fine": set_aurocs(table, scores, "drawn", fine=True)}
        found = {column: float(np.mean([*values.values()])) for column, values in parts.items()}
        found["worst set"] = min(real.values())
        found["one value"] = float(np.mean([(scores[rows] >= typical).mean() for rows in damaged.values()]))
        return found | real

    measured = {(name, rule): measure(scores) for name in methods for rule, scores in scored[name].items()}
    columns = ("real", "worst set", "painted", "drawn", "fine", "one value")
    lines = [
        f"| rule | methods | {' | '.join(columns)} | most lost |",
        f"| --- | ---: |{' ---: |' * len(columns)} --- |",
    ]
    for rule in dict.fromkeys(rule for _, rule in measured):
        having = [name for name in methods if rule in scored[name]]
        cells, lost = [], []
        for column in measured[having[0], rule]:
            values = [measured[name, rule][column] for name in having]
            changes = [v - measured[n, BEFORE.get(n, OWN)][column] for n, v in zip(having, values, strict=True)]
            if column in columns:
                cells.append((column, f"{np.mean(values):.3f} ({np.mean(changes):+.3f})"))
            else:
                lost += [(change, f"{name}, {column}") for name, change in zip(having, changes, strict=True)]
        ordered = [dict(cells)[column] for column in columns]
        lines.append(f"| {rule} | {len(having)} | {' | '.join(ordered)} | {min(lost)[0]:+.2f} {min(lost)[1]} |")
    return "\n".join(lines)


# calibration


def real_sets(table: Table, label: int) -> dict[str, Array]:
    """Return the rows (n,) bool of the real pictures with a label, by set."""
    rows = (table["source"] == "real") & (table["label"] == label)
    return {str(origin): rows & (table["origin"] == origin) for origin in np.unique(table["origin"][rows])}


def quantile(values: Array, sets: Sequence[Array], share: float) -> float:
    """Return the smallest value that a share of the values (n,) does not exceed, if all sets (n,) bool count alike."""
    weights = sum(rows / rows.sum() for rows in sets) / len(sets)
    order = np.argsort(values)
    return float(values[order][np.searchsorted(np.cumsum(weights[order]), share)])


def left_out_shares(values: Array, sets: Mapping[str, Array], share: float) -> dict[str, float]:
    """Return which share of each set lies below the quantile of the other sets."""
    limits = {name: quantile(values, [sets[other] for other in sets if other != name], share) for name in sets}
    return {name: float((values[rows] < limits[name]).mean()) for name, rows in sets.items()}


def calibration_table(table: Table, methods: Sequence[str], share: float) -> str:
    """Return typical scores and the scales of heatmaps, and what they do to sets that were left out and to damage.

    Args:
        table: The scored pictures.
        methods: Names of the methods.
        share: Share of the undamaged pictures of the other sets that lie below a typical value.
    """
    columns = ("method", "typical score", "left out", "worst", "damaged", "scale of heatmaps", "left out", "worst")
    columns += ("damaged above the middle", "damaged above low", "made with")
    lines = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    good, damaged = real_sets(table, 0), real_sets(table, 1)
    for name in methods:
        cells = [name]
        for key in ("score", "max"):
            values = table[f"{name} {key}"]
            limits = quantile(values, [*good.values()], share), quantile(values, [*good.values()], TRANSPARENT)
            shares = left_out_shares(values, good, share)
            typical, low = limits
            above = [
                f"{np.mean([(values[rows] >= limit).mean() for rows in damaged.values()]):.2f}" for limit in limits
            ]
            worst = min(shares, key=shares.__getitem__)
            cells.append(f"{typical:.4f}" if key == "score" else f"{low:.4f}, {2 * typical - low:.4f}")
            cells += [f"{np.mean([*shares.values()]):.3f}", f"{shares[worst]:.2f} {worst}"]
            cells += above[:1] if key == "score" else above
        lines.append(f"| {' | '.join(cells)} | {table[f'{name} made with']} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=Path, help="folder of the sets")
    parser.add_argument("--scored", type=Path, required=True, help="file of the scores")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), metavar="NAME")
    parser.add_argument("--share", type=float, default=0.97, help="of undamaged pictures below a typical value")
    parser.add_argument("--table", action="store_true", help="only print what was measured")
    args = parser.parse_args()
    if not args.table:
        score(args.methods, args.sets, args.scored)
    table = dict(np.load(args.scored))
    for make in (rules_table, calibration_table):
        print(make(table, args.methods, args.share), end="\n\n")


if __name__ == "__main__":
    main()
