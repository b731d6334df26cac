"""`blemish demo`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from blemish.cli.console import columns, count, note, print_json, progress

if TYPE_CHECKING:
    from blemish.demo import Result

#: Pictures of each set that are shown in the table.
SHOWN = 5


def demo(
    *,
    out: Path = Path("demo"),
    per_set: int = 200,
    seed: int = 0,
    method: str = "anomalyclip",
    backbone: str = "builtin",
    weights: Path | None = None,
    device: str = "auto",
    json: bool = False,
) -> int:
    """Find anomalies in real pictures, and measure how well that went.

    Electroluminescence pictures of solar cells and simulated textiles, both with known labels. They come as packages
    (`pip install 'blemish[demo]'`) and had no part in making the built-in model. Nothing is fetched.

    Args:
        out: Folder for overlays, the contact sheet and the table.
        per_set: Pictures drawn from each set, half of them with defects; 0 takes all.
        seed: Of the draw.
        method: How CLIP is asked; `blemish methods` lists them.
        backbone: `builtin`, or any CLIPModel: a hub id, a folder, a checkpoint file.
        weights: What the method learnt, if not what is shipped for it.
        device: auto, cpu, cuda, cuda:1, ...
        json: Print one JSON object per set on standard output, and nothing else there.
    """
    from blemish.demo import ENDS, measure, picture_sets, write_sheet, write_table

    sets = picture_sets(per_set, seed)

    from blemish.loading import load

    start = time.perf_counter()
    detector = load(method, backbone=backbone, weights=weights, device=device)
    total = sum(len(one.samples) for one in sets)
    note(f"Scoring {count(total, 'picture')} in {count(len(sets), 'set')} ...")
    results = []
    with progress(total, "scoring") as advance:
        for one in sets:
            results.append(measure(detector, one, out / one.name, advance))
    write_table(results, out / "scores.csv")
    write_sheet(results, out / "contact-sheet.png")

    if json:
        for result in results:
            name, interval = result.pictures.name, [result.low, result.high]
            facts = {"pictures": len(result.ranking), "defective": result.defective, "auroc": result.auroc}
            print_json({"set": name, **facts, "interval": interval})
        return 0
    print(f"The {SHOWN} highest scores of each set:\n")
    print(_highest(results))
    print("\nMeasured just now (0.5 is chance, 1 is perfect):\n")
    print(_measured(results))
    made = detector.provenance
    learnt = f", weights {made.weights}" if made.weights else ""
    print(f"\nScored by {made.method}{learnt} on the backbone {made.backbone} ({made.backbone_fingerprint}),")
    print(f"{made.precision} on {made.device}, in {time.perf_counter() - start:.0f} s.")
    print(f"Pictures: {'; '.join(dict.fromkeys(one.source for one in sets))}.\n")
    print(f"  {out / 'contact-sheet.png'}  the {ENDS} highest and {ENDS} lowest scores of each set")
    print(f"  {out / 'scores.csv'}  every score with its label")
    print(f"  {out / sets[0].name / 'overlay'}, ...  every picture with its anomaly map")
    return 0


def _highest(results: Sequence[Result]) -> str:
    rows = [("SET", "SCORE", "LABEL", "PICTURE")]
    for result in results:
        for one in result.ranking[:SHOWN]:
            truth = "defective" if one.sample.label else "flawless"
            rows.append((result.pictures.title, f"{one.score:.4f}", truth, one.sample.path.name))
    return columns(rows, right=(1,))


def _measured(results: Sequence[Result]) -> str:
    rows = [("SET", "PICTURES", "DEFECTIVE", "AUROC", "95 % INTERVAL", "VERDICT")]
    for result in results:
        numbers = str(len(result.ranking)), str(result.defective), f"{result.auroc:.3f}"
        rows.append((result.pictures.title, *numbers, f"{result.low:.3f} .. {result.high:.3f}", result.verdict))
    return columns(rows, right=(1, 2, 3))
