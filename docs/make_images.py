"""Make the picture of the README: textiles and their anomaly maps.

    python docs/make_images.py

The pictures come from the package `conformal-clip-data` (MIT; Megahed and others), which `pip install 'blemish[demo]'`
installs.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from PIL import Image

import blemish

HERE = Path(__file__).resolve().parent
SIDE, GAP = 250, 8
PICTURES = ("nominal/textile_0001.jpg", "local/textile_0001.jpg", "local/textile_0004.jpg", "local/textile_0008.jpg")


def main() -> None:
    package = importlib.util.find_spec("conformal_clip_data")
    if package is None or package.origin is None:
        raise SystemExit("the pictures are not installed; run: pip install 'blemish[demo]'")
    folder = Path(package.origin).parent / "data" / "textile_images" / "simulated"
    detector = blemish.load("anomalyclip", precision="float32")
    width = len(PICTURES) * (SIDE + GAP) - GAP
    sheet = Image.new("RGB", (width, 2 * SIDE + GAP), "white")
    for column, name in enumerate(PICTURES):
        image = blemish.read_image(folder / name)
        detection = detector(image)
        for row, drawn in enumerate((image.image.convert("RGB"), detection.overlay(image))):
            place = (column * (SIDE + GAP), row * (SIDE + GAP))
            sheet.paste(drawn.resize((SIDE, SIDE), Image.Resampling.LANCZOS), place)
        print(f"{name}: score {detection.score:.3f}")
    out = HERE / "images" / "overlay.jpg"
    out.parent.mkdir(exist_ok=True)
    sheet.save(out, quality=82, optimize=True)
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
