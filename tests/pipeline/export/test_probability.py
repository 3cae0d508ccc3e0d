"""Probabilities go wherever scores go, and nowhere else."""

import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.export.validate import ValidateConfig, validate
from pipeline.loading.targets import TargetReader, dense_labels
from pipeline.outputs.predictions import Predictions
from pipeline.outputs.selection import SelectionConfig
from tests.pipeline.export.made import HARD, make_run
from tests.pipeline.export.test_export import read, run, said

SCORES = [0.25, 0.5, 0.125, 0.75]


@pytest.fixture(params=[True, False])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> bool:
    """A run whose masks are half as likely as their score is high, or one without a calibration."""
    make_run(str(tmp_path / "out"), HARD, images=tmp_path / "tars", calibrated=request.param)
    return bool(request.param)


def check(records: list[dict[str, Any]], calibrated: bool) -> None:
    assert [record["score"] for record in records] == SCORES
    likely = [record.get("probability") for record in records]
    assert likely == [score / 2 if calibrated else None for score in SCORES]


def test_coco(made: bool, tmp_path: Path) -> None:
    for name, format in (("instances.json", "coco"), ("results.json", "coco-results")):
        assert run(tmp_path / "out", tmp_path / format, format=format) == 0
        data = read(tmp_path / format, name)
        check(data["annotations"] if format == "coco" else data, made)
        assert list(validate(ValidateConfig(str(tmp_path / format / name)))) == []


def test_components_have_that_of_their_mask(tmp_path: Path) -> None:
    make_run(str(tmp_path / "out"), HARD, calibrated=True)
    assert run(tmp_path / "out", tmp_path / "to", "--instances", "components") == 0
    objects = read(tmp_path / "to")["annotations"]
    assert len(objects) == 5
    assert all(one["probability"] == one["score"] / 2 for one in objects)


def test_webdataset(made: bool, tmp_path: Path) -> None:
    flags = ("--images", str(tmp_path / "tars"))
    assert run(tmp_path / "out", tmp_path / "to", *flags, format="webdataset") == 0
    (name,) = json.loads((tmp_path / "to" / "shards.json").read_text())["shards"]["all"]
    with tarfile.open(tmp_path / "to" / name) as archive:
        texts = [archive.extractfile(one).read() for one in archive if one.name.endswith("json")]
    check([one for text in texts for one in json.loads(text)["objects"]], made)


def test_hf(made: bool, tmp_path: Path) -> None:
    assert run(tmp_path / "out", tmp_path / "to", format="hf") == 0
    (path,) = (tmp_path / "to" / "data").iterdir()
    table = pq.read_table(path)
    objects: list[dict[str, Any]] = []
    for row in table["objects"].to_pylist():
        assert ("probability" in row) == made
        objects += [
            dict(zip(row, values, strict=True)) for values in zip(*row.values(), strict=True)
        ]
    check(objects, made)
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert ("probability" in features["objects"]) == made
    assert features["objects"].keys() == {
        field.name for field in table.schema.field("objects").type
    }


def test_targets_of_the_loader(made: bool, tmp_path: Path) -> None:
    predictions, select = Predictions(str(tmp_path / "out")), SelectionConfig()
    read_targets = TargetReader(predictions, dense_labels(predictions, select, None), select)
    targets = read_targets(predictions.commits[0])
    found = [targets.instances(index) for index in targets.images]
    assert [target["scores"].tolist() for target in found] == [SCORES[:3], [], SCORES[3:]]
    for target in found:
        assert ("probabilities" in target) == made
        if made:
            assert target["probabilities"].tolist() == (target["scores"] / 2).tolist()


def test_an_export_that_was_begun_without_them_is_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(str(tmp_path / "out"), HARD, calibrated=True)
    assert run(tmp_path / "out", tmp_path / "to") == 0
    state = tmp_path / "to" / "export" / "state.json"
    before = json.loads(state.read_text())
    assert before["made_with"].pop("objects") == "with probability"
    state.write_text(json.dumps(before))
    capsys.readouterr()
    assert run(tmp_path / "out", tmp_path / "to") == 2
    assert "holds another export (with another objects)" in said(capsys)
