"""The page as text: what is escaped, what is in it when there is little to show."""

import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from pipeline.report.build import NUMBERS, PAGE, write_report
from pipeline.report.config import ReportConfig
from tests.pipeline.report.conftest import MakeOutput, Row, image_row

OLD = Path(__file__).parents[2] / "reference" / "version_1"
EVIL = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style></title>{{ 7 * 7 }}",
    "\N{RIGHT-TO-LEFT OVERRIDE}gnp.exe",
    "שלום \N{FOX FACE} & 'quotes'",
)
VOID = {"meta", "link", "img", "br", "rect", "line"}


class Outline(HTMLParser):
    """What a page is made of; elements that are not closed in order are an error."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags, self.texts = Counter[str](), list[str]()
        self.attributes: list[tuple[str, str, str]] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID or tag == "rect":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def of(self, attribute: str) -> list[str]:
        return [value for _, name, value in self.attributes if name == attribute]


def page_of(output: str, folder: Path, **settings: Any) -> str:
    write_report(ReportConfig(predictions=output, output=str(folder), **settings))
    return (folder / PAGE).read_text()


def test_texts_of_data_are_text_wherever_they_stand(
    make_output: MakeOutput, tmp_path: Path
) -> None:
    def change(annotations: list[Row], images: list[Row]) -> None:
        evil = EVIL[0]
        reject = {"status": "rejected", "reason": evil, "detail": evil, "key": evil}
        images.append(image_row(images[0]["shard"], 99, 0, **reject))
        images[0]["without_mask"] = [{"reason": evil, "count": 1}]
        for row in annotations:
            row["key"] = evil

    output = make_output(3, EVIL, change=change, missing=[EVIL[0]], incomplete=EVIL[0])
    page = page_of(output, tmp_path / "report")
    outline = Outline(page)
    assert (
        outline.tags["script"] == outline.tags["style"] == outline.tags["title"] - bars(page) == 1
    )
    assert outline.tags["img"] == 0
    for name in EVIL:
        assert name in outline.texts and f"Class: {name}" in outline.texts
    assert not [name for _, name, _ in outline.attributes if name.startswith("on")]


def test_what_is_absent_is_told_apart_from_what_has_no_mask(
    make_output: MakeOutput, tmp_path: Path
) -> None:
    reasons: list[Row] = [{"reason": "absent", "count": 7}]

    def change(_: list[Row], images: list[Row]) -> None:
        images[0]["prompts"] += 7
        images[0]["without_mask"] = reasons

    def said(name: str) -> str:
        page = page_of(make_output(1, change=change), tmp_path / name)
        text = " ".join(" ".join(Outline(page).texts).split())
        return text.rpartition("Prompts without a mask")[2]

    alone = said("alone")
    assert "7 prompts were absent" in alone and "not above the level of presence" in alone
    assert "Every other prompt has a mask." in alone
    reasons += [{"reason": "blank", "count": 2}, {"reason": "min_area", "count": 3}]
    both = said("both")
    assert "7 prompts were absent" in both and "Every other" not in both
    assert "blank counts names of a list that say nothing" in both
    assert "min_area 3" in both and "absent 7" not in both


def bars(page: str) -> int:
    """Every bar has a title of its own."""
    return page.count("<rect ")


def test_a_text_in_an_attribute_stays_there(make_output: MakeOutput, tmp_path: Path) -> None:
    output = make_output(1, EVIL)
    evil = Path(output).rename(tmp_path / "a\"b'<c>")
    outline = Outline(page_of(str(evil), tmp_path / "report"))
    assert f"Pseudo-mask report: {evil}" in outline.texts


def test_every_text_of_data_is_set_apart_from_the_direction_around_it(
    make_output: MakeOutput, tmp_path: Path
) -> None:
    page = page_of(make_output(2, EVIL), tmp_path / "report")
    assert f"<bdi>{EVIL[3]}</bdi>" in page
    without = re.sub(r"<bdi>.*?</bdi>", "", page, flags=re.DOTALL)
    assert EVIL[3] not in without


def test_the_same_output_gives_the_same_bytes(make_output: MakeOutput, tmp_path: Path) -> None:
    output = make_output(15)
    first, second = tmp_path / "first", tmp_path / "second"
    assert page_of(output, first) == page_of(output, second)
    assert (first / NUMBERS).read_bytes() == (second / NUMBERS).read_bytes()


def test_nothing_is_loaded_and_nothing_styled_in_place(
    make_output: MakeOutput, tmp_path: Path
) -> None:
    outline = Outline(page_of(make_output(1), tmp_path / "report"))
    assert outline.of("style") == []
    links = [*outline.of("src"), *outline.of("href")]
    assert links and all(link.startswith(("#", "data:")) for link in links)
    (policy,) = (text for text in outline.of("content") if "default-src" in text)
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy


def test_links_and_labels_of_the_page_lead_somewhere(
    make_output: MakeOutput, tmp_path: Path
) -> None:
    outline = Outline(page_of(make_output(1), tmp_path / "report"))
    ids = outline.of("id")
    assert len(ids) == len(set(ids))
    named = [name for names in outline.of("aria-labelledby") for name in names.split()]
    assert {*(link[1:] for link in outline.of("href") if link[0] == "#"), *named} <= set(ids)


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ({"shards": 1, "images": 1}, "1 of 1 committed"),
        ({"shards": 1, "images": 0}, "There are no masks to show."),
        ({"shards": 2, "categories": (None,)}, "<bdi>(caption)</bdi>"),
        ({"shards": 2, "degraded": True}, "2 shards were computed in smaller batches"),
        ({"shards": 2, "missing": ["x.tar"]}, "1 shard is missing"),
        ({"shards": 2, "stages": {}}, "This run did not record the time of its stages."),
    ],
)
def test_a_page_is_made_of_a_run_with(
    output: dict[str, Any], says: str, make_output: MakeOutput, tmp_path: Path
) -> None:
    page = page_of(make_output(**output), tmp_path / "report")
    Outline(page)
    assert says in page


def test_a_run_in_which_nothing_was_found(make_output: MakeOutput, tmp_path: Path) -> None:
    def change(annotations: list[Row], images: list[Row]) -> None:
        annotations.clear()
        for row in images:
            row |= {"status": "empty", "masks": 0}

    page = page_of(make_output(2, change=change), tmp_path / "report")
    Outline(page)
    for text in ("No class has a mask.", "There are no masks to filter.", "no masks to show"):
        assert text in page
    assert "Classes without a mask: 2" in page


def test_an_output_of_version_1(tmp_path: Path) -> None:
    page = page_of(str(OLD), tmp_path)
    Outline(page)
    assert "tables of version 1" in page
    assert "This run did not record the time of its stages." in page


def test_a_long_text_is_cut(make_output: MakeOutput, tmp_path: Path) -> None:
    page = page_of(make_output(2, ("x" * 5000, "cat")), tmp_path / "report")
    assert "x" * 160 + "…" in page and "x" * 161 not in page


def test_a_thousand_classes_make_a_small_page(make_output: MakeOutput, tmp_path: Path) -> None:
    names = [f"class {number}" for number in range(1000)]
    page = page_of(make_output(6, names, images=300), tmp_path / "report", classes=50)
    assert len(page) < 300_000
    assert "other classes</bdi>" in page


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"predictions": ""}, "--predictions and --output are needed"),
        ({"output": ""}, "--predictions and --output are needed"),
        ({"output": __file__}, "is a file; name a directory"),
        ({"examples": 51}, "--examples 51: from 0 to 50"),
        ({"classes": 0}, "--classes 0: from 1 to 1000"),
        ({"seed": -1}, "--seed -1: must not be negative"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReportConfig(**{"predictions": "out", "output": "out"} | settings)
