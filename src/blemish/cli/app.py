"""The table of commands. Each is imported when it is run, so that help and version need no model and no torch."""

from __future__ import annotations

from cyclopts import App

from blemish import __version__

# The first line goes into the list of commands, and all of it above the command's own options. It is here and not taken
# from the functions, since a command's module is not imported for the list.
DETECT = (
    "Score pictures, draw where they are odd, rank them.\n\n"
    "Without --threshold pictures are ranked, and nothing is called good or bad. With --out a run can be stopped at "
    "any time; the same command then goes on: it skips what is done, and redoes what changed or was done with other "
    "settings."
)
DEMO = (
    "Find anomalies in real pictures, and measure how well that went.\n\n"
    "Solar cells and textiles with known labels, from the packages of pip install 'blemish[demo]'. Nothing is fetched."
)
EVALUATE = (
    "Measure how well methods do on a labelled data set, beside what was published.\n\n"
    "Every picture goes through the backbone once for all methods that compute alike. With --out a run can be stopped "
    "at any time; the same command then goes on."
)
TRAIN = (
    "Train what a method learns, on pictures with masks; the backbone stays frozen.\n\n"
    "Weights, checkpoint and losses are kept as it goes, so a run can be stopped at any time; the same command with "
    "--resume goes on to the same weights."
)
EXPORT = (
    "Write a whole detector to one file for ONNX Runtime or OpenVINO.\n\n"
    "Pictures in, score and map out, without PyTorch. The file is compared with PyTorch before it is kept; "
    "`blemish detect --model FILE` runs it."
)
WEIGHTS = {
    "list": "List the published weights.",
    "pull": "Fetch published weights and check them.",
    "import": "Turn an authors' file into blemish's own.",
    "show": "Say what a weights file is.",
}

app = App(
    name="blemish",
    help="Find defects in pictures of things never seen before, with a frozen vision-language model.",
    version=f"blemish {__version__}",
    version_flags=["--version"],
    help_format="plaintext",
    suppress_keyboard_interrupt=False,  # what is finished has to be said first
)
app.command("blemish.cli.detect:detect", name="detect", help=DETECT)
app.command("blemish.cli.methods:methods", name="methods", help="List the methods.")
app.command("blemish.cli.info:info", name="info", help="Say what a picture, a backbone or a weights file is.")
app.command("blemish.cli.demo:demo", name="demo", help=DEMO)

sets = App(name="datasets", help="List the data sets, or check one on the disk.", help_format="plaintext")
sets.command("blemish.cli.datasets:check", name="check", help="Count a data set and name what is missing.")
app.command(sets)


@sets.default
def _datasets(*, json: bool = False) -> int:
    """List the data sets.

    Args:
        json: Print one JSON object per data set instead of a table.
    """
    from blemish.cli.datasets import datasets

    return datasets(json=json)


app.command("blemish.cli.evaluate:evaluate", name="evaluate", help=EVALUATE)
app.command("blemish.cli.train:train", name="train", help=TRAIN)
app.command("blemish.cli.export:export", name="export", help=EXPORT)
weights = App(name="weights", help="Weights that authors published: list, fetch, convert.", help_format="plaintext")
for verb, words in WEIGHTS.items():
    weights.command(f"blemish.cli.weights:weights_{verb}", name=verb, help=words)
app.command(weights)
