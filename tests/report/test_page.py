"""The whole page, with an edit and without: what it says, and that its tables fit the screen.

The metrics are those of the default run, which git has; the rest is made here.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from stages import report
from stages.core.report import tables
from tests.browsers import DESK, PHONE, needs_chromium
from tests.imports import ROOT
from tests.studies import change_params
from tests.test_pages import opened

METRICS = ("ingest", "extract", "select_sae", "check_stability", "describe_latents")
FULL = ("heatmap", "check_heatmaps", "map_readout", "ablate")
LATENTS = [182, 648, 3712]
NONE = {"estimate": -0.0001, "low": -0.002, "high": 0.002}
NOT_ON_A_NULL = (
    *("switched off", "after the edit", "edited model", "p = ", "1.000", "-0.00", "0.00e+00", "NaN", " nan"),
    *("helped", "random set", "swapped at random", "net gain", "the edit "),
)


def write_tables(folder: Path, edited: bool) -> None:
    n = len(LATENTS)
    saes = pd.DataFrame([(layer, e) for layer in (22, 23, 24) for e in (8, 16, 32)], columns=["layer", "expansion"])
    saes = saes.assign(**{name: 0.0123 for name in tables.SAE_NUMBERS[2:] + tables.SAE_GAPS})
    counts = {"n_bias": 12 if edited else 0, "n_perception": 1173, "chosen": (saes.index == 4).astype(int)}
    saes = saes.assign(**counts, mwu_p=0.0, searched=int(edited), net_gain=1.2 if edited else np.nan)
    saes.to_csv(folder / "plots" / "select_sae.csv", index=False)
    cards = pd.DataFrame({"latent": LATENTS, "monosemanticity": 0.5, "encodes": "intensity", "intensity": 0.93})
    cards.to_csv(folder / "plots" / "describe_latents.csv", index=False)
    latents = pd.DataFrame({"latent": LATENTS, **{name: [-0.1234] * n for name in tables.LATENT_NUMBERS[1:]}})
    latents.iloc[: n if edited else 0].to_csv(folder / "data" / "selection" / "latents.csv", index=False)
    seen = pd.DataFrame({"latent": LATENTS, "top_images": [f"pair0134_semi_nude {'long' * 30}.jpg"] * n})
    seen.to_csv(folder / "data" / "selection_by_image" / "top_images.csv", index=False)


def write_metrics(folder: Path, edited: bool) -> None:
    for name in METRICS:
        shutil.copy(ROOT / "metrics" / f"{name}.json", folder / "metrics")
    for name in FULL:
        found = json.loads((ROOT / "metrics" / "full" / f"{name}.json").read_text())
        if name == "ablate" and not edited:
            for endpoint in ("accuracy", "R"):
                found[endpoint]["original"]["gap"] = found[endpoint]["edited"]["gap"] = NONE
                found["edit"][endpoint] = {"gain": NONE, "cost": NONE, "p_random_sets": 1.0, "best_random_set": 0.0}
            for searches in found["null_searches"].values():
                searches |= {key: 1.0 for key in searches if key.startswith("p_")}
        (folder / "metrics" / "full" / f"{name}.json").write_text(json.dumps(found))


def write_strengths(folder: Path, edited: bool) -> None:
    """Two pairs at two strengths; each picture has a width of its own."""
    place = folder / "plots" / "heatmap_strengths"
    place.mkdir()
    says = [[f"semi-nude: sad {10 * i + j} %" for j in range(2)] for i in range(2 * edited)]
    shown = {"pairs": ["woman001, sad", "woman002, happy"][: 2 * edited], "strengths": [0.0, 1.0], "says": says}
    (place / "shown.json").write_text(json.dumps(shown))
    for i in range(2):
        for j in range(2):
            Image.new("RGB", (900 + 10 * i + j, 80)).save(place / f"{i}_{j}.png")


def page(folder: Path, edited: bool) -> Path:
    """Write all that the report reads, and the report."""
    template = folder / report.TEMPLATE_FPATH
    for name in ("metrics/full", "plots", "data/selection/sae", "data/selection_by_image", str(template.parent)):
        (folder / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / report.TEMPLATE_FPATH, template)
    shutil.copy(ROOT / "params.yaml", folder)
    change_params(folder, {"ingest": {"source": "folder"}})
    write_tables(folder, edited)
    write_metrics(folder, edited)
    chosen = {
        **{"layer": 23, "expansion": 16, "list": "ranked", "latents": LATENTS if edited else []},
        **{"losing": "semi_nude" if edited else "none", "gap": NONE, "why": "CLIP reads both conditions alike"},
    }
    (folder / "data" / "selection" / "selection.json").write_text(json.dumps(chosen))
    metadata = {"metadata": {"dataset_sha256": "a" * 64, "model": "b" * 64}}
    (folder / "data" / "selection" / "sae" / "cfg.json").write_text(json.dumps(metadata))
    for stem in report.PICTURES.keys() - {"finding"}:
        Image.new("RGB", (1100, 80)).save(folder / "plots" / f"{stem}.png")
    write_strengths(folder, edited)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", ["report"])
        report.main()
    return folder / report.REPORT_FPATH


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[bool, Path]:
    return {edited: page(tmp_path_factory.mktemp("page"), edited) for edited in (True, False)}


def text_of(fpath: Path) -> str:
    """The words of the page, less its style, its parameters and its published tables."""
    written = re.sub(r"<(style|pre)\b.*?</\1>", " ", fpath.read_text(), flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", written))


def test_a_page_without_an_edit_speaks_of_none(pages):
    says = text_of(pages[False])
    assert [phrase for phrase in NOT_ON_A_NULL if phrase in says] == []
    assert "No latent was named and none was edited" in says and "No latent was edited, so this page is short" in says
    assert "&lt; 1e-300" in says and "0.00 [0.00, 0.00]" in says
    for arm in ("edited cls", "ranked once", "swapped", "within cost"):
        assert arm not in says and arm in text_of(pages[True])


def test_a_page_says_on_how_many_images_its_maps_were_checked(pages):
    for fpath in pages.values():
        assert "The bust is deleted in 160 pairs at most" in text_of(fpath)


def test_no_table_of_a_page_is_without_rows(pages):
    for fpath in pages.values():
        bodies = re.findall(r"<tbody>(.*?)</tbody>", fpath.read_text(), flags=re.DOTALL)
        assert len(bodies) > 5 and all("<td>" in body for body in bodies)


def widths(browser: webdriver.Chrome) -> dict[str, tuple[int, int]]:
    """Width of each table and of the place it has, on the open page, with all that is folded unfolded."""
    found = browser.execute_script("""
        document.querySelectorAll('details').forEach(folded => folded.open = true);
        return [...document.querySelectorAll('.scroll')].map(
            place => [place.getAttribute('aria-label'), place.querySelector('table').offsetWidth, place.clientWidth]);
    """)
    return {label: (table, place) for label, table, place in found}


@needs_chromium
@pytest.mark.parametrize("edited", [True, False])
def test_no_table_is_wider_than_its_place_on_a_desk(browser, pages, edited):
    opened(browser, pages[edited], DESK)
    found = widths(browser)
    assert len(found) == (11 if edited else 8)
    assert {label: size for label, size in found.items() if size[0] > size[1]} == {}


@needs_chromium
@pytest.mark.parametrize("edited", [True, False])
def test_a_table_that_scrolls_on_a_phone_says_so(browser, pages, edited):
    opened(browser, pages[edited], PHONE)
    assert any(table > place for table, place in widths(browser).values())
    assert browser.execute_script("return document.documentElement.scrollWidth") <= PHONE[0]
    hint = "return getComputedStyle(document.querySelector('.scroll'), '::before').content"
    assert "scroll sideways" in browser.execute_script(hint)
    opened(browser, pages[edited], DESK)
    assert browser.execute_script(hint) == "none"


@needs_chromium
@pytest.mark.parametrize("size", [DESK, PHONE])
def test_one_picture_is_shown_for_the_woman_and_the_strength_that_are_chosen_by_keyboard(browser, pages, size):
    opened(browser, pages[True], size)

    def shown() -> list[tuple[int, str]]:
        figures = browser.find_elements(By.CSS_SELECTOR, ".strengths figure")
        seen = [figure for figure in figures if figure.is_displayed()]
        width = "return arguments[0].querySelector('img').naturalWidth"
        return [(browser.execute_script(width, figure), figure.text) for figure in seen]

    assert shown() == [(900, "semi-nude: sad 0 %")]
    browser.find_element(By.ID, "strength0").send_keys(Keys.ARROW_RIGHT)
    assert shown() == [(901, "semi-nude: sad 1 %")]
    browser.find_element(By.ID, "pair0").send_keys(Keys.ARROW_RIGHT)
    assert shown() == [(911, "semi-nude: sad 11 %")]
    assert browser.find_elements(By.CSS_SELECTOR, "script") == []


def test_without_an_edit_there_is_no_strength_to_choose(pages):
    assert "Strength of the edit" in text_of(pages[True])
    assert "Strength of the edit" not in text_of(pages[False]) and 'class="strengths"' not in pages[False].read_text()
