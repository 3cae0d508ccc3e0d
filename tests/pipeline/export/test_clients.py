"""Real clients read what is written."""

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pycocotools import mask as coco

from jobs import annotate, export
from pipeline.models.demo import ASSETS
from tests.pipeline.export import clients
from tests.pipeline.export.clients import BLOCK, CLIENTS, PAGE, Client, ask, expected
from tests.pipeline.export.made import HARD, make_run

DEMO = ASSETS / "shards" / "demo-00000.tar"
each_client = pytest.mark.parametrize(
    "client", CLIENTS, ids=[f"{client.name}: {client.format}" for client in CLIENTS]
)


@each_client
def test_every_mask_of_the_hard_images_arrives(client: Client, tmp_path: Path) -> None:
    row = ask(client, HARD, tmp_path)
    wanted = expected(HARD).total()
    if client.exact:
        assert (row.objects, row.equal) == (wanted, wanted)
    else:
        assert row.objects >= wanted
    assert row.scored in (0, wanted)


def test_the_page_says_what_the_clients_do() -> None:
    block = BLOCK.search(PAGE.read_text())
    assert block is not None
    table = clients.table()
    assert table in block[0], "python -m tests.pipeline.export.clients writes it anew"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on some images of the demo."""
    folder = tmp_path_factory.mktemp("demo")
    flags = ("--engine.executor", "local", "--engine.threads", "1", "--limit_samples", "6")
    assert annotate.main(["--input", str(DEMO), "--output", str(folder / "out"), *flags]) == 0
    return folder


KEEP_SCORES = [client for client in CLIENTS if client.read not in (
    clients.torchvision, clients.supervision, clients.supervision_yolo
)]  # fmt: skip


@pytest.mark.parametrize("client", KEEP_SCORES, ids=lambda c: f"{c.name}: {c.format}")
def test_the_demo_arrives(client: Client, demo: Path, tmp_path: Path) -> None:
    (tables,) = (demo / "out" / "annotations").glob("*.parquet")
    rows = pq.read_table(tables).to_pylist()
    wanted = Counter[Any](
        (
            f"{row['key']}.jpg",
            row["category"],
            tuple(row["segmentation"]["size"]),
            coco.decode(row["segmentation"]).astype(bool).tobytes(),
            row["score"],
        )
        for row in rows
    )
    if "--images" in client.flags:
        client = client._replace(flags=("--images", str(DEMO)))
    row = clients.compare(client, demo / "out", demo, wanted, tmp_path / "export")
    assert row == (len(rows), len(rows), len(rows))


@pytest.mark.parametrize("kind", ["pycocotools", "faster-coco-eval"])
def test_results_match_their_own_instances_perfectly(kind: str, tmp_path: Path) -> None:
    make_run(str(tmp_path / "out"), HARD)
    for name in ("coco", "coco-results"):
        places = ("--predictions", str(tmp_path / "out"), "--output", str(tmp_path / name))
        assert export.main([name, *places]) == 0
    files = tmp_path / "coco" / "instances.json", tmp_path / "coco-results" / "results.json"
    assert clients.evaluate(*files, kind) == pytest.approx(1.0)
