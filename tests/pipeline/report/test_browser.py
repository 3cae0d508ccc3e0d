"""The page in a browser: by keyboard alone, on a phone, in dark mode, on paper."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pipeline.report.build import PAGE, write_report
from pipeline.report.config import ReportConfig
from tests.pipeline.report.browser import Browser
from tests.pipeline.report.conftest import MakeOutput, Row, image_row
from tests.pipeline.report.test_page import EVIL

PHONE = 390
FIRST_COLUMN = "[...document.querySelectorAll('#classes ~ .scroll tbody th')].map(c => c.innerText)"
SORTED_BY = """
[...document.querySelectorAll('[aria-sort]')].map(h => h.innerText + ' ' + h.ariaSort)
"""
CONTRASTS = """
(() => {
  const light = text => {
    const [r, g, b] = text.match(/[\\d.]+/g).map(Number).map(v => v / 255)
      .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const ground = e => {
    const colour = getComputedStyle(e).backgroundColor;
    return colour === 'rgba(0, 0, 0, 0)' ? ground(e.parentElement) : colour;
  };
  const found = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || e.closest('script')) continue;
    const style = getComputedStyle(e);
    const pair = [light(e.closest('svg') ? style.fill : style.color), light(ground(e))];
    const [low, high] = pair.sort((a, b) => a - b);
    found.push((high + .05) / (low + .05));
  }
  return [found.length, Math.min(...found)];
})()
"""


@pytest.fixture
def page(make_output: MakeOutput, tmp_path: Path) -> Path:
    """Of a run with everything that a page can have: evil names, rejects, gaps, an image."""

    def change(annotations: list[Row], images: list[Row]) -> None:
        reject = {"status": "rejected", "reason": "undecodable", "detail": "y" * 400}
        images.append(image_row(images[0]["shard"], 99, 0, **reject, key=EVIL[0]))
        images[0]["without_mask"] = [{"reason": "min_area", "count": 1}]

    output = make_output(
        3, (*EVIL, "x" * 400), change=change, missing=[EVIL[1]], incomplete=EVIL[0], degraded=True
    )
    write_report(ReportConfig(predictions=output, output=str(tmp_path)))
    return tmp_path / PAGE


def focused(browser: Browser) -> Any:
    return browser.value("document.activeElement.innerText.trim()")


def tab_to(browser: Browser, text: str) -> None:
    for _ in range(100):
        browser.press("Tab")
        if focused(browser) == text:
            return
    raise AssertionError(f"Tab does not lead to {text!r}")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [320, PHONE, 1280])
def test_no_size_of_window_makes_the_page_scroll_sideways_or_complain(
    browser: Browser, page: Path, width: int, dark: bool
) -> None:
    browser.open(page, width, dark=dark)
    assert browser.value("innerWidth") == width
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.problems == []
    assert browser.requests == [page.as_uri()]


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_has_the_contrast_of_wcag_aa(browser: Browser, page: Path, dark: bool) -> None:
    browser.open(page, dark=dark)
    texts, least = browser.value(CONTRASTS)
    assert texts > 200 and least >= 4.5
    ground = browser.value("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") is not dark


def test_names_of_classes_run_no_script(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert set(EVIL) <= set(browser.value(FIRST_COLUMN))
    assert browser.value("document.scripts.length") == 1
    assert browser.value("document.querySelectorAll('img').length") == 0


def test_the_policy_stops_a_script_that_would_get_in(browser: Browser, page: Path) -> None:
    text = page.read_text()
    page.write_text(text.replace("</main>", "<script>document.title = 'in'</script></main>"))
    browser.open(page)
    assert browser.value("document.title").startswith("Pseudo-mask report")
    assert any("Content Security Policy" in problem for problem in browser.problems)


def test_columns_are_sorted_by_keyboard_alone(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.value(SORTED_BY) == ["Masks descending"]
    by_masks = browser.value(FIRST_COLUMN)
    tab_to(browser, "Class")
    browser.press("Enter")
    assert browser.value(SORTED_BY) == ["Class ascending"]
    by_name = browser.value(FIRST_COLUMN)
    assert sorted(by_name) == sorted(by_masks) and by_name != by_masks
    browser.press("Enter")
    assert browser.value(FIRST_COLUMN) == by_name[::-1]
    tab_to(browser, "Masks")
    assert browser.value("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    browser.press("Enter")
    assert browser.value(FIRST_COLUMN) == by_masks
    masks = "[...document.querySelectorAll('#classes ~ .scroll tbody td:nth-child(2)')]"
    numbers = browser.value(f"{masks}.map(c => Number(c.dataset.value))")
    assert numbers == sorted(numbers, reverse=True)


def test_the_first_stop_leads_past_the_links_and_tables_can_be_scrolled(
    browser: Browser, page: Path
) -> None:
    browser.open(page, PHONE)
    browser.press("Tab")
    assert focused(browser) == "Skip to the content"
    regions = browser.value(
        "[...document.querySelectorAll('.scroll')].map(s => [s.tabIndex, s.ariaLabel, s.role])"
    )
    assert regions and all(
        stop == 0 and label and role == "region" for stop, label, role in regions
    )


def test_the_accessibility_tree_has_landmarks_headings_and_names(
    browser: Browser, page: Path
) -> None:
    browser.open(page)
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    named: dict[str, list[str]] = {}
    for node in nodes:
        role, name = (node.get(part, {}).get("value", "") for part in ("role", "name"))
        named.setdefault(role, []).append(name)
    assert {"banner", "navigation", "main", "contentinfo"} <= named.keys()
    for role in ("image", "button", "link", "region", "table"):
        assert role == "table" or all(named[role]), role
    assert len([name for name in named["image"] if name.startswith("Masks by score Median")]) == 1
    assert "Score: mean" in named["button"]
    levels = browser.value("[...document.querySelectorAll('h1,h2,h3')].map(h => +h.tagName[1])")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert browser.value("document.documentElement.lang") == "en"


def test_on_paper_there_are_no_links_and_nothing_is_cut(browser: Browser, page: Path) -> None:
    browser.open(page, dark=True)
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert browser.value("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert (
        browser.value("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"
    )
    assert browser.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert len(browser.call("Page.printToPDF")["data"]) > 10_000
