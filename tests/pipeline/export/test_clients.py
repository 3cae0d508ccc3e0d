"""Real clients read what is written."""

import tarfile
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
HERE = [
    pytest.param(
        client,
        id=f"{client.name}: {client.format}",
        marks=pytest.mark.skipif(not client.is_here, reason="pip install -e '.[clients]'"),
    )
    for client in CLIENTS
]
each_client = pytest.mark.parametrize("client", HERE)


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
    written = block[0].splitlines(keepends=True)[1:-1]
    assert "".join(written[:2]) == clients.HEADER and len(written) == 2 + len(CLIENTS)
    for client, line in zip(CLIENTS, written[2:], strict=True):
        if client.is_here:
            assert clients.line(client) == line, (
                "python -m tests.pipeline.export.clients writes the table anew"
            )


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on some images of the demo, and the images."""
    folder = tmp_path_factory.mktemp("demo")
    with tarfile.open(DEMO) as archive:
        archive.extractall(folder, filter="data")
    flags = ("--engine.executor", "local", "--engine.threads", "1", "--limit_samples", "6")
    assert annotate.main(["--input", str(DEMO), "--output", str(folder / "out"), *flags]) == 0
    return folder


KEEP_SCORES = [param for client, param in zip(CLIENTS, HERE, strict=True) if client.read not in (
    clients.torchvision, clients.supervision, clients.supervision_yolo, clients.ultralytics
)]  # fmt: skip


@pytest.mark.parametrize("client", KEEP_SCORES)
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
