"""The page as a report: a file opened from disk in a real browser."""

from __future__ import annotations

import csv
import io
import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from page_helpers import HOSTILE, SIZE, THRESHOLD, detection, picture, until
from PIL import Image

from blemish.errors import OutputError
from blemish.maps import decode_map, encode_map
from blemish.page import MAP_SIDE, PagePicture, content_security_policy, make_preview, write_page
from blemish.regions import decode_mask, find_regions
from blemish.types import PathLike

if TYPE_CHECKING:
    from playwright.sync_api import Page


def open_page(page: Page, path: PathLike) -> None:
    page.goto(Path(path).as_uri())
    page.wait_for_selector("html[data-ready]")
    until(page, "window.blemish.view.map !== null || window.blemish.state.shown.length === 0")


def names(page: Page) -> list[str]:
    """Return the names in the list, from the top."""
    rows = page.locator(".item").all()
    pairs = [(int(row.get_attribute("aria-posinset") or 0), row.locator(".item-name").inner_text()) for row in rows]
    return [name for _, name in sorted(pairs)]


def set_slider(page: Page, name: str, value: float) -> None:
    page.locator(f"#{name}").evaluate(
        "(input, value) => { input.value = value; input.dispatchEvent(new Event('input')); }", value
    )
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def save(page: Page, kind: str) -> str:
    page.click("#open-export")
    with page.expect_download() as download:
        page.click(f"[data-export={kind}]")
    page.click("#export form button")
    return Path(download.value.path()).read_text(encoding="utf-8")


def test_a_report_sorts_shows_and_says_what_is_missing(page: Page, report: Path) -> None:
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    open_page(page, report)
    assert page.title() == "Drawn <parts>"
    assert page.locator("h1").inner_text() == "Drawn <parts>"
    found = names(page)
    # The hostile name is a name and nothing else: its part after the last "/".
    assert found[0] == HOSTILE.rpartition("/")[2]
    assert page.locator("#picture-name").get_attribute("title") == HOSTILE
    scores = page.evaluate("window.blemish.state.shown.map((picture) => picture.entry.score ?? -1)")
    assert scores == sorted(scores, reverse=True)
    assert "worst" not in page.inner_text("#list-note")
    page.press("#list", "End")
    assert "is cut short" in page.inner_text("#no-picture")
    page.evaluate(
        "window.blemish.state.shown.find((p) => p.entry.path.endsWith('part_4.png') && !p.entry.path.includes('sub'))"
    )
    page.fill("#search", "part_4")
    until(page, "window.blemish.state.shown.length === 2")
    for _ in range(2):
        until(page, "window.blemish.view.map !== null")
        if page.is_visible("#no-picture"):
            break
        page.press("#list", "ArrowDown")
        page.wait_for_timeout(150)
    assert "does not exist" in page.inner_text("#no-picture") or "no such" in page.inner_text("#no-picture").lower()
    assert not [url for url in requests if not url.startswith(("file:", "data:", "blob:"))]


def test_the_slider_of_scores_changes_verdicts(page: Page, report: Path) -> None:
    open_page(page, report)
    scores = np.array(
        [value for value in page.evaluate("window.blemish.state.pictures.map((p) => p.entry.score)") if value]
    )
    middle = float(np.mean(np.sort(scores)[3:5]))
    set_slider(page, "threshold", middle)
    assert page.inner_text("#counts").startswith("6 rejected, 4 passed of 11 pictures.")
    for threshold in (THRESHOLD, float(np.sort(scores)[-2])):
        rejected = int((scores >= threshold).sum())
        page.fill("#threshold-number", repr(threshold))
        page.press("#threshold-number", "Enter")
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        assert page.inner_text("#counts").startswith(f"{rejected} rejected, {10 - rejected} passed of 11 pictures.")
    assert rejected == 2
    until(page, "document.querySelectorAll('.item .tag.reject').length === 2")
    page.select_option("#filter-verdict", "reject")
    until(page, "window.blemish.state.shown.length === 2")
    page.click("#reset")
    until(page, "window.blemish.state.threshold === null")
    page.fill("#search", "no such name")
    until(page, "document.getElementById('no-picture').textContent.startsWith('No picture fits the filters.')")


def test_regions_are_those_of_python(page: Page, tmp_path: Path) -> None:
    # Odd sizes, so that cells at the right and lower edge are cut; a step above 1.
    rng = np.random.default_rng(3)
    blurred = np.kron(rng.random((25, 37)), np.ones((8, 8)))[:197, :293].astype(np.float32)
    values = (0.7 * blurred + 0.3 * rng.random(blurred.shape)).astype(np.float32)
    size = (293, 197)
    kept = detection(0)
    results = [
        type(kept)(score=0.9, anomaly_map=values, map_range=(0.0, 1.0), size=size, path="a.png", threshold=0.5),
        detection(7, "b.png"),
    ]
    open_page(page, _report_of(tmp_path, results))
    compared = 0
    for result in results:
        for side in (None, 100):
            png = encode_map(result, max_side=side)
            decoded = decode_map(png)
            for threshold in (0.5, 0.62):
                for area in (1, 30):
                    mask = decoded.values >= threshold
                    expected = find_regions(mask, decoded.values, min_area=area, step=decoded.step, size=result.size)
                    text = page.evaluate(
                        """async ([png, lowest, minArea, size]) => {
                            const { decodeMap, findRegions, bytesOf } = window.blemish;
                            const map = await decodeMap(bytesOf(png));
                            return JSON.stringify(findRegions(map, lowest, { minArea, size }));
                        }""",
                        [_base64(png), threshold, area, result.size],
                    )
                    drawn = json.loads(text)
                    assert len(drawn) == len(expected)
                    for ours, theirs in zip(drawn, expected, strict=True):
                        assert ours["box"] == list(theirs.box)
                        assert ours["polygon"] == [[list(point) for point in ring] for ring in theirs.polygon]
                        assert (ours["area"], ours["peak"]) == (theirs.area, theirs.peak)
                        assert ours["mean"] == pytest.approx(theirs.mean)
                        assert ours["centroid"] == pytest.approx(theirs.centroid)
                    compared += len(expected)
    assert compared > 200


def test_the_slider_of_pixels_outlines_regions(page: Page, report: Path) -> None:
    open_page(page, report)
    values = decode_map(encode_map(detection(8))).values
    for share in (0.4, 0.3, 0.148):
        set_slider(page, "mask-threshold", share)
        until(page, f"Math.abs(window.blemish.state.maskThreshold - {share}) < 1e-6")
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        expected = find_regions(values >= share, values)
        rows = page.locator("#region-rows tr").all_inner_texts()
        assert [int(row.split("\t")[1].replace(",", "")) for row in rows] == [region.area for region in expected][:50]
        assert float(rows[0].split("\t")[2]) == pytest.approx(expected[0].peak, abs=6e-4)
    page.fill("#min-area", "20")
    page.press("#min-area", "Enter")
    until(page, "window.blemish.state.minArea === 20")
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    large = [region for region in expected if region.area >= 20]
    assert page.locator("#region-rows tr").count() == len(large) < len(expected)
    page.locator("#region-rows button").last.click()
    assert page.evaluate("window.blemish.view.zoom") > 1
    assert page.evaluate("window.blemish.view.marked") == len(large) - 1


def test_review_by_keyboard_counts_and_is_kept(page: Page, report: Path) -> None:
    open_page(page, report)
    order = page.evaluate("window.blemish.state.shown.map((picture) => picture.entry.path)")
    page.keyboard.press("p")  # the worst one passes: a false alarm
    page.keyboard.press("r")
    page.keyboard.press("u")
    page.keyboard.press("n")
    page.keyboard.press("b")
    assert page.evaluate("window.blemish.view.picture.entry.path") == order[3]
    page.press("#list", "End")
    page.keyboard.press("ArrowUp")
    until(page, "window.blemish.view.map !== null")
    page.keyboard.press("r")  # the best one is rejected: missed
    counts = page.inner_text("#counts")
    assert "4 reviewed (1 unsure): 1 false alarm of 2 rejected, 1 missed of 1 others." in counts
    page.select_option("#filter-review", "false alarm")
    until(page, "window.blemish.state.shown.length === 1")
    page.select_option("#filter-review", "no")
    until(page, "window.blemish.state.shown.length === 7")
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert "4 reviewed" in page.inner_text("#counts")
    page.keyboard.press("x")
    assert "3 reviewed" in page.inner_text("#counts")
    page.focus("#search")
    page.keyboard.type("prr")  # letters in a text field are letters
    assert "3 reviewed" in page.inner_text("#counts")
    page.focus("#next")
    page.keyboard.press("?")
    assert page.is_visible("#help")
    listed = page.locator("#key-rows kbd").all_inner_texts()
    for button in page.locator("button[aria-keyshortcuts]").all():
        key, word = button.locator("kbd").text_content() or "", (button.text_content() or "").lstrip("‹ ")
        assert word.startswith(key), "a key is the first letter of its word"
        assert key.lower() in listed
    page.uncheck("#keys-on")
    page.keyboard.press("Escape")
    page.focus("#next")
    page.keyboard.press("r")
    assert "3 reviewed" in page.inner_text("#counts")


def test_a_good_picture_of_the_profile_is_no_success(page: Page, report: Path) -> None:
    open_page(page, report)
    page.keyboard.press("p")  # the worst one: a false alarm
    assert "1 false alarm of 1 rejected" in page.inner_text("#counts")
    note = "one of the profile's good pictures"
    page.evaluate("(note) => { window.blemish.state.shown[0].entry.notes = [note]; }", note)
    page.keyboard.press("r")
    until(page, "document.getElementById('counts').textContent.includes('1 picture in the profile')")
    assert "2 reviewed: 0 false alarms of 1 rejected" in page.inner_text("#counts")


def test_a_pass_with_regions_says_so(page: Page, report: Path) -> None:
    open_page(page, report)
    words = "The score of the whole picture passes, and yet these places look odd"
    regions = page.evaluate("window.blemish.view.regions.length")
    assert regions, "the worst picture has regions"
    assert words not in page.inner_text("#region-note"), "the worst picture is rejected"
    page.evaluate("() => { window.blemish.view.picture.entry.threshold = 2; }")
    page.keyboard.press("u")
    page.keyboard.press("b")
    until(page, f"document.getElementById('region-note').textContent.includes('{words}')")


def test_exports_are_what_other_tools_read(page: Page, report: Path) -> None:
    open_page(page, report)
    page.keyboard.press("r")
    page.keyboard.press("p")
    paths = page.evaluate("window.blemish.state.shown.map((picture) => picture.entry.path)")
    text = save(page, "csv")
    assert text.startswith("\ufeffpicture,verdict,review,")
    rows = list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline="")))
    by_path = {row["picture"]: row for row in rows}
    assert len(rows) == 11
    assert by_path[HOSTILE]["review"] == "reject"
    assert by_path[HOSTILE]["verdict"] == "reject"
    assert float(by_path[HOSTILE]["score"]) == detection(8).score
    assert (
        by_path["'=cmd()|'x'.png"]["error"].startswith("''=cmd()") or "cut short" in by_path["'=cmd()|'x'.png"]["error"]
    )
    content = json.loads(save(page, "json"))
    assert content["profile"] == "drawn.profile"
    first = next(row for row in content["pictures"] if row["path"] == HOSTILE)
    expected = detection(8).regions
    assert [region["area"] for region in first["regions"]] == [region.area for region in expected]
    coco = json.loads(save(page, "coco"))
    assert len(coco["images"]) == 10
    image = next(image for image in coco["images"] if image["file_name"] == HOSTILE)
    assert image["review"] == "reject"
    marks = [mark for mark in coco["annotations"] if mark["image_id"] == image["id"]]
    assert [mark["area"] for mark in marks] == [region.area for region in expected]
    holed = [mark for mark in marks if isinstance(mark["segmentation"], dict)]
    assert holed, "a ring has a hole"
    for mark in holed:
        assert decode_mask(mark["segmentation"]).sum() == mark["area"]
    passed = next(image for image in coco["images"] if image["review"] == "pass")
    assert passed["file_name"] == paths[1]
    assert not [mark for mark in coco["annotations"] if mark["image_id"] == passed["id"]]
    tasks = json.loads(save(page, "label-studio"))
    task = next(task for task in tasks if task["data"]["image"] == HOSTILE)
    assert task["annotations"][0]["result"][-1]["value"] == {"choices": ["reject"]}
    points = np.array(task["predictions"][0]["result"][0]["value"]["points"])
    assert points.min() >= 0
    assert points.max() <= 100
    assert task["predictions"][0]["score"] == detection(8).score
    page.click("#open-export")
    page.check("#only-reviewed")
    with page.expect_download() as download:
        page.click("[data-export=csv]")
    assert len(Path(download.value.path()).read_text(encoding="utf-8").strip().split("\n")) == 3


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1", " =1", "\r=1"])
def test_a_text_that_begins_like_a_formula_is_guarded(page: Page, report: Path, text: str) -> None:
    open_page(page, report)
    assert page.evaluate("(text) => window.blemish.csvCell(text)", text).lstrip('"').startswith("'")


def test_zoom_and_pan(page: Page, report: Path) -> None:
    open_page(page, report)
    box = page.locator("#heatmap").bounding_box()
    assert box is not None
    before = page.locator("#heatmap").evaluate("(canvas) => canvas.toDataURL()")
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.wheel(0, -600)
    until(page, "window.blemish.view.zoom > 1.5")
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 + 60, box["y"] + box["height"] / 2, steps=3)
    page.mouse.up()
    assert page.evaluate("window.blemish.view.centre[0]") < 0.5
    centre = page.evaluate("window.blemish.view.centre[0]")
    page.keyboard.press("Shift+ArrowRight")
    assert page.evaluate("window.blemish.view.centre[0]") > centre
    page.keyboard.press("0")
    assert page.evaluate("window.blemish.view.zoom") == 1
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert page.locator("#heatmap").evaluate("(canvas) => canvas.toDataURL()") == before
    set_slider(page, "opacity", 0)
    page.uncheck("#outlines")
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    same = page.evaluate(
        "document.getElementById('heatmap').toDataURL() === document.getElementById('original').toDataURL()"
    )
    assert same, "without heatmap and outlines both panes show the picture"
    page.select_option("#layout", "heatmap")
    assert not page.is_visible("#original")


def test_a_thousand_pictures_stay_fluid(page: Page, tmp_path: Path) -> None:
    result = detection(5, "x.png")
    png = encode_map(result, max_side=MAP_SIDE)
    noise = np.random.default_rng(0).integers(0, 255, (240, 320), dtype=np.uint8)
    preview = make_preview(Image.fromarray(noise))
    entry = {**result.to_dict(), "error": None}
    pictures = (
        PagePicture({**entry, "path": f"photos/{number:04d}.png", "score": number / 1000}, png, preview)
        for number in range(1000)
    )
    path = tmp_path / "large.html"
    size = write_page(path, pictures, title="A thousand", profile={"name": "nut", "promise": "none"})
    assert size.bytes == path.stat().st_size > 1000 * len(preview)
    start = time.perf_counter()
    page.goto(path.as_uri(), wait_until="commit")
    page.wait_for_selector("html[data-ready]")
    ready = time.perf_counter() - start
    assert ready < 60
    assert page.locator(".item").count() < 40
    page.locator("#list").evaluate("(list) => { list.scrollTop = list.scrollHeight; }")
    page.wait_for_selector('.item[aria-posinset="1000"]')
    # The last picture is at the end of the file: it is shown as soon as the browser has read so far.
    until(page, "document.querySelector('[aria-posinset=\"1000\"] img').src.startsWith('blob:')")
    for step in range(0, 1000, 50):
        page.locator("#list").evaluate("(list, top) => { list.scrollTop = top; }", step * 60)
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert page.locator(".item").count() < 40
    assert page.evaluate("window.blemish.cache.items.size") <= 64
    start = time.perf_counter()
    for threshold in np.linspace(0.1, 0.9, 20):
        set_slider(page, "threshold", float(threshold))
    assert (time.perf_counter() - start) / 20 < 3
    assert page.inner_text("#counts").startswith("100 rejected")


def test_a_report_without_threshold_and_one_without_pictures(page: Page, tmp_path: Path) -> None:
    results = [detection(seed, f"{seed}.png", threshold=None, mask_threshold=None) for seed in (1, 5)]
    open_page(page, _report_of(tmp_path, results))
    assert "no threshold: move the slider" in page.inner_text("#counts")
    assert "move its slider" in page.inner_text("#region-note")
    set_slider(page, "threshold", 0.4)
    assert page.inner_text("#counts").startswith("1 rejected, 1 passed")
    write_page(tmp_path / "empty.html", [], title="Nothing")
    open_page(page, tmp_path / "empty.html")
    assert page.inner_text("#counts") == "No pictures yet."
    assert page.inner_text("#no-picture") == "This report has no pictures."


def test_the_file_holds_no_address_and_its_policy_allows_none(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    assert "connect-src 'none'" in text
    assert "default-src 'none'" in content_security_policy("report")
    addresses = set(re.findall(r"https?://[^\s\"'<]+", text))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert "\u2028" not in text
    assert text.count("</script>") == text.count("<script")
    for name in ("eval(", "innerHTML", "document.write", "insertAdjacentHTML"):
        assert name not in text


def test_writing_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot write"):
        write_page(tmp_path / "file" / "report.html", [], title="x")

    def broken() -> Any:
        yield picture(tmp_path, 1)
        raise RuntimeError("the source failed")

    with pytest.raises(RuntimeError, match="the source failed"):
        write_page(tmp_path / "report.html", broken(), title="x")
    assert not (tmp_path / "report.html").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_previews_are_small(tmp_path: Path) -> None:
    with Image.open(io.BytesIO(make_preview(Image.new("RGB", (4000, 1000), "red")))) as image:
        assert image.size == (640, 160)
        assert image.format == "JPEG"
    assert SIZE == (96, 64)


def _report_of(folder: Path, results: list[Any]) -> Path:
    preview = make_preview(Image.new("L", (32, 24), 128))
    pictures = (PagePicture({**r.to_dict(), "error": None}, encode_map(r, max_side=MAP_SIDE), preview) for r in results)
    write_page(folder / "some.html", pictures, title="Some")
    return folder / "some.html"


def _base64(data: bytes) -> str:
    import base64

    return base64.b64encode(data).decode("ascii")
