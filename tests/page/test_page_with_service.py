"""The page and the service together: a real `blemish serve` on a stand-in backbone, in a real browser."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from page_helpers import until
from PIL import Image, ImageOps

from blemish.detector import AMONG_GOOD
from blemish.loading import load
from blemish.profile import read_profile
from helpers import save_picture

pytest.importorskip("fastapi", reason="pip install 'blemish[serve]'")

if TYPE_CHECKING:
    from playwright.sync_api import Page


@pytest.fixture(scope="module")
def fitted(tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile of 20 small pictures, which rejects some other good ones."""
    folder = tmp_path_factory.mktemp("profile")
    good = [save_picture(folder / "good" / f"{number}.png", 100 + number) for number in range(20)]
    detector = load("winclip", backbone=str(tiny_backbone), device="cpu", precision="float32", object_name="part")
    profile = detector.fit(good, false_alarms=0.1, review=0.3).profile
    assert profile is not None
    return profile.save(folder / "part.profile")


@pytest.fixture
def file(fitted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(fitted, tmp_path / "part.profile"))


@pytest.fixture
def address(file: Path, tiny_backbone: Path) -> Iterator[str]:
    """A running service with one profile; its address."""
    from blemish.serve.options import ServeOptions
    from blemish.serve.profiles import load_registry
    from blemish.serve.server import bind, make_server
    from blemish.serve.service import Service

    registry = load_registry([file], backbone=str(tiny_backbone), device="cpu", precision="float32")
    service = Service(registry, ServeOptions(api_key="secret"))
    listener = bind("127.0.0.1", 0)
    ready = threading.Event()
    server = make_server(service, ready.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    assert ready.wait(120)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    server.should_exit = True
    thread.join(120)
    listener.close()


def test_review_of_real_scores_goes_back_into_the_profile(
    page: Page, address: str, file: Path, tiny_backbone: Path, tmp_path: Path
) -> None:
    files = [save_picture(tmp_path / "in" / f"Teil ü {number}.png", number) for number in range(5)]
    for path in files[:2]:
        with Image.open(path) as image:
            ImageOps.invert(image).save(path)
    broken = tmp_path / "in" / "broken.png"
    broken.write_bytes(files[0].read_bytes()[:200])
    detector = load(profile=str(file), backbone=str(tiny_backbone), device="cpu", precision="float32")
    expected = {path.name: detector(path) for path in files}
    page.goto(address)
    page.wait_for_selector("#key[open]")
    page.fill("#key-text", "secret")
    page.press("#key-text", "Enter")
    page.wait_for_selector("html[data-ready]")
    assert page.locator("#profile option").all_inner_texts() == ["part"]
    page.set_input_files("#folder", tmp_path / "in")
    until(page, "window.blemish.state.pictures.filter((p) => ['done', 'failed'].includes(p.stage)).length === 6", 60)
    shown = page.evaluate("window.blemish.state.pictures.map((p) => [p.entry.path, p.entry.score, p.entry.error])")
    by_name = {path.rpartition("/")[2]: (score, error) for path, score, error in shown}
    assert "cut short" in by_name["broken.png"][1] or "damaged" in by_name["broken.png"][1]
    for name, result in expected.items():
        assert by_name[name][0] == pytest.approx(result.score, abs=1e-5)
    # The pixel threshold acts on the very map: the regions are those of the command line.
    worst = max(expected.values(), key=lambda result: result.score)
    until(page, "window.blemish.view.map !== null")
    assert page.evaluate("window.blemish.view.picture.entry.score") == pytest.approx(worst.score, abs=1e-5)
    areas = page.evaluate("window.blemish.view.regions.map((region) => region.area)")
    assert sum(areas) == pytest.approx(sum(region.area for region in worst.regions), rel=0.02)

    rejected = sum(result.verdict == "reject" for result in expected.values())
    assert 0 < rejected < 5, "the profile raises false alarms to give back"
    # All good but the last one, which was missed: a whole batch, so its good pictures move the threshold.
    for key in "ppppr":
        page.keyboard.press(key)
    page.click("#open-feedback")
    assert f"False alarms, which join the good pictures: {rejected}" in page.inner_text("#feedback-body")
    page.check("#feedback-batch")
    page.click("#feedback-ask")
    page.wait_for_selector("#feedback-accept:not([hidden])", timeout=60_000)
    limits = page.locator("#feedback-body table").first.locator("tr").nth(1).locator("td").all_inner_texts()
    before, after = map(float, limits)
    assert before == pytest.approx(read_profile(file).limits.threshold, abs=1e-4)
    assert after != before, "the threshold moves"
    assert len(read_profile(file).good) == 20, "nothing has changed yet"
    page.click("#feedback-accept")
    page.wait_for_selector("#feedback-again:not([hidden])")
    profile = read_profile(file)
    assert profile.limits.threshold == pytest.approx(after, abs=1e-4)
    assert f"Rejected from score {after:.4f}." in page.inner_text("#promise")
    assert len(profile.good) == 24
    assert len(profile.known_defects) == 1
    page.click("#feedback-again")
    until(page, "window.blemish.state.pictures.every((p) => ['done', 'failed'].includes(p.stage))", 60)
    scores = page.evaluate("window.blemish.state.pictures.filter((p) => p.review === 'pass').map((p) => p.entry.score)")
    assert len(scores) == 4
    assert all(score < (profile.limits.threshold or 0) for score in scores), "no false alarm is left"
    page.click("#open-drift")
    until(page, "document.getElementById('drift-sentence').textContent.includes('it takes 20')")
    assert page.inner_text("#drift-level") == "not known yet"
    # Those that joined the profile would be compared with themselves: only the other picture counts.
    assert "4 more are among the profile's good pictures and do not count." in page.inner_text("#drift-sentence")
    notes = page.evaluate("window.blemish.state.pictures.filter((p) => p.review === 'pass').map((p) => p.entry.notes)")
    assert notes == [[AMONG_GOOD]] * 4
