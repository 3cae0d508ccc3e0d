"""The benchmark of every method, with a stand-in for the published package."""

import json
from pathlib import Path

import pytest

from benchmarks import methods
from tests.benchmarks.stand_in import TINY, make_stand_in


@pytest.mark.long
def test_every_method_is_timed_both_ways(tmp_path: Path) -> None:
    results = methods.compare(str(make_stand_in(tmp_path)), rounds=1, batch_rounds=1, config=TINY)
    for column in ("published", "here", "annotation"):
        assert set(methods.FORMS) <= set(results[column])
        assert min(results[column].values()) > 0
    assert len(results["targets"]) == 5
    json.dumps(results)
    page = methods.markdown(results)
    assert all(f"| {name} |" in page for name in methods.FORMS)
