"""Lists in samples are found by the keys that the run has given them."""

import json
from pathlib import Path

import pytest

from pipeline.calibration.config import CalibrateConfig
from pipeline.calibration.truth import find_truth
from pipeline.inputs.naming import Naming
from pipeline.inputs.shards import find_shards
from tests.pipeline.conftest import tar


@pytest.mark.parametrize(
    ("naming", "known"),
    [
        (Naming(), {"photo": {"dog"}, "photo.000": None, "photo.001": None}),
        (
            Naming("last_dot", "scan"),
            {"photo": None, "photo.000": {"dog"}, "photo.001": {"cat", "owl"}},
        ),
    ],
)
def test_lists_are_read_as_the_run_has_read_them(
    naming: Naming, known: dict[str, set[str] | None], tmp_path: Path
) -> None:
    members = []
    for number, names in enumerate((["Dog"], ["cat", "owl"])):
        listed = json.dumps({"labels": names}).encode()
        # As WebDataset has it, the second is the same sample again.
        field = f"00{number}.json" if naming.key_end == "last_dot" or number else "json"
        members += [(f"photo.00{number}.scan", b"..."), (f"photo.{field}", listed)]
    (tmp_path / "a.tar").write_bytes(tar(members))
    (shard,) = find_shards([str(tmp_path)])
    config = CalibrateConfig("run", "out", input=str(tmp_path))
    truth = find_truth(config, naming)
    for key, names in known.items():
        found = truth(shard.name, key)
        assert (None if found is None else set(found.names)) == names
