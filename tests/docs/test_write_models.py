"""The survey of models: what it says about a few names of each kind."""

from pathlib import Path

import open_clip
import pytest

from docs.write_models import PAGE, WEIGHTS, disagreements, markdown, survey


def test_a_few_names() -> None:
    clip, siglip, pe, coca, clipa, eva02, resnet = survey(
        [
            "ViT-B-32", "ViT-B-16-SigLIP", "PE-Core-T-16-384", "coca_ViT-B-32", "ViT-L-14-CLIPA",
            "EVA02-B-16", "RN50",
        ]
    )  # fmt: skip
    assert (clip.pooling, siglip.pooling) == ("CLS", "map (SigLIP)")
    assert (coca.pooling, clipa.pooling) == ("first query (CoCa)", "average")
    assert "lrp" in clip.methods
    assert siglip.methods == (
        "legrad", "raw_attention", "rollout", "gradcam", "attention_cam", "chefer_cam",
    )  # fmt: skip
    assert (pe.pooling, pe.methods) == (siglip.pooling, siglip.methods)
    assert eva02.reason == "block 0 has a SwiGLU: its MLP is gated"
    assert "ModifiedResNet" in resnet.reason
    page = markdown([clip, resnet])
    assert "1 of 2 are supported" in page
    assert "| ViT-B-32 | CLS |" in page


def test_the_page_lists_every_name_once() -> None:
    surveyed = Path(PAGE).read_text().partition("## Weights from a file")[0]
    rows = [line.split("|")[1].strip() for line in surveyed.splitlines() if "|" in line]
    for name in open_clip.list_models():
        if name != "legrad-demo" and not name.startswith("imagebind_"):
            assert rows.count(name) == 1, name


def test_the_page_says_which_names_have_tags_that_disagree() -> None:
    """By hand, from open_clip's table of weights."""
    page = Path(PAGE).read_text().partition("## Weights from a file")[2]
    found = disagreements()
    assert page.startswith(WEIGHTS.read_text().partition("## Weights from a file")[2])
    assert found["ViT-L-14"] == ["mean", "quick_gelu", "std"]
    assert found["ViT-B-16"] == ["quick_gelu"] and "ViT-B-16-SigLIP" not in found
    assert all(f"| {name} | {', '.join(keys)} |" in page for name, keys in found.items())


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(TypeError):
        survey(["no such model"])
