"""The methods page and the methods benchmark: what they compare is the same thing."""

import pytest
import torch

import legrad
from jobs.benchmarks import as_published
from jobs.methods import VARIANTS, described, markdown
from pipeline.demo.quality import Quality
from tests.legrad.conftest import make_case


@pytest.mark.parametrize("method", list(as_published.runs(make_case().model)))
def test_published_loops_give_the_same_maps(method: str) -> None:
    case = make_case(dtype=torch.float32, batch=3)
    image, text = case.images[:1], case.text[:1]
    loop = as_published.runs(case.model)[method](image, text).detach()
    ours = legrad.build(method, case.model)(image, text, torch.tensor([0]))
    torch.testing.assert_close(legrad.minmax(loop), legrad.minmax(ours), rtol=0, atol=1e-4)


def test_every_method_is_a_row_and_is_described() -> None:
    assert {row.method for row in VARIANTS} == set(legrad.METHODS)
    quality = Quality(*[0.5] * 6, images_per_second=7.0)
    page = markdown([(row.label, quality) for row in VARIANTS], 3, 4)
    text = described()
    for method in legrad.METHODS:
        assert f"| {method} |" in page
        assert f"### {method}\n" in text
    assert "legrad (score_layer='last')" in page
