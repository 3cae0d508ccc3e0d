"""Lists in samples are found by the keys that the run has given them."""

import json
from pathlib import Path

import pytest

from pipeline.calibration.config import CalibrateConfig
from pipeline.calibration.truth import find_truth
from pipeline.errors import ConfigError
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


def test_points_are_found_by_paths_and_base_names(tmp_path: Path) -> None:
    points, names = tmp_path / "points.csv", tmp_path / "names.csv"
    rows = "".join(f"{image},0.5,0.5,/m/d,yes\n" for image in ("x/a", "y/a", "b"))
    points.write_text(f"ImageId,X,Y,Label,EstimatedYesNo\n{rows}")
    names.write_text("/m/d,Dog\n")
    config = CalibrateConfig("run", "out", points=str(points), descriptions=str(names))
    truth = find_truth(config, Naming())
    images = {"x/a": "x/a", "in/y/a": "y/a", "a": None, "train/b": "b", "c": None}
    for key, image in images.items():
        found = truth("s", key)
        assert (found.image if found else None) == image


@pytest.mark.parametrize("setting", ["field", "input_root"])
def test_settings_of_lists_have_no_effect_without_lists(setting: str) -> None:
    with pytest.raises(ConfigError, match=f"--{setting}: has no effect without --input"):
        CalibrateConfig("run", "out", coco="truth.json", **{setting: "other"})
