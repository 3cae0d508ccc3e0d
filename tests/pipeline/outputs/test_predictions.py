"""A run as its consumers read it."""

import shutil
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.inputs.classes import stable_id
from pipeline.outputs.predictions import Predictions
from pipeline.outputs.schema import ANNOTATIONS, IMAGES

OLD = Path(__file__).parents[2] / "reference" / "version_1"


def test_a_shard_has_its_tables_and_its_commit() -> None:
    made = Predictions(str(OLD))
    (commit,) = made.commits
    shard = made.read(commit)
    assert shard.images.column_names == IMAGES.names
    assert shard.annotations.column_names == ANNOTATIONS.names
    assert (len(shard.images), len(shard.annotations)) == (commit.samples, commit.masks) == (3, 11)
    part = made.read(commit, ["key"], ["score", "area"])
    assert (part.images.column_names, part.annotations.column_names) == (["key"], ["score", "area"])


def test_categories_are_there_before_a_run_has_ended(tmp_path: Path) -> None:
    shutil.copytree(OLD, tmp_path / "out")
    run = tmp_path / "out" / "run.json"
    old = Predictions(str(OLD))
    rows = old.read(old.commits[0]).annotations.to_pylist()
    assert old.categories == {stable_id(name): name for name in {row["category"] for row in rows}}
    run.write_text(run.read_text().replace('"schema_version": 1', '"schema_version": 2'))
    made = Predictions(str(tmp_path / "out"))
    assert made.categories == {}
    made.commits[0].names.append("dog")
    assert made.categories == {stable_id("dog"): "dog"}


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("", "--predictions is needed"),
        ("nothing/here", "--predictions nothing/here: no annotation run has committed there"),
    ],
)
def test_where_there_is_no_run(location: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Predictions(location)


def test_a_table_that_is_gone_is_named(tmp_path: Path) -> None:
    shutil.copytree(OLD, tmp_path / "out")
    made = Predictions(str(tmp_path / "out"), "--source")
    (commit,) = made.commits
    (tmp_path / "out" / "images" / f"{commit.shard}.parquet").write_bytes(b"cut")
    with pytest.raises(ConfigError, match=rf"--source .*images/{commit.shard}.parquet cannot be"):
        made.read(commit)
