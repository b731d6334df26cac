"""Scans of large collections: sources as data, a plan of parts, and one Parquet file for each part.

    with Scan(PlanOptions(("photos/",)), "out", DetectorOptions({"method": "anomalyclip"})) as scan:
        scan.execute()

docs/scale.md says how it is used.
"""

from blemish.scan.detectors import DetectorOptions
from blemish.scan.folder import Shard
from blemish.scan.parts import PartOptions
from blemish.scan.plan import PART_SIZE, PlanOptions
from blemish.scan.run import Scan
from blemish.scan.sources import SourceOptions
from blemish.scan.stores import StoreError

__all__ = ["PART_SIZE", "DetectorOptions", "PartOptions", "PlanOptions", "Scan", "Shard", "SourceOptions", "StoreError"]
