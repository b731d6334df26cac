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


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
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
    page.keyboard.press("a")
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
