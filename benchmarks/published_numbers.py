"""Make `src/blemish/evaluation/published.json` from a list of published results.

    python benchmarks/published_numbers.py RESULTS.json

RESULTS.json is a list of records, one number each: method, backbone, dataset (or "dataset/category"), level, metric,
value in percent, and where it is from. Kept are the zero-shot numbers of the methods that blemish has, table by table.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

TARGET = Path(__file__).resolve().parents[1] / "src" / "blemish" / "evaluation" / "published.json"
METHODS = {
    "CLIP": "clip",
    "CLIP-AC": "clip-ac",
    "WinCLIP": "winclip",
    "WinCLIP (zqhang re-implementation)": "winclip",
    "WinCLIP (caoyunkang re-implementation)": "winclip",
    "APRIL-GAN": "april-gan",
    "CoOp": "coop",
    "AnomalyCLIP": "anomalyclip",
    "CLIP-AD SDP": "clip-ad-sdp",
    "CLIP-AD SDP+": "clip-ad-sdp-plus",
    "VCP-CLIP": "vcp-clip",
    "VCP-CLIP (released checkpoint, user run)": "vcp-clip",
}
METRICS = {"auroc": "auroc", "ap": "ap", "f1max": "f1_max", "aupro": "aupro", "iou": "iou"}
#: What is the same for all numbers of one table.
SHARED = ("method", "as", "backbone", "trained_on", "table", "source", "own", "verified", "note")


def main() -> None:
    """Group the records and write the file."""
    tables: dict[tuple[Any, ...], dict[str, dict[str, float]]] = {}
    for number in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        if number["method"] not in METHODS or number["setting"] != "zero_shot":
            continue
        name = METHODS[number["method"]]
        facts = {**number, "method": name, "as": number["method"], "verified": number["verified"] == "read"}
        facts["source"] = re.sub(r" \((find_string ids?|English paper note).*\)$", "", number["source"])
        key = tuple(facts.get(field) or "" if field not in ("own", "verified") else facts[field] for field in SHARED)
        numbers = tables.setdefault(key, {}).setdefault(number["dataset"], {})
        numbers.setdefault(f"{number['level']}_{METRICS[number['metric']]}", number["value"])
    grouped = [{**dict(zip(SHARED, key, strict=True)), "numbers": numbers} for key, numbers in tables.items()]
    lines = ",\n".join(json.dumps(table, ensure_ascii=False, separators=(",", ":")) for table in grouped)
    TARGET.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    count = sum(len(values) for table in grouped for values in table["numbers"].values())
    print(f"{count} numbers in {len(grouped)} tables, {TARGET.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
