"""Images and masks come together, as they were stored."""

import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import pytest
import torch
from pycocotools import mask as coco
from torch.utils.data import DataLoader
from torchvision import tv_tensors
from torchvision.transforms import v2

from pipeline.errors import ConfigError
from pipeline.inputs.images import decode
from pipeline.inputs.shards import find_shards
from pipeline.inputs.tars import read_samples
from pipeline.loading import MaskDataset, collate, decode_masks
from pipeline.outputs.predictions import Predictions
from pipeline.outputs.selection import SelectionConfig
from pipeline.outputs.semantic import SemanticConfig, semantic_map
from tests.pipeline.loading.conftest import Run


def keys(dataset: MaskDataset) -> list[str]:
    return [target["key"] for _, target in dataset]


def test_masks_are_the_stored_run_lengths_as_pycocotools_decodes_them(finished: Run) -> None:
    dataset = MaskDataset(finished.images, finished.output)
    assert dataset.classes == {0: "background", 1: "bus", 2: "cat", 3: "dog", 4: "star"}
    seen = 0
    for image, target in dataset:
        rows = finished.masks_of(target["image_id"])
        seen += len(rows)
        assert isinstance(image, tv_tensors.Image) and isinstance(target["masks"], tv_tensors.Mask)
        assert target["masks"].shape == (len(rows), *image.shape[1:])
        assert target["boxes"].canvas_size == tuple(image.shape[1:])
        for row, mask, box in zip(rows, target["masks"], target["boxes"].tolist(), strict=True):
            np.testing.assert_array_equal(mask.numpy(), coco.decode(row["segmentation"]) == 1)
            x, y, width, height = row["bbox"]
            assert box == [x, y, x + width, y + height]
        assert [dataset.classes[n] for n in target["labels"].tolist()] == [
            row["category"] for row in rows
        ]
        np.testing.assert_allclose(target["scores"].numpy(), [row["score"] for row in rows])
    assert seen == len(finished.masks) > 40


def test_images_are_those_of_the_tar(finished: Run) -> None:
    loaded = iter(MaskDataset(finished.images, finished.output))
    for shard in find_shards([finished.images]):
        with Path(shard.location).open("rb") as stream:
            for raw in read_samples(stream):
                if raw.fields["jpg"] != b"no image":
                    image, target = next(loaded)
                    assert (target["key"], target["shard"]) == (raw.key, shard.name)
                    assert torch.equal(image, decode(raw.fields["jpg"], 10**9))
    assert next(loaded, None) is None


def test_rejected_samples_are_left_out_and_empty_ones_on_request(finished: Run) -> None:
    assert keys(MaskDataset(finished.images, finished.output)) == finished.usable
    assert "2-1" not in finished.usable and {"0-2", "3-0"} < set(finished.usable)
    (empty,) = [t for _, t in MaskDataset(finished.images, finished.output) if t["key"] == "0-2"]
    assert empty["masks"].shape == (0, 30, 40) and empty["boxes"].shape == (0, 4)
    some = MaskDataset(finished.images, finished.output, keep_empty=False)
    assert keys(some) == [key for key in finished.usable if key not in ("0-2", "3-0")]


def test_filters_are_those_of_exports(finished: Run) -> None:
    middle = float(np.median([row["score"] for row in finished.masks]))
    select = SelectionConfig(categories=["dog", "star"], score=middle, top_k=1)
    made = Predictions(finished.output)
    expected: list[tuple[int, str]] = []
    for commit in made.commits:
        kept, _ = select.select(made.read(commit).annotations)
        expected += [(row["image_id"], row["category"]) for row in kept.to_pylist()]
    dataset = MaskDataset(finished.images, finished.output, select=select, keep_empty=False)
    assert dataset.labels == {"dog": 1, "star": 2}
    found = [
        (target["image_id"], dataset.classes[label])
        for _, target in dataset
        for label in target["labels"].tolist()
    ]
    assert found == expected and 0 < len(found) < len(finished.masks)
    with pytest.raises(ConfigError, match="the run has no 'dgo'"):
        MaskDataset(finished.images, finished.output, select=SelectionConfig(categories=["dgo"]))


def test_run_lengths_come_undecoded_on_request(finished: Run) -> None:
    masks = {t["key"]: t["masks"] for _, t in MaskDataset(finished.images, finished.output)}
    for image, target in MaskDataset(finished.images, finished.output, decode=False):
        assert "masks" not in target
        decoded = decode_masks(target["segmentation"], *image.shape[1:])
        assert torch.equal(decoded, masks[target["key"]])


def test_a_semantic_map_is_made_at_the_size_of_training(finished: Run) -> None:
    config = SemanticConfig(background="band")
    dataset = MaskDataset(finished.images, finished.output, semantic=config, size=(24, 32))
    found = set()
    for image, target in dataset:
        expected = semantic_map(
            finished.masks_of(target["image_id"]), dataset.labels, (24, 32), config
        )
        np.testing.assert_array_equal(target["semantic"].numpy(), expected)
        assert image.shape == (3, 24, 32)
        found |= set(np.unique(expected).tolist())
    assert found == {0, 1, 2, 3, 4, 255}
    image, target = next(iter(MaskDataset(finished.images, finished.output, semantic=config)))
    assert target["semantic"].shape == image.shape[1:]


def test_masks_and_boxes_are_resized_with_their_image(finished: Run) -> None:
    for image, target in MaskDataset(finished.images, finished.output, size=(60, 80)):
        assert image.shape == (3, 60, 80)
        assert target["masks"].shape[1:] == target["boxes"].canvas_size == (60, 80)
        assert target["masks"].dtype == torch.bool
        for mask, (left, top, right, bottom) in zip(
            target["masks"], target["boxes"].tolist(), strict=True
        ):
            rows, columns = mask.nonzero().T
            assert abs(rows.min() - top) <= 1 and abs(rows.max() + 1 - bottom) <= 1
            assert abs(columns.min() - left) <= 1 and abs(columns.max() + 1 - right) <= 1


def test_v2_transforms_change_image_masks_and_boxes_alike(finished: Run) -> None:
    flipped = MaskDataset(finished.images, finished.output, transform=v2.RandomHorizontalFlip(1))
    for (image, target), (turned, changed) in zip(
        MaskDataset(finished.images, finished.output), flipped, strict=True
    ):
        assert torch.equal(turned, image.flip(2))
        assert torch.equal(changed["masks"], target["masks"].flip(2))
        width = image.shape[2]
        boxes = target["boxes"][:, [2, 1, 0, 3]]
        boxes[:, [0, 2]] = width - boxes[:, [0, 2]]
        assert torch.equal(changed["boxes"].as_subclass(torch.Tensor), boxes)
        assert changed["key"] == target["key"]


def test_what_a_transform_draws_depends_on_seed_epoch_and_image_alone(finished: Run) -> None:
    crop = v2.RandomCrop((20, 20))

    def draw(epoch: int, seed: int, buffer: int) -> dict[str, Any]:
        dataset = MaskDataset(
            finished.images, finished.output, transform=crop, seed=seed, shuffle_buffer=buffer
        )
        dataset.set_epoch(epoch)
        return {target["key"]: image for image, target in dataset}

    def differ(one: dict[str, Any], other: dict[str, Any]) -> bool:
        return any(not torch.equal(one[key], other[key]) for key in one)

    before = torch.get_rng_state()
    once = draw(0, 0, 0)
    assert torch.equal(torch.get_rng_state(), before)
    assert not differ(once, draw(0, 0, 5))
    assert differ(once, draw(1, 0, 0)) and differ(once, draw(0, 1, 0))


def test_batches_are_lists_as_detectors_take_them(finished: Run) -> None:
    dataset = MaskDataset(finished.images, finished.output)
    images, targets = next(iter(DataLoader(dataset, batch_size=3, collate_fn=collate)))
    assert [image.shape for image in images] == [(3, 30, 40), (3, 30, 50), (3, 30, 40)]
    assert [target["key"] for target in targets] == ["0-0", "0-1", "0-2"]


@pytest.mark.parametrize("workers", [0, 1])
def test_maps_are_stacked_by_torchs_own_collation(finished: Run, workers: int) -> None:
    dataset = MaskDataset(
        finished.images, finished.output, semantic=SemanticConfig(), size=(24, 24)
    )
    images, targets = next(iter(DataLoader(dataset, batch_size=4, num_workers=workers)))
    assert images.shape == (4, 3, 24, 24) and targets["semantic"].shape == (4, 24, 24)


def test_masks_of_captions_are_of_one_class(finished: Run, tmp_path: Path) -> None:
    shutil.copytree(finished.output, tmp_path / "out")
    run = tmp_path / "out" / "run.json"
    run.write_text(run.read_text().replace('"source": "labels"', '"source": "caption"'))
    dataset = MaskDataset(finished.images, str(tmp_path / "out"))
    assert dataset.labels == {"(caption)": 1}
    with pytest.raises(ConfigError, match="of captions, which have no categories"):
        MaskDataset(finished.images, str(tmp_path / "out"), semantic=SemanticConfig())


def test_shards_that_do_not_belong_to_the_run_are_one_line(finished: Run, copied: Path) -> None:
    with pytest.raises(ConfigError, match=r"none of 7 shards is in .*input_root") as error:
        MaskDataset(str(copied), finished.output)
    assert "\n" not in str(error.value)
    another = Path(finished.images, "another.tar")
    shutil.copy(copied / "0.tar", another)
    with pytest.raises(ConfigError, match=r"1 of 8 shards have no commit .*another\.tar"):
        MaskDataset(finished.images, finished.output)
    another.unlink()
    with pytest.raises(ConfigError, match=r"images .*no shard"):
        MaskDataset(str(copied / "nothing*"), finished.output)


def test_shards_that_have_changed_are_one_line(finished: Run, tar: Callable[..., bytes]) -> None:
    shard = Path(finished.images, "0.tar")
    whole = shard.read_bytes()
    try:
        shard.write_bytes(whole + bytes(512))
        with pytest.raises(ConfigError, match=r"0\.tar has .* bytes, and had"):
            MaskDataset(finished.images, finished.output)
        with tarfile.open(shard) as archive:
            members = [(m.name, cast(IO[bytes], archive.extractfile(m)).read()) for m in archive]
        shard.write_bytes(tar((name.replace("0-1", "0-9"), data) for name, data in members))
        assert len(shard.read_bytes()) == len(whole)
        with pytest.raises(ConfigError, match=r"0\.tar: sample 1 is 0-9, and was 0-1"):
            list(MaskDataset(finished.images, finished.output))
    finally:
        shard.write_bytes(whole)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decode": False, "size": (8, 8)}, "decode=False"),
        ({"shuffle_buffer": -1}, "shuffle_buffer -1"),
        ({"rank": 2, "ranks": 2}, "rank 2, ranks 2"),
        ({"rank": 0}, "give both"),
    ],
)
def test_settings_that_cannot_work(finished: Run, settings: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MaskDataset(finished.images, finished.output, **settings)
