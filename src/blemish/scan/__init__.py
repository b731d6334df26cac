"""Scans of large collections: sources as data, a plan of parts, and one Parquet file for each part.

    with Scan(PlanOptions(("photos/",)), "out", DetectorOptions({"method": "anomalyclip"})) as scan:
        scan.execute()

docs/scale.md says how it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blemish.scan.folder import Shard
    from blemish.scan.options import DetectorOptions, PartOptions
    from blemish.scan.plan import PART_SIZE, PlanOptions
    from blemish.scan.run import Scan
    from blemish.scan.sources import SourceOptions
    from blemish.scan.stores import StoreError

# Processes that only read or write parts load no PyTorch.
_LAZY = {
    "PART_SIZE": "blemish.scan.plan",
    "DetectorOptions": "blemish.scan.options",
    "PartOptions": "blemish.scan.options",
    "PlanOptions": "blemish.scan.plan",
    "Scan": "blemish.scan.run",
    "Shard": "blemish.scan.folder",
    "SourceOptions": "blemish.scan.sources",
    "StoreError": "blemish.scan.stores",
}

__all__ = ["PART_SIZE", "DetectorOptions", "PartOptions", "PlanOptions", "Scan", "Shard", "SourceOptions", "StoreError"]


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'blemish.scan' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
