"""The page of the explorer in a browser without a network."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from stages.core.explorer.requests import Place, View
from tests.browsers import DESK, PHONE, SECONDS, complaints, needs_chromium, serious_faults, show
from tests.explorer import picture
from tests.imports import ROOT

pytestmark = [needs_chromium, pytest.mark.slow]


@pytest.fixture
def address(study):
    with picture.served(study) as url:
        yield url


def wait(browser: webdriver.Chrome, until: Callable[[], Any]) -> Any:
    return WebDriverWait(browser, SECONDS).until(lambda _: until())


def drawn(browser: webdriver.Chrome) -> int:
    return int(browser.execute_script("return document.body.dataset.drawn || 0"))


def opened(browser: webdriver.Chrome, address: str, size: tuple[int, int] = DESK, scheme: str = "light") -> None:
    show(browser, address, size, scheme)
    wait(browser, lambda: drawn(browser))


def after(browser: webdriver.Chrome, act: Callable[[], Any]) -> None:
    """Act, and wait until the page has drawn what the server said."""
    before = drawn(browser)
    act()
    wait(browser, lambda: drawn(browser) > before)


def move(browser: webdriver.Chrome, slider: str, factor: float) -> None:
    script = "const it = document.getElementById(arguments[0]); it.value = arguments[1]; it.dispatchEvent("
    after(browser, lambda: browser.execute_script(f"{script}new Event('input'))", slider, factor))


def texts(browser: webdriver.Chrome, selector: str) -> list[str]:
    """The texts of all elements at one moment: the page may draw them anew at any time."""
    script = "return [...document.querySelectorAll(arguments[0])].map(found => found.innerText.trim())"
    return browser.execute_script(script, selector)


def on_page(browser: webdriver.Chrome, image: int, arm: str) -> list[float]:
    script = "return [...document.querySelectorAll(arguments[0])].map(cell => Number(cell.dataset.p))"
    return browser.execute_script(script, f"#bars-{image}-{arm} [data-p]")


def assert_shows(browser: webdriver.Chrome, study, asked: View) -> None:
    """Wait until the page shows the probabilities of a view. Fails with the numbers if it never does.

    The page must have no other answer outstanding: the model computes for one thread at a time.
    """
    for image, twin in enumerate(study.view(asked)["pictures"]):
        for arm in ("original", "edited"):
            expected = pytest.approx(twin[arm]["probabilities"], abs=1e-6)
            with suppress(TimeoutException):
                wait(browser, lambda image=image, arm=arm, expected=expected: on_page(browser, image, arm) == expected)
            assert on_page(browser, image, arm) == expected


FIRST = 4  # the first pair of a confirmation woman


def test_a_slider_changes_the_probabilities_to_what_the_model_gives(browser, address, study):
    opened(browser, address)
    assert_shows(browser, study, View(pair=FIRST, factors=[(3, 0.0), (11, 0.0)]))
    before = on_page(browser, 0, "edited")
    move(browser, "latent-11", 4)
    assert_shows(browser, study, View(pair=FIRST, factors=[(3, 0.0), (11, 4.0)]))
    assert on_page(browser, 0, "edited") != before
    move(browser, "whole", 1)
    assert on_page(browser, 0, "edited") == on_page(browser, 0, "original")
    assert complaints(browser) == []


def test_a_slider_moves_by_keyboard(browser, address, study):
    opened(browser, address)
    after(browser, lambda: browser.find_element(By.ID, "latent-3").send_keys(Keys.ARROW_RIGHT))
    assert_shows(browser, study, View(pair=FIRST, factors=[(3, 0.05), (11, 0.0)]))


def test_an_address_holds_the_state(browser, address, study):
    opened(browser, address)
    browser.get("about:blank")
    home, strongest = address.partition("?")[0], study.firing(Place(pair=6, image=1, token=5))[0]["latent"]
    opened(browser, f"{home}#pair=6&edit=20:2.5,3:0&scope=patches&text=a+flower&text=a+car&map=1&place=1.5&latent=20")
    wait(browser, lambda: texts(browser, "#h-card")[0].startswith("Latent 20 ("))
    wait(browser, lambda: texts(browser, "#place .latent")[:1] == [f"latent {strongest}"])
    assert_shows(
        browser, study, View(pair=6, texts=["a flower", "a car"], scope="patches", factors=[(20, 2.5), (3, 0.0)])
    )
    move(browser, "latent-20", 4)
    wait(browser, lambda: "20:4" in browser.current_url)
    assert all(part in browser.current_url for part in ("pair=6", "scope=patches", "text=a+flower", "place=1.5"))


def test_an_address_that_makes_no_sense_opens_the_study(browser, address, study):
    opened(browser, address)
    browser.get("about:blank")
    opened(browser, address.partition("?")[0] + "#pair=99&edit=x:y,9999:1,3:7&scope=face&map=-1&place=9.9.9&latent=1e9")
    assert_shows(browser, study, View(pair=FIRST, factors=[]))


def test_a_patch_names_its_latents_and_a_latent_opens_its_card(browser, address, study):
    found = study.firing(Place(pair=FIRST, image=0, token=6))
    card = study.card(found[0]["latent"])
    opened(browser, address)
    box = browser.find_element(By.ID, "map-0-original")
    box.send_keys(Keys.ARROW_DOWN, Keys.ARROW_RIGHT, Keys.ENTER)  # from the first patch to row 2, column 2
    assert wait(browser, lambda: texts(browser, "#place .latent"))[0] == f"latent {found[0]['latent']}"
    browser.execute_script("document.querySelector('#place .latent').click()")
    wait(browser, lambda: texts(browser, "#h-card")[0].startswith(f"Latent {found[0]['latent']}"))
    wait(browser, lambda: len(texts(browser, "#tops figure")) == len(card["top"]))
    assert f"Nearest prompts: {card['prompts']}" in texts(browser, "#card")[0]


def test_the_latents_of_a_patch_have_their_lists_and_the_edited_are_marked(browser, address, study):
    edited = {latent: " (edited)" for latent, _ in study.overview()["factors"]}
    asked = [Place(pair=pair, image=0, token=token) for pair in (4, 6) for token in range(17)]
    place, found = next(
        (place, found)
        for place, found in ((place, study.firing(place)) for place in asked)
        if edited.keys() & {row["latent"] for row in found}
    )
    opened(browser, f"{address}#pair={place.pair}&place=0.{place.token}")
    shown = wait(browser, lambda: texts(browser, "#place td.text"))
    on_lists = [(row["lists"] or "on no list") + edited.get(row["latent"], "") for row in found]
    assert shown == on_lists


def test_choosing_a_patch_leaves_the_numbers_in_place(browser, address):
    opened(browser, f"{address}#place=0.6")
    browser.execute_script("document.querySelector('.bars li').id = 'first'")
    browser.find_element(By.ID, "map-0-original").send_keys(Keys.ARROW_DOWN, Keys.ENTER)
    wait(browser, lambda: any("row 3, column 2" in text for text in texts(browser, "#place h3")))
    assert browser.find_elements(By.CSS_SELECTOR, ".bars #first") and drawn(browser) == 1


SLOW = """
    const [name, late, done] = arguments, atOnce = window[name];
    let release;
    const held = new Promise(resolve => release = resolve);
    window[name] = async (path, body) => { if (path.includes(late)) await held; return atOnce(path, body); };
"""
"""The page's function `name` answers requests for `late` only after `release()`."""


def test_the_card_that_was_asked_for_last_stays(browser, address):
    opened(browser, address)
    browser.execute_async_script(
        SLOW + "const first = openCard(3, false); openCard(11, false).then(release).then(() => first).then(done)",
        "ask",
        "card/3",
    )
    assert texts(browser, "#h-card") == ["Latent 11 (bias)"] and texts(browser, "#error") == [""]
    assert browser.execute_script("return state.latent") == 11


def test_the_pair_that_was_chosen_last_stays(browser, address, study):
    opened(browser, address)
    browser.execute_async_script(
        SLOW + "const first = choosePictures(6); choosePictures(2).then(release).then(() => first).then(done)",
        "loaded",
        "pair/6/",
    )
    assert_shows(browser, study, View(pair=2, factors=[(3, 0.0), (11, 0.0)]))
    sources = browser.execute_script("return images.map(image => new URL(image.src).pathname)")
    assert sources == ["/picture/pair/2/0", "/picture/pair/2/1"]


def test_the_table_is_sorted_and_filtered(browser, address):
    opened(browser, address)

    def first_latents() -> list[str]:
        return texts(browser, "#latents tbody tr td:first-child")[:3]

    assert first_latents() == ["latent 63", "latent 62", "latent 61"]  # largest effect gap first
    browser.find_element(By.CSS_SELECTOR, "[data-column='effect gap']").click()
    wait(browser, lambda: first_latents() == ["latent 0", "latent 1", "latent 2"])
    browser.find_element(By.CSS_SELECTOR, "#of-list [value='perception']").click()
    wait(browser, lambda: first_latents() == ["latent 7", "latent 20"])


def test_an_own_picture_is_shown_alone(browser, address, study, spliced, tmp_path):
    import numpy as np
    from PIL import Image

    Image.fromarray(spliced.data.images(np.array([9]))[0]).save(tmp_path / "own.png")
    opened(browser, address)
    after(browser, lambda: browser.find_element(By.ID, "file").send_keys(str(tmp_path / "own.png")))
    wait(browser, lambda: len(texts(browser, ".twin")) == 1)
    assert_shows(browser, study, View(upload=0, factors=[(3, 0.0), (11, 0.0)]))
    (tmp_path / "wrong.png").write_bytes(b"no picture")
    browser.find_element(By.ID, "file").send_keys(str(tmp_path / "wrong.png"))
    wait(browser, lambda: "neither a PNG nor a JPEG" in texts(browser, "#error")[0])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_has_no_serious_fault_of_accessibility(browser, address, study, scheme):
    latent = next(latent for latent in range(64) if study.card(latent)["top"])
    opened(browser, f"{address}#latent={latent}", scheme=scheme)
    wait(browser, lambda: texts(browser, "#tops figure"))
    browser.find_element(By.ID, "map-0-edited").send_keys(Keys.ENTER)
    wait(browser, lambda: texts(browser, "#place .latent"))
    assert serious_faults(browser) == []


def test_the_page_fits_a_phone(browser, address):
    opened(browser, address, PHONE)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= PHONE[0]


def test_the_picture_of_the_readme_is_of_the_page_and_small(study, tmp_path):
    from PIL import Image

    picture.take(study, tmp_path / "page.png")
    shown = Image.open(tmp_path / "page.png")
    assert shown.size == picture.SIZE and len(shown.convert("RGB").getcolors()) > 20
    assert str(picture.PICTURE_FPATH.relative_to(ROOT)) in (ROOT / "README.md").read_text()
    assert picture.PICTURE_FPATH.stat().st_size < 200_000
