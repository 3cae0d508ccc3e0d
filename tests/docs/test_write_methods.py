"""The methods page and the methods benchmark: what they compare is the same thing."""

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import legrad
from benchmarks.published import loops
from docs.write_methods import PAGE, VARIANTS, Row, described, markdown, speed_section
from pipeline.config import RunConfig
from pipeline.demo.map_quality import LEVELS, Quality, measure
from pipeline.demo.quality import bundled_scenes
from pipeline.models.loading import LoadedClip
from tests.legrad.conftest import EMBED_DIM, make_case


@pytest.mark.parametrize("method", list(loops.runs(make_case().model)))
def test_published_loops_give_the_same_maps(method: str) -> None:
    """Up to a factor, and in float64: relevance is divided by sums that nearly cancel."""
    case = make_case(dtype=torch.float64)
    image, text = case.images[:1], case.text[:1]
    loop = loops.runs(case.model)[method](image, text).detach()
    ours = legrad.build(method, case.model)(image, text, torch.tensor([0]))
    torch.testing.assert_close(legrad.minmax(loop), legrad.minmax(ours), rtol=0, atol=1e-8)


QUALITY = Quality(0.5, 0.5, 0.5, (0.5,) * len(LEVELS), 0.5, 0.5, 0.5, images_per_second=7.0)
RELEVANCE = ["lrp", "partial_lrp", "transformer_attribution"]


@pytest.mark.parametrize("method", RELEVANCE)
def test_published_relevance_does_the_published_work(method: str) -> None:
    """Products per layer: forward, two of the backward pass, and those of its relevance."""
    case = make_case()
    run = loops.runs(case.model)[method]
    with FlopCounterMode(display=False) as counter:
        run(case.images[:1], case.text[:1])
    assert all(parameter.grad is None for parameter in case.model.parameters())

    tokens, width, hidden, depth = 17, 24, 96, 3
    linear = depth * 2 * tokens * width * (4 * width + 2 * hidden)
    attention = depth * 2 * 2 * tokens**2 * width
    patches = 2 * (tokens - 1) * 48 * width
    read_out = (1 + 2 + 1 + 8) * 2 * width * EMBED_DIM + 8 * 2 * EMBED_DIM
    rollout = (depth - 1) * 2 * tokens**3
    expected = (1 + 2 + 8) * linear + (1 + 2 + 3) * attention + (1 + 1) * patches + read_out
    if method == "lrp":
        expected += 9 * patches
    if method == "transformer_attribution":
        expected += rollout
    assert counter.get_total_flops() == expected


def test_every_method_is_a_row_and_is_described() -> None:
    assert {row.settings["method"] for row in VARIANTS} == set(legrad.METHODS)
    page = markdown([Row(row.label, QUALITY, QUALITY) for row in VARIANTS], 3, 4)
    text = described()
    for method in legrad.METHODS:
        assert f"| {method} |" in page
        assert f"### {method}\n" in text
    assert "legrad (score_layer='last')" in page


def test_every_row_can_be_measured() -> None:
    model, scenes = LoadedClip(RunConfig()), bundled_scenes()[:1]
    found = {row.label: measure(model, scenes, **row.settings) for row in VARIANTS}
    assert len({quality.pixel_ap for quality in found.values()}) > len(found) / 2
    assert found["legrad"].pixel_ap > 0.7


def test_the_page_keeps_what_it_says_on_speed(tmp_path: Path) -> None:
    (kept,) = speed_section(PAGE, None)
    assert kept.startswith("## Speed\n\nViT-B/16") and kept.endswith(" |")
    assert f"\n\n{kept}\n\n## What they are\n" in PAGE.read_text()
    assert speed_section(tmp_path / "new.md", None) == []


def test_the_page_says_what_the_command_would() -> None:
    """Of all but the figures."""
    page = PAGE.read_text()
    opening = markdown([Row(row.label, QUALITY, QUALITY) for row in VARIANTS], 3, 4).partition(
        "\n\n## "
    )[0]
    assert page.startswith(opening)
    assert page.endswith(described() + "\n")
