"""A run of the demo model over a few small shards, with all that can become of a sample."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import AnnotateConfig
from pipeline.inputs.shards import find_shards
from pipeline.outputs.ledger import Ledger
from pipeline.outputs.predictions import Predictions
from pipeline.run.run import run_shards
from pipeline.run.worker import MakeWorker
from tests.pipeline.conftest import ENGINE

SAMPLES = (7, 3, 5, 1, 4, 6, 2)
NAMES = ["dog", "cat", "star", "bus"]


@dataclass(frozen=True)
class Run:
    """Where images and masks are, and the rows of both tables."""

    images: str
    output: str
    rows: list[dict[str, Any]]
    masks: list[dict[str, Any]]

    @property
    def usable(self) -> list[str]:
        return [row["key"] for row in self.rows if row["status"] != "rejected"]

    def masks_of(self, image_id: int) -> list[dict[str, Any]]:
        return [mask for mask in self.masks if mask["image_id"] == image_id]


@pytest.fixture(scope="session")
def finished(
    tmp_path_factory: pytest.TempPathFactory,
    make_worker: MakeWorker,
    tar: Callable[..., bytes],
    picture: Callable[..., bytes],
    labelled: Callable[..., Any],
) -> Run:
    """28 samples in 7 shards: one is rejected, two have nothing to look for."""
    folder = tmp_path_factory.mktemp("loading")
    (folder / "shards").mkdir()
    for shard, count in enumerate(SAMPLES):
        members = []
        for i in range(count):
            labels = NAMES[: 1 + (shard + i) % 4] if (shard, i) not in ((0, 2), (3, 0)) else []
            image = picture(10 * shard + i, size=(40 + 10 * (i % 2), 30))
            image = b"no image" if (shard, i) == (2, 1) else image
            members += labelled(f"{shard}-{i}", labels, image)
        (folder / "shards" / f"{shard}.tar").write_bytes(tar(members))
    config = AnnotateConfig(input=str(folder / "shards"), output=str(folder / "out"), engine=ENGINE)
    ledger = Ledger(config.output)
    ledger.open(config.identity(), {}, [])
    run_shards(config, ledger, find_shards(config.patterns), make_worker, ledger.write_index)
    made = Predictions(config.output)
    tables = [made.read(commit) for commit in made.commits]
    rows = [row for table in tables for row in table.images.to_pylist()]
    masks = [row for table in tables for row in table.annotations.to_pylist()]
    assert json.dumps([row["status"] for row in rows]).count("rejected") == 1
    return Run(str(folder / "shards"), config.output, rows, masks)


@pytest.fixture
def copied(finished: Run, tmp_path: Path) -> Path:
    """The shards of `finished`, to be changed."""
    for path in Path(finished.images).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path
