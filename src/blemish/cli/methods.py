"""`blemish methods`."""

from __future__ import annotations

import dataclasses

from blemish.cli.console import columns, print_json
from blemish.methods import info, list_methods
from blemish.methods.registry import WEIGHTS, MethodInfo


def methods(*, json: bool = False) -> int:
    """List the methods: what they are called, what they need, their paper's backbone, where they were published.

    Args:
        json: Print one JSON object per method instead of a table.
    """
    found = [info(name) for name in list_methods()]
    if json:
        for one in found:
            entry = dataclasses.asdict(one)
            del entry["cls"]
            print_json({**entry, "builtin": _builtin(one)})
        return 0
    rows = [("METHOD", "PUBLISHED", "NEEDS", "BUILTIN", "BACKBONE OF THE PAPER", "WHAT IT IS", "PAPER")]
    for one in found:
        needs = [
            word
            for word, holds in (
                ("object name", one.needs_object),
                ("weights", one.trainable),
                ("examples", one.few_shot),
                ("a set", one.transductive),
            )
            if holds
        ]
        published, told = f"{one.venue} {one.year}", ", ".join(needs) or "-"
        rows.append((one.name, published, told, _builtin(one), one.default_backbone, one.title, one.url))
    print(columns(rows))
    return 0


def _builtin(one: MethodInfo) -> str:
    """What it takes to run on the built-in backbone: nothing, weights that are shipped, weights that are not."""
    if not one.trainable:
        return "as it is"
    return "weights shipped" if (WEIGHTS / f"{one.name}.safetensors").exists() else "needs --weights"
