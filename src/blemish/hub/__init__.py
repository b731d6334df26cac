"""Weights that authors published: list them, download and check them, and convert them to blemish's format.

    from blemish import hub

    path = hub.pull("anomalyclip-trained-on-visa")      # once, over the network
    blemish.load("anomalyclip", weights="anomalyclip-trained-on-visa", backbone="openai/clip-vit-large-patch14-336")

The list is data in `published.py`. It has the git blob id of each file, which is checked after the download and
whenever a file is found by its name, before anything reads it.
"""

from __future__ import annotations

from blemish.hub.download import blob_id
from blemish.hub.published import BASE, TABLE, Published, base_address, entry, find, home, local_path, locate, pull

__all__ = [
    "BASE",
    "TABLE",
    "Published",
    "base_address",
    "blob_id",
    "entry",
    "find",
    "home",
    "local_path",
    "locate",
    "pull",
]
