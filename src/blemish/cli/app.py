"""The table of commands. A command is imported when it runs, so that help and version do not load PyTorch."""

from __future__ import annotations

from cyclopts import App

from blemish import __version__

# The first line is shown in the list of commands, the whole text above a command's options. The texts are here because
# the list does not import the commands.
DETECT = (
    "Score pictures, rank them, and draw where they are anomalous.\n\n"
    "Rank a folder and write an overlay of each picture:\n\n"
    "    blemish detect photos/ --out results/\n\n"
    "Compare with good pictures and give verdicts:\n\n"
    "    blemish detect photos/ --method winclip --reference good/*.png --threshold 60%\n\n"
    "A map holds one number per pixel, higher where the picture is more anomalous. A heatmap is the map in colours. An "
    "overlay is the heatmap laid over the picture. Colours have a fixed scale: they mean the same in all pictures.\n\n"
    "Without a threshold or a profile pictures are only ranked. With --out a run can be stopped at any time, and the "
    "same command continues: it skips what is complete and repeats what changed or was done with other settings."
)
SCAN = (
    "Score a large collection: folders, lists, Parquet files, tar shards, object stores.\n\n"
    "    blemish scan photos/ 's3://bucket/shard-{000..127}.tar' --out scan/\n\n"
    "The pictures are split into parts, and the rows of each part appear in scan/parts/ as one Parquet file. A scan "
    "can be stopped at any time, and the same command continues with the next part: each picture has one row at "
    "the end. --shard 3/8 does the third eighth of it, beside seven other processes on one folder."
)
JUDGE = (
    "Give verdicts again, without the model.\n\n"
    "`blemish detect --out` keeps scores and maps, so another threshold takes a second or two for 1,000 pictures:\n\n"
    "    blemish detect photos/ --out results/\n\n"
    "    blemish judge results/ --threshold 60%\n\n"
    "Labels, masks, regions and tables are made again. Overlays that show a verdict are drawn again, too, which takes "
    "longer, since the pictures are read."
)
FIT = (
    "Make a profile of the good pictures of one product: memory, thresholds with a promise, scale of heatmaps.\n\n"
    "20 good pictures are of use, 100 promise 1 % false alarms. The promise holds for pictures of the same product, "
    "camera and light. `blemish detect PICTURES --profile FILE` then gives verdicts. --profile with --add or --remove "
    "changes a profile."
)
DEMO = (
    "Find anomalies in real pictures, and measure how well that works.\n\n"
    "The pictures are solar cells and textiles with known labels, from the packages of pip install 'blemish[demo]'. "
    "Nothing is downloaded."
)
EVALUATE = (
    "Measure methods on a labelled data set, beside published numbers.\n\n"
    "Methods whose features are computed alike share one backbone pass per picture. With --out a run can be stopped at "
    "any time, and the same command continues."
)
SUBMIT = (
    "Write the files that the evaluation server of MVTec AD 2 takes, check them, and pack them.\n\n"
    "The private test pictures have no labels here: only the server scores them. Thresholds have to be fixed before. A "
    "run can be stopped at any time, and the same command continues."
)
TRAIN = (
    "Train the learnt parts of a method on pictures with masks; the backbone stays frozen.\n\n"
    "Weights, checkpoint and losses are written during training, so a run can be stopped at any time; the same command "
    "with --resume continues to the same weights."
)
EXPORT = (
    "Write a whole detector to one file for ONNX Runtime or OpenVINO.\n\n"
    "The file takes pictures and gives scores and maps, without PyTorch. It is compared with PyTorch before it is "
    "written to its place. `blemish detect --model FILE` runs it."
)
SERVE = (
    "Answer over HTTP with one loaded model: a page in the browser, a REST API, a watched folder.\n\n"
    "It needs an extra: pip install 'blemish[serve]'. Serve a profile, and open http://127.0.0.1:8000/ in a browser:"
    "\n\n"
    "    blemish serve --profile part.profile\n\n"
    "SIGTERM and Ctrl-C finish what was accepted."
)
WEIGHTS = {
    "list": "List the published weights.",
    "pull": "Download published weights and check them.",
    "import": "Convert an authors' file to blemish's format.",
    "show": "Describe a weights file.",
}

app = App(
    name="blemish",
    help="Find defects in pictures without training examples, with a frozen vision-language model.",
    version=f"blemish {__version__}",
    version_flags=["--version"],
    help_format="markdown",
    suppress_keyboard_interrupt=False,  # a command first reports what is finished
)
app.command("blemish.cli.detect:detect", name="detect", sort_key=1, help=DETECT)
app.command("blemish.cli.scan:scan", name="scan", sort_key=1, help=SCAN)
app.command("blemish.cli.judge:judge", name="judge", sort_key=1, help=JUDGE)
app.command("blemish.cli.fit:fit", name="fit", sort_key=2, help=FIT)
app.command("blemish.cli.methods:methods", name="methods", sort_key=4, help="List the methods.")
app.command(
    "blemish.cli.info:info",
    name="info",
    sort_key=3,
    help="Describe a picture, a profile, a backbone or a weights file.",
)
app.command("blemish.cli.demo:demo", name="demo", sort_key=5, help=DEMO)

sets = App(name="datasets", sort_key=7, help="List the data sets, or check one on the disk.", help_format="markdown")
sets.command("blemish.cli.datasets:check", name="check", help="Count a data set and list what is missing.")
app.command(sets)


@sets.default
def _datasets(*, json: bool = False) -> int:
    """List the data sets.

    Args:
        json: Print one JSON object per data set instead of a table.
    """
    from blemish.cli.datasets import datasets

    return datasets(json=json)


app.command("blemish.cli.evaluate:evaluate", name="evaluate", sort_key=6, help=EVALUATE)
app.command("blemish.cli.serve:serve", name="serve", sort_key=12, help=SERVE)
app.command("blemish.cli.submit:submit", name="submit", sort_key=11, help=SUBMIT)
app.command("blemish.cli.train:train", name="train", sort_key=8, help=TRAIN)
app.command("blemish.cli.export:export", name="export", sort_key=10, help=EXPORT)
weights = App(
    name="weights",
    sort_key=9,
    help="List, download and convert weights that authors published.",
    help_format="markdown",
)
for verb, words in WEIGHTS.items():
    weights.command(f"blemish.cli.weights:weights_{verb}", name=verb, help=words)
app.command(weights)
