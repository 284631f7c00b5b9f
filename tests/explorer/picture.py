"""A finished study -> the picture of the explorer in the README.

    python -m tests.explorer.picture

reads    what `stages/studies/explore.py` reads, in the working directory
writes   stages/studies/explore.png

The picture is committed to git, so only portraits that a program drew may be in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from threading import Thread

from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from stages.core.explorer.answers import Explorer
from stages.core.run import params
from stages.core.run.errors import StudyError, run_command
from stages.core.schema import Ingest
from stages.studies import explore
from tests import browsers
from tests.imports import ROOT

PICTURE_FPATH = ROOT / "stages" / "studies" / "explore.png"
SIZE = (1280, 1100)
COLOURS = 128  # of the PNG file: the picture stays below 200 kB
STEPS = [Keys.ARROW_DOWN] * 6 + [Keys.ARROW_RIGHT] * 3  # from the first patch to one on the bust


@contextmanager
def served(study: Explorer) -> Iterator[str]:
    """Answer requests while the context is open. Gives the address of the page, with its key."""
    server, url = explore.open_server(study, 0)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield url
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def seen(browser: webdriver.Chrome, url: str) -> bytes:
    """Open the page with the study's edit, choose a patch, and return what is on the screen, as a PNG file."""
    wait = WebDriverWait(browser, browsers.SECONDS)
    browsers.show(browser, url, SIZE)
    wait.until(lambda page: page.execute_script("return document.body.dataset.drawn"))
    browser.find_element(By.ID, "map-0-original").send_keys(*STEPS, Keys.ENTER)
    wait.until(lambda page: page.find_elements(By.CSS_SELECTOR, "#place .latent"))
    browser.execute_script("document.activeElement.blur(); scrollTo(0, 0)")
    browser.execute_script("document.getElementById('latency').hidden = true")  # the time differs with each run
    return browser.get_screenshot_as_png()


def take(study: Explorer, fpath: Path) -> None:
    """Write the picture of the page to `fpath`. study: the study, opened in the explorer."""
    with served(study) as url, browsers.started() as browser:
        whole = Image.open(BytesIO(seen(browser, url))).convert("RGB")
    whole.quantize(COLOURS, dither=Image.Dither.NONE).save(fpath, "PNG", optimize=True)


def main() -> None:
    if params.load(Ingest).source != "synthetic":
        raise StudyError("ingest.source is not synthetic: photographs do not belong into git")
    take(explore.open_study(), PICTURE_FPATH)


if __name__ == "__main__":
    run_command(main)
