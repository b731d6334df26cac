"""Every family, every kind of defect and the streams draw the same pictures as before.

    python -m synthesis.tests.test_golden        write the file again, only where a change of the pictures is intended

Training refers to pictures by stream and number, so the same seed must draw the same picture. The mean brightness holds
on any machine within a tolerance, the checksums to the bit on the machine that wrote the file.
"""

from __future__ import annotations

import hashlib
import json
import platform
from pathlib import Path

import cv2
import numpy as np

from synthesis.defects import KINDS, one_defect
from synthesis.samples import make_product, make_sample
from synthesis.scenes import FAMILIES, make_scene

FILE = Path(__file__).with_name("golden.json")
#: Side of the pictures in pixels: small, so that all families are drawn within seconds.
SIZE = 96
#: Streams that training and validation refer to by number.
STREAMS = (11, 20_001, 20_002, 20_003, 31_337, 31_338, 40_404, 987_654_321)


def stand_ins() -> list[np.ndarray]:
    """Return drawn stand-ins for photographs (3 channels), cutouts (4) and slices of heads (1)."""
    rng = np.random.default_rng(5)
    rows, columns = np.mgrid[:240, :240]
    round_mask = np.hypot(rows - 120, columns - 120) < 100
    images = []
    for channels in (3, 3, 4, 4, 1, 1):
        waves = np.sin(
            rows[..., None] / rng.uniform(3, 30, channels) + columns[..., None] / rng.uniform(3, 30, channels)
        )
        image = (128 + 90 * waves + rng.normal(0, 12, (240, 240, channels))).clip(0, 255).astype(np.uint8)
        if channels == 4:
            image[..., 3] = 255 * round_mask
            image[~round_mask] = 0
        images.append(image if channels > 1 else image[..., 0] * round_mask)
    return images


def summary(*arrays: np.ndarray) -> list[object]:
    """Return a checksum of the arrays, and the mean of the first one in a grid of 2 x 2."""
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()[:16]
    middle = len(arrays[0]) // 2
    parts = [
        arrays[0][rows, columns]
        for rows in (slice(middle), slice(middle, None))
        for columns in (slice(middle), slice(middle, None))
    ]
    return [digest, *(round(float(part.mean()), 2) for part in parts)]


def draw_all() -> dict[str, list[object]]:
    """Draw every family, every kind of defect and the first pictures of every stream."""
    photos = stand_ins()
    results = {}
    for number, (name, (family, _)) in enumerate(FAMILIES.items()):
        for which, given in (("plain", ()), ("photos", photos)):
            scene = family(np.random.default_rng([1, number]), SIZE, given)
            extra = [array for array in (*scene.instances, scene.background) if array is not None]
            results[f"family {name}, {which}"] = summary(scene.image, scene.foreground, *extra)
    for number, kind in enumerate(KINDS):
        for attempt in range(60):
            rng = np.random.default_rng([2, number, attempt])
            scene = make_scene(rng, SIZE, photos)
            defect = one_defect(rng, scene, kind, photos)
            if defect is not None:
                results[f"defect {kind}, attempt {attempt}"] = summary(defect.image, defect.mask)
                break
        else:
            results[f"defect {kind}, none"] = ["", 0.0, 0.0, 0.0, 0.0]
    for seed in STREAMS:
        for index in range(3):
            image, mask, words = make_sample(seed, index, photos, SIZE)
            results[f"sample {seed} {index}: {', '.join(words)}"] = summary(image, mask)
        for number, (image, mask, words) in enumerate(make_product(seed, 0, photos, SIZE, 4)):
            results[f"product {seed} {number}: {', '.join(words)}"] = summary(image, mask)
    return results


def machine() -> str:
    """Return a fingerprint of what decides the last bit: the processor, NumPy and OpenCV."""
    cpu_info = Path("/proc/cpuinfo")
    text = cpu_info.read_text() if cpu_info.exists() else platform.processor()
    model = [line for line in text.splitlines() if line.startswith(("model name", "flags"))][:2]
    return hashlib.sha256("\n".join([*model, np.__version__, cv2.__version__]).encode()).hexdigest()[:16]


def test_pictures_are_the_same() -> None:
    golden = json.loads(FILE.read_text())
    results = draw_all()
    assert list(results) == list(golden["results"])
    for name, (digest, *means) in golden["results"].items():
        np.testing.assert_allclose(results[name][1:], means, atol=2, err_msg=name)
        if golden["machine"] == machine():
            assert results[name][0] == digest, name


if __name__ == "__main__":
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(values)}" for name, values in draw_all().items())
    FILE.write_text(f'{{"machine": "{machine()}", "results": {{\n{lines}\n}}}}\n')
