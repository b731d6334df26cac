"""How well every method ranks real pictures with the built-in model, beside two floors; writes the tables of the docs.

    python benchmarks/dev_sets.py [--folders DIR ...] [--write]

Solar cells and textiles come from packages (`pip install 'blemish[demo]'`); each DIR holds MVTec-like sets
(`SET/test/good`, `SET/test/<defect>`, `SET/ground_truth/<defect>/<stem>_mask.png`). They measure finished models
only; nothing is trained, tuned or chosen on them. Everything is measured like `blemish evaluate --dataset folder
--data DIR --methods all`: every set is a category. Methods without weights for the backbone are listed as missing.
winclip with its windows costs as much as a dozen other methods, and the untrained floor needs a pass of its own:
these two are measured on --few pictures of each set, drawn at random. The floors: `random weights` is the untrained
architecture with the prompts of `clip`; `patch outliers` is `patch_outliers.py`.

Scores, tables, JSON and a report are written to --out; the same command continues there after an interruption.
`--write` puts the tables between the markers in docs/results.md and the model card, their means into README.md, and the
numbers into benchmarks/dev_sets.json. `--renew` measures only --methods, without floors, and takes all other rows from
those numbers: for a method that has changed while the model has not.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from patch_outliers import patch_outliers

import blemish
from blemish.cli.console import count, note, progress
from blemish.clip import Backbone, load_backbone
from blemish.datasets import Dataset, Sample, read
from blemish.demo import picture_sets
from blemish.detector import Detector
from blemish.engine import TorchEngine
from blemish.errors import BlemishError, UsageError
from blemish.evaluation import (
    Evaluation,
    EvaluationFolder,
    MetricOptions,
    Row,
    Run,
    limit_images,
    load_detectors,
    tables,
    write_results,
)
from blemish.evaluation.folder import ImageScore, write_json
from blemish.evaluation.measure import MaskCache, measure_category
from blemish.evaluation.run import make_evaluation
from blemish.files import common_root, write_atomically
from blemish.methods import create, load_class

ROOT = Path(__file__).resolve().parents[1]
TABLES = (ROOT / "docs" / "results.md", ROOT / "src" / "blemish" / "weights" / "builtin" / "README.md")
README = ROOT / "README.md"
NUMBERS = ROOT / "benchmarks" / "dev_sets.json"
BEGIN, END = "<!-- dev sets: begin -->", "<!-- dev sets: end -->"
SUMMARY_BEGIN, SUMMARY_END = "<!-- results: begin -->", "<!-- results: end -->"
FEW = 60
RANDOM, OUTLIERS = "random weights", "patch outliers"


def gathered(folders: Sequence[Path]) -> Dataset:
    """Return all sets as categories of one data set."""
    samples = [
        Sample(sample.path, sample.label, s.title, None if sample.label else (), s.object_name)
        for s in picture_sets(per_set=0)
        for sample in s.samples
    ]
    for folder in folders:
        samples += read("folder", folder).samples
    root = common_root(sample.path for sample in samples)
    assert root is not None  # there are pictures in the packages
    return Dataset("dev sets", root, "test", tuple(samples), "packages, and folders like MVTec AD")


def random_backbone(like: Backbone, seed: int = 0) -> Backbone:
    """Return the same architecture and tokenizer with random weights."""
    torch.manual_seed(seed)
    model = type(like.model)(like.model.config).eval().requires_grad_(False)
    return Backbone(model, like.tokenizer, name="random")


def rank_outliers(
    folder: EvaluationFolder, dataset: Dataset, options: MetricOptions, facts: Mapping[str, Any]
) -> Evaluation:
    """Score and measure with `patch_outliers`, except sets that an earlier run measured."""
    with progress(len(dataset), OUTLIERS) as advance, ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for category in dataset.categories:
            samples = dataset.of(category)
            result = folder.results.get((OUTLIERS, category))
            if result is not None and result.digest == folder.digest(OUTLIERS, samples):
                continue
            maps = pool.map(lambda sample: patch_outliers(sample.picture().image), samples)
            for sample, anomaly_map in zip(samples, maps, strict=True):
                peak = float(anomaly_map.max())
                folder.write_map(OUTLIERS, sample, anomaly_map)
                key = (sample.path.stat().st_size, 0, OUTLIERS, "")
                folder.add_score(OUTLIERS, sample, ImageScore(peak, peak, None, key))
                advance()
            result = measure_category(folder, OUTLIERS, None, category, samples, options, MaskCache())
            folder.add_result(OUTLIERS, category, result)
            folder.remove_maps(OUTLIERS, category)
    return make_evaluation(folder, dataset, [OUTLIERS], options, (), facts)


def evaluated(
    dataset: Dataset, backbone: Backbone, methods: Sequence[str], out: Path, seed: int, few: int, floors: bool = True
) -> Evaluation:
    """Return one result of the available methods, which share passes, and of both floors if `floors`."""
    detectors, left_out = load_detectors(methods, backbone)
    for name, reason in left_out.items():
        note(f"{name} is left out: {reason}.")
    floor = {}
    if floors:
        device, clip = next(iter(detectors.values())).torch_engine.device, load_class("clip")
        untrained = create("clip", random_backbone(backbone), config=clip.default_config(backbone))
        engine = TorchEngine(untrained, device=device)
        floor[RANDOM] = Detector(engine)
    slow = {
        name: detector for name, detector in detectors.items() if few and detector.torch_engine.method.request.windows
    }
    fast = {name: detector for name, detector in detectors.items() if name not in slow}
    fewer = limit_images(dataset, few, seed) if few else dataset
    groups = [(fast, dataset), (slow, fewer), (floor, fewer)]
    options = MetricOptions(seed=seed)
    facts: dict[str, Any] = {
        "dataset_title": "Real pictures",
        "data": "packages and folders",
        "split": dataset.split,
        "backbone": backbone.name,
        "backbone_fingerprint": backbone.fingerprint,
        "seed": seed,
        "aupro": options.label,
        "left_out": left_out,
        "command": "python benchmarks/dev_sets.py",
        "version": blemish.__version__,
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    with EvaluationFolder(out, dataset.root) as folder:
        parts = []
        for members, pictures in groups:
            if members:
                run = Run(pictures, members, folder, options, facts)
                with progress(run.todo, ", ".join(members)) as advance:
                    parts.append(run.execute(advance))
        if floors:
            parts.append(rank_outliers(folder, dataset, options, facts))
        method_facts = {name: entry for part in parts for name, entry in part.facts.get("methods", {}).items()}
        result = Evaluation(
            # Set-wide scores are not comparable with scores of single pictures.
            rows=tuple(row for part in parts for row in part.rows if row.scores == "picture"),
            published=(),
            failed=tuple(failure for part in parts for failure in part.failed),
            facts={**parts[0].facts, "methods": method_facts},
            folder=out,
        )
        write_results(result, folder, dataset, report=True)
    return result


def renewed(result: Evaluation, numbers: Mapping[str, Any]) -> Evaluation:
    """Return the stored numbers with the rows of the result in place of theirs.

    Raises:
        UsageError: The stored numbers are of another model, seed or number of pictures.
    """
    model = result.facts["backbone_fingerprint"]
    models = {entry["backbone_fingerprint"] for name, entry in numbers["methods"].items() if name != RANDOM}
    old = [Row(**{k: math.nan if v is None else v for k, v in row.items()}) for row in numbers["rows"]]
    new = {(row.method, row.category): row for row in result.rows}
    rows = [new.pop((row.method, row.category), row) for row in old]
    sizes = {row.category: row.pictures for row in old if row.method == OUTLIERS}
    same = all(row.pictures <= sizes.get(row.category, 0) for row in result.rows)
    if models != {model} or numbers["seed"] != result.facts["seed"] or not same:
        raise UsageError("the stored numbers are of another model, seed or number of pictures; measure all methods")
    method_facts = {**numbers["methods"], **result.facts["methods"]}
    return replace(result, rows=(*rows, *new.values()), facts={**result.facts, "methods": method_facts})


def to_markdown(result: Evaluation) -> str:
    """Return three tables and how to read them."""
    rows = {(row.method, row.category): row for row in result.rows}
    names = list(dict.fromkeys(row.method for row in result.rows))
    sets = [*result.categories, "mean"]
    masked = [name for name in sets if rows[names[0], name].pixel_categories]
    sizes = {name: f"{name} ({max(rows[method, name].pictures for method in names):,})" for name in sets[:-1]}
    facts = result.facts
    parts = [
        f"blemish {facts['version']}, backbone {facts['backbone']} ({facts['backbone_fingerprint']}), "
        f"{facts['created'][:10]}, seed {facts['seed']}; all intervals are 95 % bootstrap intervals over pictures.",
        _table(["image AUROC", *(sizes.get(s, s) for s in sets)], rows, names, [("image_auroc", s) for s in sets]),
        _table(["image AP", *(_share(rows[names[0], s]) for s in sets)], rows, names, [("image_ap", s) for s in sets]),
    ]
    if masked:
        cells = [(metric, s) for s in masked for metric in ("pixel_auroc", "pixel_aupro")]
        head = [f"{s}, {tables.TITLES[metric].removeprefix('pixel ')}" for metric, s in cells]
        parts.append(_table(["pixels", *head], rows, names, cells))
    parts.append(
        f"`{RANDOM}` and `{OUTLIERS}` are floors: the same architecture untrained, and a training-free comparison of "
        "each patch with the rest of its picture. The share in brackets is the AP of chance."
    )
    if facts["left_out"]:
        parts.append(f"Without weights for this backbone, so not measured: {', '.join(facts['left_out'])}.")
    return "\n\n".join(parts) + "\n"


def to_summary(result: Evaluation) -> str:
    """Return the means of the methods that were measured on all pictures, and what they were measured with."""
    facts = result.facts
    means = [row for row in result.rows if row.mean]
    total = max(row.pictures for row in means)
    lines = ["| method | scores | mean image AUROC |", "| --- | --- | ---: |"]
    for row in sorted((row for row in means if row.pictures == total), key=lambda row: -row.image_auroc):
        name, kind = f"`{row.method}`", "zero-shot"
        if row.method in (OUTLIERS, RANDOM):
            name, kind = row.method, "floor"
        elif load_class(row.method).info.transductive:
            kind = "**transductive**"
        lines.append(f"| {name} | {kind} | {_cell(row, 'image_auroc')} |")
    lines.append("")
    lines.append(
        f"{facts['created'][:10]}, blemish {facts['version']}, backbone {facts['backbone']} "
        f"(`{facts['backbone_fingerprint']}`), 95 % bootstrap intervals; `python benchmarks/dev_sets.py`."
    )
    return "\n".join(lines) + "\n"


def _share(row: Row) -> str:
    return "mean" if row.mean else f"{row.category} ({row.anomalous / row.pictures:.2f})"


def _table(
    head: Sequence[str], rows: Mapping[tuple[str, str], Row], names: Sequence[str], cells: Sequence[tuple[str, str]]
) -> str:
    lines = [head, ["---", *["---:"] * len(cells)]]
    lines += [[_named(name, rows), *(_cell(rows[name, s], metric) for metric, s in cells)] for name in names]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _named(name: str, rows: Mapping[tuple[str, str], Row]) -> str:
    """Return the name of a method, with the number of its pictures if other methods have more."""
    own, largest = rows[name, "mean"].pictures, max(row.pictures for row in rows.values())
    return f"`{name}`" if own == largest else f"`{name}` ({own:,} pictures)"


def _cell(row: Row, metric: str) -> str:
    value, low, high = (getattr(row, f"{metric}{end}") for end in ("", "_low", "_high"))
    if math.isnan(value):
        return "-"
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def put_between_markers(path: Path, block: str, first: str = BEGIN, last: str = END) -> None:
    """Replace the text between two markers. Raises UsageError if they are missing."""
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(first)
    _, end, after = rest.partition(last)
    if not (begin and end):
        raise UsageError(f"{path} has no {first} ... {last} around its tables; add the markers")
    new = f"{before}{first}\n{block}{last}{after}"
    write_atomically(path, lambda stream: stream.write(new.encode("utf-8")))


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--folders", type=Path, nargs="*", default=[], help="folders of MVTec-like sets")
    a.add_argument("--methods", default="all", help="comma list; all that have weights by default")
    a.add_argument("--backbone", default="builtin")
    a.add_argument("--out", type=Path, default=ROOT / "runs" / "dev_sets", help="folder for scores, tables and report")
    a.add_argument("--limit", type=int, help="at most so many pictures of each set, to try the command")
    a.add_argument(
        "--few", type=int, default=FEW, help=f"pictures of each set for winclip and {RANDOM}; 0 = all (default {FEW})"
    )
    a.add_argument("--seed", type=int, default=0, help="of the bootstrap, and of what is drawn")
    a.add_argument(
        "--renew", action="store_true", help="measure --methods alone, keep the other rows of the last table"
    )
    a.add_argument("--write", action="store_true", help="put the tables into docs, README and model card")
    o = a.parse_args()
    try:
        if o.write and o.limit is not None:
            raise UsageError("numbers of a few pictures are not to be published: leave out --limit or --write")
        dataset = limit_images(gathered(o.folders), o.limit, o.seed)
        note(f"{count(len(dataset), 'picture')} in {count(len(dataset.categories), 'set')}")
        backbone, methods = load_backbone(o.backbone), o.methods.split(",")
        result = evaluated(dataset, backbone, methods, o.out, o.seed, o.few, floors=not o.renew)
        if o.renew:
            result = renewed(result, json.loads(NUMBERS.read_text(encoding="utf-8")))
        block = to_markdown(result)
        print(block)
        for failure in result.failed:
            note(f"{failure.path}: {failure.reason}")
        if o.write:
            for path in TABLES:
                put_between_markers(path, block)
            put_between_markers(README, to_summary(result), SUMMARY_BEGIN, SUMMARY_END)
            numbers = {"methods": result.facts["methods"], "rows": [row.to_dict() for row in result.rows]}
            write_json(NUMBERS, {key: result.facts[key] for key in ("version", "created", "seed", "aupro")} | numbers)
    except BlemishError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
