"""The benchmark of views, on two scenes."""

import pytest

from benchmarks import views


@pytest.mark.long
def test_every_variant_is_measured() -> None:
    results = views.measure(layers=0.67, step=96, threads=1)
    assert {name: row["passes"] for name, row in results.items()} == {
        "none": 1,
        "`flip`": 2,
        "`shifts 2`": 2,
        "`shifts 2`, `flip`": 4,
        "`shifts 4`": 4,
        "`scales '[1, 1.5]'`": 2,
        "`shifts 2`, `scales '[1, 1.5]'`": 4,
    }
    assert results["none"]["time"] == 1
    for row in results.values():
        assert 0.3 < row["at_half"] <= row["mask_miou"] < 1
        assert row["threshold"] in views.THRESHOLDS
    page = views.markdown(results)
    assert all(f"| {name} |" in page for name in views.VARIANTS)
