"""Make the pictures of docs/page.md: screenshots of the report and of the service, with drawn parts.

    python docs/make_page_images.py

It draws plates with four holes, fits a profile, starts `blemish serve`, and looks at both pages in headless Chromium
(`$CHROMIUM`, else the one on the PATH; Playwright drives it). It takes about three minutes on two cores.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from playwright.sync_api import Browser, Page, sync_playwright

import blemish
from blemish.maps import encode_map
from blemish.page import MAP_SIDE, PagePicture, write_page

IMAGES = Path(__file__).resolve().parent / "images"
SIZE = (640, 480)
#: The documentation takes no larger pictures.
MAX_BYTES = 195_000
GOOD, NEW, DEFECTIVE = 20, 14, 6
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]


def draw_plate(seed: int, defect: str | None = None) -> Image.Image:
    """Return a brushed plate with four holes and a groove, each a little different; perhaps with a defect."""
    rng = np.random.default_rng(seed)
    width, height = SIZE
    brushed = rng.normal(0, 1, (height, 1)).repeat(width, 1) * 5 + rng.normal(0, 1.5, (height, width))
    light = np.linspace(-14, 14, width)[None, :] + rng.normal(0, 4)
    pixels = np.stack([brushed + light + base for base in (152, 158, 163)], axis=-1)
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(1.2))
    draw = ImageDraw.Draw(image)
    dx, dy = rng.integers(-4, 5, 2)
    holes = [(x + dx, y + dy) for x in (90, 550) for y in (80, 400)]
    if defect == "hole":
        holes.pop(int(rng.integers(4)))
    for x, y in holes:
        draw.ellipse((x - 26, y - 26, x + 26, y + 26), fill=(120, 125, 130))
        draw.ellipse((x - 20, y - 20, x + 20, y + 20), fill=(38, 40, 44))
    draw.rounded_rectangle((190 + dx, 150 + dy, 450 + dx, 330 + dy), 28, outline=(96, 101, 106), width=7)
    x, y = rng.integers(210, 430), rng.integers(170, 310)
    if defect == "scratch":
        ends = [(x, y), (x + rng.integers(30, 90), y + rng.integers(-60, 60))]
        draw.line(ends, fill=(226, 229, 232), width=3)
        draw.line([(a, b + 2) for a, b in ends], fill=(84, 88, 92), width=1)
    elif defect == "stain":
        spot = Image.new("L", SIZE)
        ImageDraw.Draw(spot).ellipse((x - 38, y - 24, x + 30, y + 28), fill=170)
        image.paste((92, 66, 38), mask=spot.filter(ImageFilter.GaussianBlur(7)))
    elif defect == "dent":
        spot = Image.new("L", SIZE)
        ImageDraw.Draw(spot).ellipse((x - 15, y - 15, x + 15, y + 15), fill=190)
        image.paste((60, 64, 68), mask=spot.filter(ImageFilter.GaussianBlur(3)))
        draw.arc((x - 17, y - 17, x + 17, y + 17), 20, 150, fill=(236, 238, 240), width=3)
    return image


def draw_all(folder: Path) -> tuple[list[Path], list[Path]]:
    """Write the good pictures and the new ones, some of which have defects."""
    good, new = [], []
    for seed in range(GOOD):
        good.append(folder / "good" / f"plate {seed:03d}.jpg")
    for seed in range(NEW):
        new.append(folder / "line 2" / f"plate {seed + 100:03d}.jpg")
    for path in (*good, *new):
        path.parent.mkdir(exist_ok=True)
        seed = int(path.stem[-3:])
        kind = ("scratch", "stain", "dent", "hole")[seed % 4] if 100 <= seed < 100 + DEFECTIVE else None
        draw_plate(seed, kind).save(path, quality=92)
    return good, new


def open_page(browser: Browser, url: str, width: int, height: int, scheme: str = "light") -> Page:
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(url)
    page.wait_for_selector("html[data-ready]")
    return page


def save(page: Page, name: str) -> None:
    """Write a screenshot; with fewer shades where it would be too large for the documentation."""
    time.sleep(0.5)
    path = IMAGES / name
    page.screenshot(path=path)
    for step in (1, 2, 4, 8):
        with Image.open(path) as image:
            rough = image.convert("RGB").point(lambda value, step=step: min(round(value / step) * step, 255))
        rough.save(path, optimize=True)
        if path.stat().st_size < MAX_BYTES:
            break
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


def wait(page: Page, expression: str, seconds: float = 900) -> None:
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        if time.monotonic() > end:
            raise SystemExit(f"still not true after {seconds:.0f} s: {expression}")
        time.sleep(0.1)


def report(folder: Path, profile: Path, new: list[Path]) -> Path:
    detector = blemish.load(str(profile))
    results = detector([str(path) for path in new])
    pictures = (PagePicture({**r.to_dict(), "error": None}, encode_map(r, max_side=MAP_SIDE)) for r in results)
    facts = {"name": "plate", "object_name": "plate", "promise": detector.limits.promise}
    size = write_page(folder / "report.html", pictures, title="Line 2, morning shift", profile=facts)
    print(size)
    return folder / "report.html"


def main() -> None:
    executable = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        raise SystemExit("there is no Chromium; install one or set CHROMIUM to its path")
    with tempfile.TemporaryDirectory() as text, sync_playwright() as playwright:
        os.chdir(text)  # so that the page shows short paths
        folder = Path()
        good, new = draw_all(folder)
        fitted = blemish.load("joint", object_name="plate").fit([str(path) for path in good]).profile
        assert fitted is not None
        profile = fitted.save(folder / "plate.profile")
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        page = open_page(browser, report(folder, profile, new).absolute().as_uri(), 1280, 800)
        wait(page, "window.blemish.view.map !== null")
        for key in "rr":
            page.keyboard.press(key)
        wait(page, "window.blemish.view.map !== null")
        save(page, "page-report.png")

        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [sys.executable, "-m", "blemish", "serve", "--profile", str(profile), "--port", str(port)]
        server = subprocess.Popen(command)
        try:
            url = f"http://127.0.0.1:{port}/"
            for _ in range(3000):
                try:
                    with urllib.request.urlopen(f"{url}health/ready"):
                        break
                except OSError:
                    time.sleep(0.2)
            page = open_page(browser, url, 1280, 800, "dark")
            page.set_input_files("#folder", str(Path("line 2").absolute()))
            wait(page, f"window.blemish.state.pictures.filter((p) => p.stage === 'done').length === {NEW}")
            wait(page, "window.blemish.view.map !== null")
            page.keyboard.press("r")
            page.keyboard.press("r")
            wait(page, "window.blemish.view.map !== null")
            save(page, "page-service.png")
            phone = open_page(browser, url, 360, 740)
            phone.set_input_files("#files", [str(path.absolute()) for path in new[:6]])
            wait(phone, "window.blemish.state.pictures.filter((p) => p.stage === 'done').length === 6")
            wait(phone, "window.blemish.view.map !== null")
            phone.evaluate("document.getElementById('viewer').scrollIntoView()")
            save(phone, "page-phone.png")
        finally:
            server.terminate()
            server.wait(60)
        browser.close()


if __name__ == "__main__":
    main()
