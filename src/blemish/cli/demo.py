"""`blemish demo`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from blemish.cli.console import columns, count, note, print_json, progress
from blemish.errors import UsageError

if TYPE_CHECKING:
    from blemish.demo import Result

#: Pictures of each set in the table.
ROWS = 5


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
    """Score real pictures with known labels, and measure how well the ranking is.

    The pictures are electroluminescence images of solar cells and simulated textiles. They come as packages
    (`pip install 'blemish[demo]'`) and were not used to make the built-in model. Nothing is downloaded.

    Args:
        out: Folder for overlays, the contact sheet and the table.
        per_set: Pictures drawn from each set, half of them with defects; 0 takes all.
        seed: Seed of the draw.
        method: The method; `blemish methods` lists them.
        backbone: `builtin`, or any CLIPModel: a hub id, a folder, a checkpoint file.
        weights: Weights of the method. [default: the shipped ones]
        device: auto, cpu, cuda, cuda:1, ...
        json: Print one JSON object per set on standard output.
    """
    if per_set != 0 and per_set < 4:
        raise UsageError(f"--per-set takes at least 4 pictures (or 0 for all), not {per_set}")

    from blemish.demo import ENDS, measure, picture_sets, write_sheet, write_table

    sets = picture_sets(per_set, seed)

    from blemish.loading import load

    start = time.perf_counter()
    detector = load(method, backbone=backbone, weights=weights, device=device)
    total = sum(len(pictures.samples) for pictures in sets)
    note(f"Scoring {count(total, 'picture')} in {count(len(sets), 'set')} ...")
    results = []
    with progress(total, "scoring") as advance:
        for pictures in sets:
            results.append(measure(detector, pictures, out / pictures.name, advance))
    write_table(results, out / "scores.csv")
    write_sheet(results, out / "contact-sheet.png")

    if json:
        for result in results:
            name, interval = result.pictures.name, [result.low, result.high]
            facts = {"pictures": len(result.ranking), "defective": result.defective, "auroc": result.auroc}
            print_json({"set": name, **facts, "interval": interval})
        return 0
    print(f"The {ROWS} highest scores of each set:\n")
    print(_highest(results))
    print("\nMeasured just now (0.5 is chance, 1 is perfect):\n")
    print(_measured(results))
    provenance = detector.provenance
    weights_used = f", weights {provenance.weights}" if provenance.weights else ""
    backbone_used = f"{provenance.backbone} ({provenance.backbone_fingerprint})"
    print(f"\nScored by {provenance.method}{weights_used} on the backbone {backbone_used},")
    print(f"{provenance.precision} on {provenance.device}, in {time.perf_counter() - start:.0f} s.")
    print(f"Pictures: {'; '.join(dict.fromkeys(pictures.source for pictures in sets))}.\n")
    print(f"  {out / 'contact-sheet.png'}  the {ENDS} highest and {ENDS} lowest scores of each set")
    print(f"  {out / 'scores.csv'}  every score with its label")
    print(f"  {out / sets[0].name / 'overlay'}, ...  every picture with its anomaly map")
    return 0


def _highest(results: Sequence[Result]) -> str:
    rows = [("SET", "SCORE", "LABEL", "PICTURE")]
    for result in results:
        for scored in result.ranking[:ROWS]:
            truth = "defective" if scored.sample.label else "flawless"
            rows.append((result.pictures.title, f"{scored.score:.4f}", truth, scored.sample.path.name))
    return columns(rows, right=(1,))


def _measured(results: Sequence[Result]) -> str:
    rows = [("SET", "PICTURES", "DEFECTIVE", "AUROC", "95 % INTERVAL", "VERDICT")]
    for result in results:
        numbers = str(len(result.ranking)), str(result.defective), f"{result.auroc:.3f}"
        rows.append((result.pictures.title, *numbers, f"{result.low:.3f} .. {result.high:.3f}", result.verdict))
    return columns(rows, right=(1, 2, 3))
