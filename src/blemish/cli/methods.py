"""`blemish methods`."""

from __future__ import annotations

import dataclasses

from blemish.cli.console import columns, print_json
from blemish.methods import info, list_methods
from blemish.methods.registry import WEIGHTS, MethodInfo


def methods(*, json: bool = False) -> int:
    """List the methods with what they need, the backbone of their paper, and where they were published.

    Args:
        json: Print one JSON object per method instead of a table.
    """
    infos = [info(name) for name in list_methods()]
    if json:
        for method in infos:
            entry = dataclasses.asdict(method)
            del entry["cls"]
            print_json({**entry, "builtin": _builtin(method)})
        return 0
    rows = [("METHOD", "PUBLISHED", "NEEDS", "BUILTIN", "BACKBONE OF THE PAPER", "WHAT IT IS", "PAPER")]
    for method in infos:
        needs = [
            word
            for word, holds in (
                ("object name", method.needs_object),
                ("weights", method.trainable),
                ("examples", method.few_shot),
                ("a set", method.transductive),
            )
            if holds
        ]
        published, needed = f"{method.venue} {method.year}", ", ".join(needs) or "-"
        facts = (_builtin(method), method.default_backbone, method.title, method.url)
        rows.append((method.name, published, needed, *facts))
    print(columns(rows))
    return 0


def _builtin(method: MethodInfo) -> str:
    """Return what the method needs on the built-in model: nothing, shipped weights or other weights."""
    if not method.trainable:
        return "as it is"
    return "weights shipped" if (WEIGHTS / f"{method.name}.safetensors").exists() else "needs --weights"
