"""The page as the face of the service, against a small server that answers as the service does."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from page_helpers import HOSTILE, FakeService, draw, until

from blemish.detector import AMONG_GOOD

if TYPE_CHECKING:
    from playwright.sync_api import Page


def open_service(page: Page, service: FakeService) -> None:
    page.goto(service.url)
    page.wait_for_selector("html[data-ready]")


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    """Six drawn pictures whose names have the seeds of their scores."""
    files = [tmp_path / f"part_{seed}.png" for seed in (1, 3, 4, 5, 6, 8)]
    for file in files:
        draw(int(file.stem[-1]))[0].save(file)
    return files


def send(page: Page, files: list[Path], done: int | None = None) -> None:
    page.set_input_files("#files", files)
    finished = "window.blemish.state.pictures.filter((p) => ['done', 'failed'].includes(p.stage)).length"
    until(page, f"{finished} >= {len(files) if done is None else done}")
    until(page, "window.blemish.state.shown.length > 0")
    page.evaluate("() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")


def test_pictures_are_sent_and_sorted(page: Page, service: FakeService, parts: list[Path]) -> None:
    open_service(page, service)
    assert page.inner_text("#promise") == "Rejected from score 0.5000. At most 5 % of good pictures are rejected."
    assert page.locator("#profile option").all_inner_texts() == ["nut (metal nut)"]
    assert page.inner_text("#counts") == "No pictures yet."
    assert page.inner_text("#no-picture").startswith("Drop pictures or a folder")
    send(page, parts)
    assert not page.is_visible("#no-picture")
    assert len(service.forms) == 6, "one request each"
    assert all(len(form) == 1 and form[0][0] == "files" for form in service.forms)
    asked = [path for method, path, _ in service.requests if method == "POST"]
    assert set(asked) == {"/v1/detect?profile=nut&return=map,preview&map_side=512"}
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert page.evaluate("window.blemish.state.shown.map((p) => p.entry.path)") == [
        f"part_{seed}.png" for seed in (8, 6, 5, 4, 3, 1)
    ]
    # A screen reader reads the rows in the order of the screen.
    rows = page.locator(".item .item-name").all_text_contents()
    assert rows == [f"part_{seed}.png" for seed in (8, 6, 5, 4, 3, 1)]
    assert page.inner_text("#counts").startswith("4 rejected, 2 passed of 6 pictures.")
    until(page, "window.blemish.view.map !== null && window.blemish.view.regions.length > 0")
    assert page.evaluate("window.blemish.view.image !== null")
    urls = {path.split("?")[0] for _, path, _ in service.requests}
    assert urls <= {"/", "/v1/profiles", "/v1/detect", "/favicon.ico"}
    # The session is kept in the browser: another visit shows it again, with maps.
    page.keyboard.press("p")
    until(page, "window.blemish.cache.store.all().then((kept) => kept.some((picture) => picture.review === 'pass'))")
    page.reload()
    page.wait_for_selector("html[data-ready]")
    until(page, "window.blemish.state.shown.length === 6 && window.blemish.view.map !== null")
    assert "1 reviewed: 1 false alarm" in page.inner_text("#counts")
    page.on("dialog", lambda dialog: dialog.accept())
    page.click("#clear")
    until(page, "window.blemish.state.shown.length === 0")
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert page.inner_text("#counts") == "No pictures yet."


def test_a_folder_can_be_dropped(page: Page, service: FakeService, parts: list[Path]) -> None:
    open_service(page, service)
    (parts[0].parent / "notes.txt").write_text("not a picture")
    (parts[0].parent / "sub").mkdir()
    draw(7)[0].save(parts[0].parent / "sub" / "part_7.png")
    page.set_input_files("#folder", parts[0].parent)
    until(page, "window.blemish.state.shown.filter((p) => p.stage === 'done').length === 7")
    folder = parts[0].parent.name
    assert f"{folder}/sub/part_7.png" in {form[0][1] for form in service.forms}
    assert page.inner_text("#problem").startswith(f"1 file passed over, since it is no picture: {folder}/notes.txt")


def test_two_files_of_one_name_stay_two_pictures(
    page: Page, service: FakeService, parts: list[Path], tmp_path: Path
) -> None:
    other = tmp_path / "other" / "part_8.png"
    other.parent.mkdir()
    draw(3, (50, 40))[0].save(other)
    open_service(page, service)
    send(page, [parts[-1]])
    until(page, "window.blemish.view.map !== null")
    page.keyboard.press("r")
    send(page, [other], 2)
    send(page, [parts[-1]], 2)  # the same file again replaces its result and keeps its review
    until(page, "window.blemish.state.pictures.every((p) => p.stage === 'done')")
    kept = page.evaluate("window.blemish.state.pictures.map((p) => [p.entry.path, p.review])")
    assert kept == [["part_8.png", "reject"], ["part_8 (2).png", None]]


def test_a_drop_is_taken(page: Page, service: FakeService) -> None:
    open_service(page, service)
    page.evaluate(
        """async () => {
            const data = new DataTransfer();
            const canvas = document.createElement("canvas");
            const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
            data.items.add(new File([blob], "part_5.png", { type: "image/png" }));
            document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
        }"""
    )
    until(page, "window.blemish.state.shown.length === 1 && window.blemish.state.shown[0].stage === 'done'")


def test_wrong_pictures_get_a_sentence_each(
    page: Page, service: FakeService, parts: list[Path], tmp_path: Path
) -> None:
    service.config["max_bytes"] = 100_000
    open_service(page, service)
    bad, large = tmp_path / "bad.png", tmp_path / "large_9.png"
    bad.write_bytes(b"no picture")
    large.write_bytes(bytes(200_000))
    send(page, [bad, large, parts[3]])
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    page.select_option("#filter-verdict", "error")
    until(page, "window.blemish.state.shown.length === 2")
    errors = page.evaluate("Object.fromEntries(window.blemish.state.shown.map((p) => [p.entry.path, p.entry.error]))")
    assert "damaged or not supported" in errors["bad.png"]
    assert errors["large_9.png"] == "The file has 0.2 MB; the service takes at most 0.1 MB."
    assert len(service.forms) == 2, "what is too large is not sent"
    assert "2 pictures not scored." in page.inner_text("#counts")
    assert page.is_visible("#no-picture")
    assert not page.is_visible("#retry"), "such pictures fail again"
    # A server that breaks may answer another time.
    broken = (500, {"error": {"code": "internal", "message": "The model failed."}}, {})
    service.fail = lambda method, path, headers: broken if method == "POST" else None
    page.set_input_files("#files", parts[4])
    until(page, "window.blemish.state.pictures.some((p) => p.entry.error === 'The model failed.')")
    service.fail = lambda method, path, headers: None
    sent = len(service.forms)
    page.click("#retry")
    until(page, "window.blemish.state.pictures.filter((p) => p.stage === 'done').length === 2")
    assert len(service.forms) == sent + 1, "only what may succeed is sent"
    page.wait_for_selector("#retry", state="hidden")


def test_a_busy_server_is_asked_again(page: Page, service: FakeService, parts: list[Path]) -> None:
    open_service(page, service)
    turned_away: list[str] = []

    def busy(method: str, path: str, headers: dict[str, str]) -> tuple[int, dict[str, Any], dict[str, str]] | None:
        if method == "GET" or len(turned_away) >= 2:
            return None
        turned_away.append(path)
        status = 429 if len(turned_away) == 1 else 503
        return status, {"error": {"code": "busy", "message": "Try again later."}}, {"Retry-After": "1"}

    service.fail = busy
    send(page, parts[:2])
    assert len(turned_away) == 2
    assert page.evaluate("window.blemish.state.pictures.every((p) => p.stage === 'done')")


def test_a_server_that_is_gone_loses_nothing(page: Page, service: FakeService, parts: list[Path]) -> None:
    open_service(page, service)
    send(page, parts[:2])
    service.stop()
    page.set_input_files("#files", parts[2:])
    until(page, "!document.getElementById('problem').hidden")
    assert page.inner_text("#problem").startswith("The server does not answer.")
    assert page.is_visible("#retry")
    counts = page.inner_text("#counts")
    assert "passed of 6 pictures." in counts
    assert "4 pictures on the way." in counts


def test_a_key_is_asked_for_and_sent(page: Page, service: FakeService, parts: list[Path]) -> None:
    def locked(method: str, path: str, headers: dict[str, str]) -> tuple[int, dict[str, Any], dict[str, str]] | None:
        if path == "/" or headers.get("authorization") == "Bearer secret":
            return None
        return 401, {"error": {"code": "unauthorized", "message": "The key is missing or wrong."}}, {}

    service.fail = locked
    page.goto(service.url)
    page.wait_for_selector("#key[open]")
    page.fill("#key-text", "wrong")
    page.press("#key-text", "Enter")
    page.wait_for_selector("#key-problem:not([hidden])")
    assert page.inner_text("#key-problem") == "The key is missing or wrong."
    page.fill("#key-text", "secret")
    page.press("#key-text", "Enter")
    page.wait_for_selector("html[data-ready]")
    send(page, parts[:1])
    assert service.requests[-1][2]["authorization"] == "Bearer secret"


def test_feedback_moves_the_threshold(page: Page, service: FakeService, parts: list[Path]) -> None:
    open_service(page, service)
    send(page, parts)
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    for key in "rrprr":  # the third is a false alarm, the fifth was missed
        page.keyboard.press(key)
    page.click("#open-feedback")
    assert "1 picture of the list cannot be counted yet" in page.inner_text("#feedback-body")
    assert not page.is_visible("#feedback-whole")
    page.click("#feedback-close")
    page.keyboard.press("p")
    page.click("#open-feedback")
    text = page.inner_text("#feedback-body")
    assert "False alarms, which join the good pictures: 1" in text
    assert "Missed, which are kept as known defects: 1" in text
    assert page.is_visible("#feedback-whole"), "every picture has a verdict"
    page.check("#feedback-batch")
    page.click("#feedback-ask")
    page.wait_for_selector("#feedback-accept:not([hidden])")
    assert service.requests[-1][1].endswith("/feedback?whole_batch=true")
    fields = sorted(service.forms[-1])
    assert fields == [
        ("confirmed_defect", "part_4.png"),
        ("confirmed_defect", "part_6.png"),
        ("confirmed_defect", "part_8.png"),
        ("confirmed_good", "part_1.png"),
        ("false_alarm", "part_5.png"),
        ("missed", "part_3.png"),
    ]
    text = page.inner_text("#feedback-body")
    assert "The threshold rises from 0.500 to 0.620." in text
    assert "Rejected from score\t0.5000\t0.6200" in text
    assert "Pixel is anomalous from\t0.4000\t0.4000" in text
    assert "Promise: good pictures rejected, at most\t4.8 %\t4.6 %" in text
    assert "Known defects caught\t3 of 3\t2 of 3" in text
    assert "1 of 3 known defects would still pass." in text
    assert "--false-alarms 5%" in text
    assert "blemish judge cannot judge them by the new profile" in text
    # From the preview one can go back and choose otherwise.
    page.click("#feedback-back")
    assert page.is_checked("#feedback-batch")
    assert page.is_visible("#feedback-ask")
    assert not page.is_visible("#feedback-accept")
    page.uncheck("#feedback-batch")
    page.click("#feedback-ask")
    page.wait_for_selector("#feedback-accept:not([hidden])")
    assert service.requests[-1][1].endswith("/feedback")
    page.click("#feedback-back")
    page.check("#feedback-batch")
    page.click("#feedback-ask")
    page.wait_for_selector("#feedback-accept:not([hidden])")
    assert page.evaluate("window.blemish.state.profiles.get('nut').threshold") == 0.5, "nothing changes yet"
    page.click("#feedback-accept")
    page.wait_for_selector("#feedback-again:not([hidden])")
    text = page.inner_text("#feedback-body")
    assert "rejects from score 0.6200 now" in text
    assert "kept as nut.profile.1" in text
    assert "Accepting" not in text
    assert "Rejected from score 0.6200." in page.inner_text("#promise")
    assert page.input_value("#threshold-number") == "0.62"
    page.click("#feedback-close")
    noted = page.locator(".item").filter(has_text="part_5.png")
    assert "you: pass · in the profile" in noted.inner_text()
    noted.click()
    assert AMONG_GOOD in page.inner_text("#picture-facts")
    page.click("#open-feedback")
    assert "6 pictures already given back." in page.inner_text("#feedback-body")
    assert page.inner_text("#feedback-state").startswith("All that you reviewed is already given back.")
    page.click("#feedback-close")
    page.set_input_files("#files", parts)
    until(page, "window.blemish.state.pictures.every((p) => p.stage === 'done' && p.entry.threshold === 0.62)")
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert page.inner_text("#counts").startswith("2 rejected, 4 passed of 6 pictures.")
    assert "6 reviewed" in page.inner_text("#counts")


def test_a_large_batch_goes_back_in_parts(page: Page, service: FakeService, parts: list[Path]) -> None:
    service.config["max_pictures"] = 4
    open_service(page, service)
    send(page, parts[::-1])
    for key in "rrprrp":
        page.keyboard.press(key)
    page.click("#open-feedback")
    assert "2 more reviewed pictures will not fit" in page.inner_text("#feedback-body")
    page.check("#feedback-batch")
    page.click("#feedback-ask")
    page.wait_for_selector("#feedback-accept:not([hidden])")
    first = {name for _, name in service.forms[-1]}
    arrived = page.evaluate("window.blemish.state.pictures.map((p) => p.entry.path)")
    assert first == set(arrived[:4]), "in the order they came in, so that scores select nothing"
    page.click("#feedback-accept")
    page.wait_for_selector("#feedback-again:not([hidden])")
    page.click("#feedback-close")
    page.click("#open-feedback")
    page.check("#feedback-batch")
    page.click("#feedback-ask")
    page.wait_for_selector("#feedback-accept:not([hidden])")
    assert {name for _, name in service.forms[-1]} == set(arrived[4:])


def test_feedback_without_mistakes_says_so(page: Page, service: FakeService, parts: list[Path]) -> None:
    open_service(page, service)
    send(page, parts[:1])
    page.click("#open-feedback")
    assert page.inner_text("#feedback-state").startswith("No picture here has your verdict")
    page.click("#feedback-close")
    page.keyboard.press("p")
    page.click("#open-feedback")
    assert page.is_disabled("#feedback-ask")
    assert "nothing would change" in page.inner_text("#feedback-state")
    page.click("#feedback-close")
    failure = (422, {"error": {"code": "too_few", "message": "A good picture is needed."}}, {})
    service.fail = lambda method, path, headers: failure if "feedback" in path else None
    page.keyboard.press("b")
    page.keyboard.press("r")
    page.click("#open-feedback")
    page.click("#feedback-ask")
    until(page, "document.getElementById('feedback-state').textContent === 'A good picture is needed.'")
    assert page.is_enabled("#feedback-ask")


def test_the_drift_panel(page: Page, service: FakeService) -> None:
    open_service(page, service)
    page.click("#open-drift")
    page.wait_for_selector("#drift-chart svg")
    assert page.inner_text("#drift-level") == "watch"
    assert page.inner_text("#drift-sentence") == "The last 200 scores have moved."
    assert page.inner_text("#drift-advice") == "What to do: Look at the latest pictures."
    # Each number stands beside its chart.
    for part, name, level in (("Scores", "scores", "watch"), ("Ordinary places", "ordinary places", "ok")):
        section = page.locator(f"#drift-chart section[aria-label='{part}']")
        assert section.locator("rect").count() == 6
        assert section.locator(".level").inner_text() == level
        assert f"{name}: {level}." in section.inner_text()
        assert "good pictures of the profile" in section.inner_text()


def test_export_from_the_service(page: Page, service: FakeService, parts: list[Path]) -> None:
    open_service(page, service)
    send(page, parts)
    page.keyboard.press("r")
    page.click("#open-export")
    with page.expect_download() as download:
        page.click("[data-export=csv]")
    text = Path(download.value.path()).read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"))))
    assert [row["picture"] for row in rows if row["review"] == "reject"] == ["part_8.png"]
    with page.expect_download() as download:
        page.click("[data-export=json]")
    content = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    assert content["profile"] == "nut"
    assert all(picture["regions"] for picture in content["pictures"] if picture["score"] > 0.4)


def test_hostile_texts_of_the_server_are_texts(page: Page, service: FakeService, parts: list[Path]) -> None:
    message = f"{HOSTILE} is wrong"
    failure = (422, {"error": {"code": "bad", "message": message}}, {})
    service.fail = lambda method, path, headers: failure if method == "POST" else None
    service.config["title"] = HOSTILE
    open_service(page, service)
    send(page, parts[:1])
    until(page, "document.getElementById('no-picture').textContent.includes('is wrong')")
    assert page.locator("#no-picture").text_content() == message
    assert page.locator("h1").text_content() == HOSTILE
    assert page.locator("img:not(.thumb)").count() == 0


@pytest.mark.parametrize(("width", "height", "fewest"), [(1280, 800, 4), (1920, 1080, 9), (360, 800, 5)])
def test_rows_and_regions_have_room(
    page: Page, service: FakeService, tmp_path: Path, width: int, height: int, fewest: int
) -> None:
    page.set_viewport_size({"width": width, "height": height})
    open_service(page, service)
    files = [tmp_path / f"{seed} line 2 night shift camera left 2026-11-30.png" for seed in range(9)]
    for seed, file in enumerate(files):
        draw(seed)[0].save(file)
    send(page, files)
    until(page, "window.blemish.view.regions.length > 0")
    list_box, note = (page.locator(name).bounding_box() for name in ("#list", "#list-note"))
    assert list_box is not None
    assert note is not None
    row = page.locator(".item").first.bounding_box()
    assert row is not None
    assert list_box["height"] // row["height"] >= fewest
    if width > 360:
        assert max(box["y"] + box["height"] for box in (list_box, note)) < height, "nothing is below the screen"
        table = page.locator(".regions .wide").bounding_box()
        assert table is not None
        assert table["y"] + table["height"] < height
        assert table["width"] > 400
    names = page.locator(".item-name")
    assert not any(names.evaluate_all("(names) => names.map((name) => name.scrollHeight > name.clientHeight + 1)"))
    page.keyboard.press("p")  # a row with a line below the name
    until(page, "document.querySelectorAll('.item-about:not(:empty)').length === 1")
    texts = page.locator(".item-text")
    heights = texts.evaluate_all("(texts) => texts.map((text) => text.offsetHeight - text.parentElement.clientHeight)")
    assert max(heights) <= 0
