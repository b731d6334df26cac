"""Weights that authors published: which there are, fetching and checking them, and turning them into blemish's own.

    from blemish import hub

    path = published.pull("anomalyclip-trained-on-visa")      # once, over the network
    blemish.load("anomalyclip", weights="anomalyclip-trained-on-visa", backbone="openai/clip-vit-large-patch14-336")

The list is data, in `table.py`. A file counts as pulled only while its content has the git blob id in that list; it is
checked before anything reads it, when it is fetched and whenever it is found by its name.
"""

from __future__ import annotations

from blemish.hub.download import blob_id
from blemish.hub.store import BASE, base_address, entry, find, home, kept_at, locate, pull
from blemish.hub.table import TABLE, Published

__all__ = [
    "BASE",
    "TABLE",
    "Published",
    "base_address",
    "blob_id",
    "entry",
    "find",
    "home",
    "kept_at",
    "locate",
    "pull",
]
