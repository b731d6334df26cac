"""How fast blemish is, next to what the same takes as published and to what the hardware can do.

    python benchmarks/speed.py [SECTION ...] [--rounds 3] [--out FOLDER]

Sections: large, builtin (detection), pipeline, pictures, start, training, metrics, memory; default: all. Contenders
take turns within each round; a ratio is the median of the rounds' own ratios, with the least and the greatest. `--out`
writes `speed.json` and `speed.md`, adding to sections that are there already. `docs/performance.md` says
what each number means. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from interleaved import Ratio, machine
from rows import Row, markdown
from speed_detect import detect
from speed_pipeline import pipeline
from speed_rest import memory, pixel_metrics, preprocess, start, training

SECTIONS: dict[str, Callable[[int], Iterator[Row]]] = {
    "large": partial(detect, sizes="large"),
    "builtin": partial(detect, sizes="builtin"),
    "pipeline": pipeline,
    "pictures": preprocess,
    "start": start,
    "training": training,
    "metrics": pixel_metrics,
    "memory": memory,
}


def read(path: Path) -> dict[str, list[Row]]:
    """Rows of earlier runs, by section."""
    if not path.exists():
        return {}
    stored = json.loads(path.read_text(encoding="utf-8"))["sections"]
    return {
        name: [Row(**{**row, "ratio": None if row["ratio"] is None else Ratio(**row["ratio"])}) for row in rows]
        for name, rows in stored.items()
    }


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    a.add_argument("--rounds", type=int, default=3)
    a.add_argument("--out", type=Path, help="folder for speed.json and speed.md")
    o = a.parse_args()
    if unknown := set(o.sections) - set(SECTIONS):
        a.error(f"there is no section {unknown.pop()!r}: choose among {', '.join(SECTIONS)}")
    done = read(o.out / "speed.json") if o.out else {}
    for name in o.sections or SECTIONS:
        done[name] = []
        for row in SECTIONS[name](o.rounds):
            done[name].append(row)
            print(markdown([row]).splitlines()[-1], flush=True)
        if o.out:
            write(o.out, {each: done[each] for each in SECTIONS if each in done})


def write(out: Path, sections: dict[str, list[Row]]) -> None:
    """Write both files."""
    out.mkdir(parents=True, exist_ok=True)
    rows = [row for section in sections.values() for row in section]
    facts = {"machine": {**machine(), "bfloat16 units": bool(torch.cpu._is_amx_tile_supported())}}
    kept = {**facts, "sections": {name: [asdict(row) for row in section] for name, section in sections.items()}}
    (out / "speed.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    (out / "speed.md").write_text(markdown(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
