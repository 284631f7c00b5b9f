"""The report and the plots in a browser without a network: every chart drawn, nothing complained of, open to all."""

from __future__ import annotations

import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from stages.core.run import text
from stages.report import PICTURES
from tests.browsers import DESK, PHONE, SECONDS, needs_chromium, serious_faults, show
from tests.imports import ROOT
from tests.studies import run

pytestmark = needs_chromium
N_VEGA = 9


def opened(browser: webdriver.Chrome, page: Path, size: tuple[int, int] = DESK, scheme: str = "light") -> None:
    show(browser, page.as_uri(), size, scheme)


def inked(png: bytes) -> float:
    """Share of the pixels that differ from the most frequent grey level."""
    grey = np.asarray(Image.open(BytesIO(png)).convert("L"))
    return 1 - np.bincount(grey.ravel()).max() / grey.size


@pytest.fixture(scope="module")
def report(studies) -> Path:
    return studies["synthetic"] / "plots" / "report.html"


def test_every_chart_of_the_plots_page_is_drawn(studies, browser):
    folder = studies["synthetic"]
    run(folder, "dvc", "plots", "show")
    opened(browser, folder / "dvc_plots" / "index.html")
    charts = WebDriverWait(browser, SECONDS).until(
        lambda page: (
            len(found := page.find_elements(By.CSS_SELECTOR, ".vega-embed canvas, .vega-embed svg.marks")) == N_VEGA
            and found
        )
    )
    assert all(inked(chart.screenshot_as_png) > 0.01 for chart in charts)
    pictures = browser.find_elements(By.CSS_SELECTOR, "img")
    assert len(pictures) == 10
    assert all(browser.execute_script("return arguments[0].naturalWidth", picture) > 100 for picture in pictures)
    assert browser.get_log("browser") == []


SOUND = "it's `x` ${y} {z} \\ ; onload=run() // -- é 笑"  # what a label may hold, and what might act elsewhere
HOSTILE = "</script><script>window.ran = true</script>"


def confusion_page(tmp_path: Path, pairs: list[tuple[str, str]]) -> str:
    """Address of a plots page with the chart of named emotions alone. pairs: true and named emotion of each image."""
    for name in (".dvc/config", ".dvc/plots/page.html", ".dvc/plots/named_emotions.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    pd.DataFrame(pairs, columns=["emotion", "named"]).to_csv(tmp_path / "named.csv", index=False)
    plot = "plots:\n  - named:\n      template: named_emotions\n      x: named\n      y: {named.csv: emotion}\n"
    (tmp_path / "dvc.yaml").write_text(plot)
    run(tmp_path, "git", "init", "-q")
    run(tmp_path, "dvc", "plots", "show")
    return (tmp_path / "dvc_plots" / "index.html").as_uri()


@pytest.mark.parametrize("label", [SOUND, HOSTILE])
def test_no_label_that_is_accepted_acts_in_the_plots_page(browser, tmp_path, label):
    """DVC copies the cells of a CSV file into a script. A label that closes the script runs, and is refused."""
    browser.get(confusion_page(tmp_path, [(label, label), (label, "sad")]))
    seen = "return window.ran ? 'ran' : document.querySelector('.vega-embed canvas, svg.marks') ? 'drawn' : null"
    found = WebDriverWait(browser, SECONDS).until(lambda page: page.execute_script(seen))
    assert found == ("ran" if text.fault(label) else "drawn")


def test_an_emotion_that_is_never_named_keeps_its_column(browser, tmp_path):
    """The chart is drawn once more as SVG, whose labels can be read. `bored` is never true, `calm` is never named."""
    browser.get(confusion_page(tmp_path, [("calm", "sad"), ("sad", "sad"), ("sad", "bored")]))
    labels = browser.execute_async_script("""
        const done = arguments[0], place = document.body.appendChild(document.createElement('div'));
        const read = () => [...place.querySelectorAll('.role-axis-label text')].map(label => label.textContent);
        vegaEmbed(place, spec, {renderer: 'svg'}).then(() => done(read()), fault => done([String(fault)]));
    """)
    assert sorted(labels) == ["bored", "bored", "calm", "calm", "sad", "sad"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_has_no_serious_fault_of_accessibility(browser, report, scheme):
    opened(browser, report, scheme=scheme)
    assert serious_faults(browser) == []


def test_a_picture_without_its_text_would_be_a_fault(browser, report, tmp_path):
    spoiled = tmp_path / "report.html"
    spoiled.write_text(report.read_text().replace(" alt=", " data-alt=", 1))
    opened(browser, spoiled)
    assert [rule for rule, _ in serious_faults(browser)] == ["image-alt"]


def test_the_report_changes_with_the_colour_scheme(browser, report):
    backgrounds = []
    for scheme in ("light", "dark"):
        opened(browser, report, scheme=scheme)
        backgrounds.append(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))
    assert backgrounds[0] != backgrounds[1]


def test_the_report_fits_a_phone_and_its_pictures_are_drawn(browser, report):
    strengths = list((report.parent / "heatmap_strengths").glob("*.png"))
    opened(browser, report, PHONE)
    wide = browser.execute_script("return document.documentElement.scrollWidth")
    assert wide <= PHONE[0], "the page scrolls sideways"
    pictures = browser.find_elements(By.CSS_SELECTOR, "img")
    assert len(pictures) == len(PICTURES) + len(strengths)
    assert all(browser.execute_script("return arguments[0].naturalWidth", picture) > 100 for picture in pictures)


def test_whatever_scrolls_in_the_report_can_be_reached_by_keyboard(browser, report):
    opened(browser, report, PHONE)
    unreachable = browser.execute_script("""
        const scrolls = e => e.scrollWidth > e.clientWidth + 1
            && ['auto', 'scroll'].includes(getComputedStyle(e).overflowX);
        return [...document.querySelectorAll('*')]
            .filter(e => scrolls(e) && e.tabIndex < 0).map(e => e.outerHTML.slice(0, 80));
    """)
    assert unreachable == []


def test_the_report_is_small_enough_to_send(report):
    assert report.stat().st_size < 20 * 2**20
