"""The table of commands. Each is imported when it is run, so that help and version need no model and no torch."""

from __future__ import annotations

from cyclopts import App

from blemish import __version__

app = App(
    name="blemish",
    help="Find defects in pictures of things never seen before, with a frozen vision-language model.",
    version=f"blemish {__version__}",
    version_flags=["--version"],
    help_format="plaintext",
    suppress_keyboard_interrupt=False,  # what is finished has to be said first
)
app.command("blemish.cli.detect:detect", name="detect", help="Score pictures, draw where they are odd, rank them.")
app.command("blemish.cli.methods:methods", name="methods", help="List the methods.")
app.command("blemish.cli.info:info", name="info", help="Say what a picture, a backbone or a weights file is.")
app.command("blemish.cli.demo:demo", name="demo", help="Find anomalies in real pictures that come as packages.")
