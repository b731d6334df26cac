"""Published numbers of the same methods on the same data, for comparison.

They are facts read from papers, figures, logs and READMEs (`published.json`, each with its source), in percent; their
AUPRO is the approximation in 200 steps. A difference is given only for the same backbone and as many images.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any

from blemish.evaluation.result import METRICS, Comparison, Row

#: Parts of the common names of each published backbone, without punctuation and case.
_BACKBONES = {
    "CLIP ViT-L/14@336px (OpenAI)": ("clipvitlargepatch14336", "vitl14336"),
    "CLIP ViT-B/16+ 240 (LAION-400M)": ("vitbasepatch16plusclip240", "vitb16plus240"),
}


@cache
def published_tables() -> tuple[Mapping[str, Any], ...]:
    """Return the published tables: facts about each, and `numbers` by data set (or "data set/category") and metric."""
    return tuple(json.loads(files(__package__).joinpath("published.json").read_text(encoding="utf-8")))


def compare(rows: Sequence[Row], facts: Mapping[str, Any]) -> tuple[Comparison, ...]:
    """Return the published numbers for the rows; those that compare best come first.

    Args:
        rows: Rows of one data set. Published image metrics are compared with set-wide scores if the method has them,
            since its paper does so, too.
        facts: Facts of the run: "backbone", "dataset_names" (all names of the data set) and "partial" (the categories,
            or "mean", of which some images are missing) and "masks" ("full": pixel metrics get no difference).
    """
    dataset_names = {_normalize(name) for name in facts.get("dataset_names", ())}
    backbone, partial = _normalize(str(facts.get("backbone", ""))), set(facts.get("partial", ()))
    full = facts.get("masks") == "full"
    image_rules = {row.method: "set-wide" for row in rows if row.scores == "set-wide"}
    comparisons: list[Comparison] = []
    for row in rows:
        image_rule = image_rules.get(row.method, "picture")
        for table in published_tables():
            if table["method"] != row.method:
                continue
            for key, numbers in table["numbers"].items():
                dataset, _, category = key.partition("/")
                if _normalize(dataset) not in dataset_names or bool(category) == row.mean:
                    continue
                if category and _normalize(category) != _normalize(row.category):
                    continue
                for metric in METRICS:
                    rule = image_rule if metric.startswith("image") else "picture"
                    if metric in numbers and row.scores == rule:
                        is_complete, other_masks = row.category not in partial, full and metric.startswith("pixel")
                        comparison = _comparison(row, metric, table, numbers[metric], backbone, is_complete)
                        comparisons.append(replace(comparison, difference=math.nan) if other_masks else comparison)
    # Sorting is stable: equal ones stay in the order of rows and tables.
    return tuple(sorted(comparisons, key=lambda c: (not c.same_backbone, not c.own, not c.verified)))


def best_comparisons(published: Sequence[Comparison]) -> dict[tuple[str, str, str], Comparison]:
    """Return the first comparison for each (method, category, metric)."""
    best: dict[tuple[str, str, str], Comparison] = {}
    for comparison in published:
        best.setdefault((comparison.method, comparison.category, comparison.metric), comparison)
    return best


def _comparison(
    row: Row, metric: str, table: Mapping[str, Any], percent: float, backbone: str, is_complete: bool
) -> Comparison:
    same_backbone = any(part in backbone for part in _BACKBONES.get(table["backbone"], ()))
    ours, published = getattr(row, metric), percent / 100
    return Comparison(
        method=row.method,
        category=row.category,
        metric=metric,
        ours=ours,
        published=published,
        difference=ours - published if same_backbone and is_complete else math.nan,
        same_backbone=same_backbone,
        same_pictures=is_complete,
        note="; ".join(part for part in (table["as"] if "(" in table["as"] else "", table["note"]) if part),
        **{name: table[name] for name in ("backbone", "trained_on", "table", "source", "own", "verified")},
    )


def _normalize(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()
