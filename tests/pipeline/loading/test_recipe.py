"""The stage for pipelines of WebDataset's own, and stores that are not disks."""

import gc
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import webdataset as wds
from torch.utils.data import DataLoader

from pipeline.errors import ConfigError
from pipeline.loading import MaskDataset, collate, with_masks
from pipeline.loading import recipe as module
from pipeline.outputs.selection import SelectionConfig
from tests.pipeline.loading.conftest import Run


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """WebDataset leaves the shards that it has read to the garbage collector."""
    yield
    gc.collect()


pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


def pipeline(urls: list[str], stage: Any) -> Any:
    return wds.WebDataset(urls, shardshuffle=False).compose(stage)


def urls(run: Run) -> list[str]:
    return [str(path) for path in sorted(Path(run.images).iterdir())]


def same(one: Any, other: Any) -> bool:
    return all(torch.equal(one[name], other[name]) for name in ("masks", "boxes", "labels"))


def test_webdatasets_own_pipeline_has_the_same_targets(finished: Run) -> None:
    samples = pipeline(urls(finished), with_masks(finished.output)).decode(
        "torchrgb8", partial=True
    )
    dataset = MaskDataset(finished.images, finished.output)
    for (image, found), (expected, target) in zip(
        samples.to_tuple("jpg", "target"), dataset, strict=True
    ):
        assert image.shape == expected.shape
        assert same(found, target) and found["image_id"] == target["image_id"]


def test_the_stage_can_stand_anywhere_and_travels_to_workers(
    finished: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHARDS_KEPT", 2)
    stage = pickle.loads(pickle.dumps(with_masks(finished.output, decode=False)))
    shuffled = wds.WebDataset(urls(finished), shardshuffle=3, seed=1).shuffle(20)
    loader = DataLoader(shuffled.compose(stage), batch_size=None, num_workers=1)
    found = {sample["__key__"]: sample["target"]["segmentation"] for sample in loader}
    assert sorted(found) == sorted(finished.usable)
    for row in finished.rows:
        if row["status"] != "rejected":
            rles = [mask["segmentation"] for mask in finished.masks_of(row["image_id"])]
            assert found[row["key"]] == rles


def test_the_stage_filters(finished: Run) -> None:
    select = SelectionConfig(categories=["cat"])
    stage = with_masks(finished.output, select=select, keep_empty=False)
    assert stage.classes == {0: "background", 1: "cat"}
    found = [sample["__key__"] for sample in pipeline(urls(finished), stage)]
    expected = {mask["key"] for mask in finished.masks if mask["category"] == "cat"}
    assert found == sorted(expected)


def test_a_shard_that_the_run_does_not_have_is_one_line(finished: Run, copied: Path) -> None:
    with pytest.raises(ConfigError, match=r"0\.tar: .* has no commit of .*input_root"):
        next(iter(pipeline([str(copied / "0.tar")], with_masks(finished.output))))


@pytest.mark.slow
def test_images_and_masks_may_lie_on_s3(
    finished: Run, bucket: Any, annotate: Callable[..., Any], make_config: Callable[..., Any]
) -> None:
    for path in urls(finished):
        bucket.upload_file(path, "data", f"shards/{Path(path).name}")
    config = make_config(
        input="s3://data/shards", output="s3://data/out", input_root="s3://data/shards"
    )
    annotate(config)
    dataset = MaskDataset("s3://data/shards", config.output, input_root=config.input_root)
    local = MaskDataset(finished.images, finished.output)
    assert all(same(one, other) for (_, one), (_, other) in zip(dataset, local, strict=True))
    moved = MaskDataset(finished.images, config.output, input_root=finished.images)
    assert [target["key"] for _, target in moved] == finished.usable
    with pytest.raises(ConfigError, match='multiprocessing_context="spawn"'):
        next(iter(DataLoader(dataset, num_workers=1, multiprocessing_context="fork")))
    spawned = DataLoader(
        dataset, 8, num_workers=1, collate_fn=collate, multiprocessing_context="spawn"
    )
    assert [t["key"] for _, targets in spawned for t in targets] == finished.usable


def test_keys_that_come_twice_in_a_shard_are_left_out(
    tmp_path: Path,
    tar: Callable[..., bytes],
    labelled: Callable[..., Any],
    picture: Callable[..., bytes],
    annotate: Callable[..., Any],
    make_config: Callable[..., Any],
) -> None:
    members = [
        *labelled("a", ["dog"], picture(1)), *labelled("b", ["cat"], picture(2)),
        *labelled("a", ["star"], picture(3)),
    ]  # fmt: skip
    (tmp_path / "twice.tar").write_bytes(tar(members))
    config = make_config(input=str(tmp_path / "twice.tar"))
    annotate(config)
    stage = with_masks(config.output)
    found = [s["__key__"] for s in pipeline([str(tmp_path / "twice.tar")], stage)]
    assert found == ["b"]
    kept = [target["key"] for _, target in MaskDataset(str(config.input), config.output)]
    assert kept == ["a", "b"], "the first of the two is known by its place"
