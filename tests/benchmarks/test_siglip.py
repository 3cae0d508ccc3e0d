"""The benchmark of many prompts per image."""

import json

import pytest
from open_clip.timm_model import TimmModel
from timm.models.vision_transformer import VisionTransformer

from benchmarks import siglip
from tests.legrad.conftest import in_open_clip


@pytest.fixture
def tiny_siglip() -> TimmModel:
    trunk = VisionTransformer(
        img_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=0,
        class_token=False, global_pool="map",
    )  # fmt: skip
    return in_open_clip(trunk).eval()


def test_prompts_of_siglip_are_timed_and_judged(tiny_siglip: TimmModel) -> None:
    results = siglip.measure(tiny_siglip, 16, rounds=1)
    cases = [(row["images"], row["prompts"]) for row in results["rows"]]
    assert cases == [(b, p) for b in siglip.BATCHES for p in siglip.PROMPTS]
    assert all(row["maps"] > 0 and row["heatmaps"] > 0 for row in results["rows"])
    assert len(results["targets"]) == 4
    assert {target["target"] for target in results["targets"]} == {"≤ 1.3"}
    json.dumps(results)
    assert siglip.markdown(results).count("| 8 | 100 |") == 1


def test_the_most_prompts_are_compared_with_one() -> None:
    rows = [
        {"images": batch, "prompts": prompts, "maps": seconds, "heatmaps": 2 * seconds**2}
        for batch in siglip.BATCHES
        for prompts, seconds in zip(siglip.PROMPTS, (2.0, 9.0, 2.5), strict=True)
    ]
    assert [target.measured for target in siglip.targets(rows)] == [1.25, 1.25**2] * 2
    assert [target.met for target in siglip.targets(rows)] == [True, False] * 2
