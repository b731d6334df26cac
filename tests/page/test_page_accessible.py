"""Both modes of the page have no serious finding of axe-core, in both colour schemes, and fit a phone."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from page_helpers import FakeService, draw, until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

DIALOGS = {"help": "#open-help", "export": "#open-export"}
SERVICE_DIALOGS = {**DIALOGS, "feedback": "#open-feedback", "drift": "#open-drift"}


def findings(page: Page) -> list[str]:
    """Return the serious and critical findings, each with the elements."""
    if not page.evaluate("typeof window.axe === 'object'"):
        page.evaluate((resources.files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8"))
    result: dict[str, Any] = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{violation['id']}: {violation['help']}: {[node['html'] for node in violation['nodes']][:3]}"
        for violation in result["violations"]
        if violation["impact"] in ("serious", "critical")
    ]


def look_everywhere(page: Page, dialogs: dict[str, str]) -> list[str]:
    found = findings(page)
    for name, button in dialogs.items():
        page.click(button)
        page.wait_for_selector(f"#{name}[open]")
        found += findings(page)
        page.keyboard.press("Escape")
    return found


@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_findings(
    browser: Browser, report: Path, service: FakeService, tmp_path: Path, scheme: Any, width: int
) -> None:
    pytest.importorskip("axe_playwright_python", reason="pip install axe-playwright-python")
    context = browser.new_context(
        viewport={"width": width, "height": 760}, color_scheme=scheme, reduced_motion="reduce"
    )
    page = context.new_page()
    page.goto(report.as_uri())
    page.wait_for_selector("html[data-ready]")
    page.keyboard.press("p")
    page.keyboard.press("r")
    assert not look_everywhere(page, DIALOGS)
    fits = "document.documentElement.scrollWidth <= window.innerWidth"
    assert page.evaluate(fits), "nothing scrolls sideways"
    files = [tmp_path / f"part_{seed}.png" for seed in (3, 8)] + [tmp_path / "bad.png"]
    for file in files:
        draw(8)[0].save(file)
    page.goto(service.url)
    page.wait_for_selector("html[data-ready]")
    page.set_input_files("#files", files)
    until(page, "window.blemish.state.pictures.filter((p) => ['done', 'failed'].includes(p.stage)).length === 3")
    page.keyboard.press("u")
    assert not look_everywhere(page, SERVICE_DIALOGS)
    assert page.evaluate(fits), "nothing scrolls sideways"
    context.close()


def test_everything_is_reached_by_keyboard(page: Page, report: Path) -> None:
    page.goto(report.as_uri())
    page.wait_for_selector("html[data-ready]")
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        name, outline = page.evaluate(
            "[document.activeElement.id, getComputedStyle(document.activeElement).outlineStyle]"
        )
        assert outline != "none" or page.evaluate("document.activeElement === document.body"), name
        reached.add(name)
    assert {"open-export", "threshold", "mask-threshold", "min-area", "search", "list", "next", "opacity"} <= set(
        reached
    )


def tab_to(page: Page, name: str) -> None:
    """Press Tab until an element has the focus."""
    for _ in range(80):
        if page.evaluate("document.activeElement.id") == name:
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not reach {name}")


def test_the_whole_loop_by_keyboard(page: Page, service: FakeService, tmp_path: Path) -> None:
    """Choose, review, ask, go back, accept, score again: without a pointer."""
    files = [tmp_path / f"part_{seed}.png" for seed in (3, 5, 8)]
    for file in files:
        draw(int(file.stem[-1]))[0].save(file)
    page.goto(service.url)
    page.wait_for_selector("html[data-ready]")
    tab_to(page, "choose-files")
    # The button asks for files by a click on the hidden input; the dialog of the system is left out.
    page.evaluate(
        """() => document.getElementById("files").addEventListener("click", (event) => {
            event.preventDefault();
            document.body.dataset.asked = "yes";
        })"""
    )
    page.keyboard.press("Enter")
    until(page, "document.body.dataset.asked === 'yes'")
    page.set_input_files("#files", files)
    until(page, "window.blemish.state.shown.filter((p) => p.stage === 'done').length === 3")
    page.evaluate("() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
    for key in "rpr":
        page.keyboard.press(key)
    tab_to(page, "open-feedback")
    page.keyboard.press("Enter")
    tab_to(page, "feedback-batch")
    page.keyboard.press("Space")
    for last in (False, True):
        tab_to(page, "feedback-ask")
        page.keyboard.press("Enter")
        page.wait_for_selector("#feedback-accept:not([hidden])")
        # The button that had the focus is gone; the focus is at the beginning of what is new, not outside.
        assert page.evaluate("document.activeElement.id") == "feedback-title"
        tab_to(page, "feedback-accept" if last else "feedback-back")
        page.keyboard.press("Enter")
    page.wait_for_selector("#feedback-again:not([hidden])")
    assert page.evaluate("document.activeElement.id") == "feedback-title"
    tab_to(page, "feedback-again")
    page.keyboard.press("Enter")
    until(page, "window.blemish.state.pictures.every((p) => p.stage === 'done' && p.entry.threshold === 0.62)")
    assert page.evaluate("document.activeElement.id") == "open-feedback"
    tab_to(page, "open-drift")
    page.keyboard.press("Enter")
    page.wait_for_selector("#drift-chart svg")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "open-drift"
