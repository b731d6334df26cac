"""Published numbers of the same methods on the same data, next to ours.

They are facts read from papers, figures, logs and READMEs (`published.json`, each with its source), in percent. The
AUPRO in them is the approximation in 200 steps. A difference is given only where the backbone is the same, and the
pictures are as many as were published.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from blemish.evaluation.result import METRICS, Comparison, Row

#: A published backbone by what is left of its common names without punctuation and case.
_BACKBONES = {
    "CLIP ViT-L/14@336px (OpenAI)": ("clipvitlargepatch14336", "vitl14336"),
    "CLIP ViT-B/16+ 240 (LAION-400M)": ("vitbasepatch16plusclip240", "vitb16plus240"),
}


@cache
def tables() -> tuple[Mapping[str, Any], ...]:
    """The published tables: facts about each, and `numbers` by data set (or "data set/category") and metric."""
    return tuple(json.loads(files(__package__).joinpath("published.json").read_text(encoding="utf-8")))


def compare(rows: Sequence[Row], facts: Mapping[str, Any]) -> tuple[Comparison, ...]:
    """Published numbers for the rows, those of the method's own authors first.

    Args:
        rows: Of one data set. Where a method has set-wide scores, its image metrics are taken from these, since the
            paper's are.
        facts: Of the run: "backbone", "dataset_names" (everything that the data set is called) and "partial" (the
            categories, or "mean", whose pictures are not all there).
    """
    called = {_plain(name) for name in facts.get("dataset_names", ())}
    backbone, partial = _plain(str(facts.get("backbone", ""))), set(facts.get("partial", ()))
    rules = {row.method: "set-wide" for row in rows if row.scores == "set-wide"}
    found: list[Comparison] = []
    for row in rows:
        suffix = "" if row.mean else f"/{_plain(row.category)}"
        for table in tables():
            if table["method"] != row.method:
                continue
            for place, numbers in table["numbers"].items():
                data, _, category = place.partition("/")
                if _plain(data) not in called or (f"/{_plain(category)}" if category else "") != suffix:
                    continue
                wanted = rules.get(row.method, "picture")
                metrics = [
                    m for m in METRICS if m in numbers and row.scores == (wanted if m[:5] == "image" else "picture")
                ]
                found += [
                    _comparison(row, metric, table, numbers[metric], backbone, row.category not in partial)
                    for metric in metrics
                ]
    return tuple(sorted(found, key=_rank))


def best(published: Sequence[Comparison]) -> dict[tuple[str, str, str], Comparison]:
    """The foremost comparison for each (method, category, metric)."""
    chosen: dict[tuple[str, str, str], Comparison] = {}
    for one in published:
        chosen.setdefault((one.method, one.category, one.metric), one)
    return chosen


def _comparison(
    row: Row, metric: str, table: Mapping[str, Any], value: float, backbone: str, whole: bool
) -> Comparison:
    same = any(word in backbone for word in _BACKBONES.get(table["backbone"], ()))
    ours = getattr(row, metric)
    return Comparison(
        method=row.method,
        category=row.category,
        metric=metric,
        ours=ours,
        published=value / 100,
        difference=ours - value / 100 if same and whole else math.nan,
        backbone=table["backbone"],
        same_backbone=same,
        same_pictures=whole,
        trained_on=table["trained_on"],
        table=table["table"],
        source=table["source"],
        own=table["own"],
        verified=table["verified"],
        note="; ".join(part for part in (table["as"] if "(" in table["as"] else "", table["note"]) if part),
    )


def _rank(one: Comparison) -> tuple[bool, bool, bool]:
    """Sorting is stable: within a rank the order of the rows and tables stays."""
    return (not one.same_backbone, not one.own, not one.verified)


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()
