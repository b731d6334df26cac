"""`blemish methods`."""

from __future__ import annotations

import dataclasses

from blemish.cli.console import columns, print_json
from blemish.methods import info, names


def methods(*, json: bool = False) -> int:
    """List the methods: what they are called, what they need, where they were published.

    Args:
        json: Print one JSON object per method instead of a table.
    """
    found = [info(name) for name in names()]
    if json:
        for one in found:
            print_json(dataclasses.asdict(one))
        return 0
    rows = [("METHOD", "PUBLISHED", "NEEDS", "WHAT IT IS", "PAPER")]
    for one in found:
        needs = [
            word
            for word, holds in (
                ("object name", one.needs_object),
                ("weights", one.trainable),
                ("examples", one.few_shot),
            )
            if holds
        ]
        rows.append((one.name, f"{one.venue} {one.year}", ", ".join(needs) or "-", one.title, one.url))
    print(columns(rows))
    return 0
