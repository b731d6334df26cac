"""One headless Chromium for all tests of the page, drawn pictures with maps, and the fake service."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from page_helpers import FakeService, write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium: that of $CHROMIUM, else one on the PATH."""
    executable = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        pytest.skip(
            "there is no Chromium, so the page is not tested; install one (Debian: apt-get install chromium, else "
            "`playwright install chromium`) or set CHROMIUM to its path"
        )
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is missing; run: pip install playwright")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """An empty tab that fails the test if a script fails or a policy is violated."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, accept_downloads=True)
    tab = context.new_page()
    tab.set_default_timeout(60_000)
    problems: list[str] = []
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.on(
        "console", lambda message: problems.append(message.text) if "Content Security Policy" in message.text else None
    )
    yield tab
    context.close()
    assert not problems


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of nine drawn pictures, one that was not scored, and one whose file is gone."""
    folder = tmp_path_factory.mktemp("report")
    return write_report(folder)


@pytest.fixture
def service() -> Iterator[FakeService]:
    """A small server with the endpoints that the page uses."""
    with FakeService() as fake:
        yield fake
