"""The benchmark of presets, on few images."""

import pytest

from benchmarks import recipes
from pipeline.config.presets import PRESETS


@pytest.mark.long
def test_every_preset_and_refinement_is_measured() -> None:
    results = recipes.measure(images=2, rounds=1, sizes=[(48, 64)])
    passes = {name: row["passes"] for name, row in results["presets"].items()}
    assert passes == {
        "paper": 1, "balanced": 1, "fine": 2, "balanced_contrast": 1, "fine_contrast": 2
    }  # fmt: skip
    for row in results["presets"].values():
        assert row["model"] > 0 and row["mask"] > 0
        assert row["peak_bytes"] > 1e8
    assert [row["refine"] for row in results["refinements"]] == list(recipes.KINDS)
    for row in results["refinements"]:
        assert row["size"] == [64, 48] and row["first_ms"] > 0
    page = recipes.markdown(results)
    assert all(f"| `{name}` |" in page for name in (*PRESETS, *recipes.KINDS))
