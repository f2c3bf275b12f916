"""Chromium, headless and without a network, and the reports that it opens."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Where screenshots stay for people to look at; git ignores it.
SCREENSHOTS = ROOT / "build" / "screenshots"

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip

TABLES = {
    "gluon_train": ROOT / "examples" / "gluon_train.parquet",
    "cc_general": ROOT / "tests" / "data" / "CC GENERAL.csv",
    "telco": ROOT / "tests" / "data" / "Telco-Customer-Churn.csv",
}


def run_gpuseg(folder: Path, *arguments: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-m", "gpuseg", *arguments],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Start Chromium; where there is none, skip, or fail under GPUSEG_REQUIRE_CHROMIUM=1."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        reason = "no chromium was found; apt-get install chromium"
        if os.environ.get("GPUSEG_REQUIRE_CHROMIUM") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=program, headless=True, args=[*FLAGS]
        )  # a fresh user-data-dir, which playwright makes and removes
        yield chromium
        chromium.close()


class Opened:
    """A report in a browser, and everything that went wrong in it."""

    def __init__(self, browser, page: Path, **options):
        size = {"width": options.pop("width", 1280), "height": 900}
        self.context = browser.new_context(viewport=size, **options)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(f"dialog {dialog.message}"))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(page.resolve().as_uri())
        if options.get("java_script_enabled", True):
            self.page.wait_for_selector(".plot.live")

    def screenshot(self, name: str) -> None:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


@pytest.fixture
def open_report(browser):
    """Return what opens a page; at the end nothing may have gone wrong in any."""
    opened: list[Opened] = []

    def start(page: Path, **options) -> Opened:
        opened.append(Opened(browser, page, **options))
        return opened[-1]

    yield start
    for each in opened:
        each.context.close()
    for each in opened:
        assert each.complaints == []
        assert [url for url in each.requests if not url.startswith("file:")] == []
        assert len(each.requests) == 1  # the page itself and nothing beside it


@pytest.fixture(scope="session", params=list(TABLES))
def report(request, browser, tmp_path_factory):
    """Return the name of a real table, and its report as ``gpuseg run`` alone makes it."""
    folder = tmp_path_factory.mktemp(request.param)
    table = str(TABLES[request.param])
    run_gpuseg(folder, "run", "--input-table", table, "--model-name", "m", "--quiet")
    return request.param, next((folder / "gpuseg_runs" / "m").glob("*/report.html"))
