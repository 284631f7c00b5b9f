"""Chromium without a window and without a network, for tests of pages. `browser` (conftest.py) is the fixture."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from axe_core_python.selenium import Axe
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
needs_chromium = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium with its chromedriver")
PHONE, DESK = (390, 844), (1280, 900)
SECONDS = 30
OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"


@contextmanager
def started() -> Iterator[webdriver.Chrome]:
    """A browser that reaches this machine and no other; it is closed after use."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", OFFLINE):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service(str(DRIVER)))
    try:
        yield driver
    finally:
        driver.quit()


def show(browser: webdriver.Chrome, url: str, size: tuple[int, int] = DESK, scheme: str = "light") -> None:
    """Open a page in a window of this size and colour scheme. Fails if the console shows an error."""
    browser.get_log("browser")
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size == PHONE}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(url)
    assert complaints(browser) == []


def complaints(browser: webdriver.Chrome) -> list[str]:
    """Errors on the browser's console since this was last asked."""
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def serious_faults(browser: webdriver.Chrome) -> list[tuple[str, str]]:
    """What axe finds serious or critical on the open page: rule, and the first element at fault."""
    found = [fault for fault in Axe().run(browser)["violations"] if fault["impact"] in ("serious", "critical")]
    return [(fault["id"], fault["nodes"][0]["html"][:200]) for fault in found]
