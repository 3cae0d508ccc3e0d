"""Make the bundled data from the held-out scenes: `python -m pipeline.demo.bundle`.

Three shards of 64 scenes, their masks as COCO instances, and point labels in the CSV layout of
OpenImages V7. The seeds are fixed and no scene is left out. The class file beside them, with levels
that other scenes gave, is that of `pipeline.demo.presence`.
"""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse import auto_cli
from PIL import Image

from pipeline.demo.scenes import HELD_OUT_SEED, Scene, make_scene, sample_points
from pipeline.demo.sprites import CLASSES, load_sprites
from pipeline.models.demo import ASSETS
from pipeline.outputs.masks import encode, measure

SHARDS, SCENES_PER_SHARD = 3, 64
SIDE = 160
JPEG_QUALITY = 92
POINT_COLUMNS = (
    "ImageId", "X", "Y", "Label", "EstimatedYesNo", "Source",
    "YesVotes", "NoVotes", "UnsureVotes", "TextLabel",
)  # fmt: skip


def bundle(output: Path = ASSETS, font: Path | None = None) -> None:
    """Draw the held-out scenes and write shards, ground truth and points.

    Args:
        output: directory for `shards/`, `instances.json`, `points.csv` and
            `class-descriptions.csv`.
        font: Noto Color Emoji, where it is not in the usual places.
    """
    sprites = load_sprites(font)
    scenes = [
        make_scene(sprites, HELD_OUT_SEED, index, SIDE)
        for index in range(SHARDS * SCENES_PER_SHARD)
    ]
    (output / "shards").mkdir(parents=True, exist_ok=True)
    for shard in range(SHARDS):
        first = shard * SCENES_PER_SHARD
        part = scenes[first : first + SCENES_PER_SHARD]
        write_scenes(output / "shards" / f"demo-{shard:05d}.tar", first, part)
    (output / "instances.json").write_text(json.dumps(_instances(scenes)) + "\n")
    _write_points(output / "points.csv", scenes)
    with (output / "class-descriptions.csv").open("w", newline="") as stream:
        rows = [("LabelName", "DisplayName"), *((_label(name), name) for name in CLASSES)]
        csv.writer(stream, lineterminator="\n").writerows(rows)


def key_of(index: int) -> str:
    """WebDataset key, and OpenImages image id, of scene `index`."""
    return f"scene{index:05d}"


def _label(name: str) -> str:
    return f"/demo/{name.replace(' ', '_')}"


def write_scenes(path: Path, first: int, scenes: Iterable[Scene]) -> None:
    """Write a shard of scenes, which have the numbers from `first` on."""
    write_tar(
        path,
        (
            (f"{key_of(index)}.{name}", data)
            for index, scene in enumerate(scenes, first)
            for name, data in _members(scene)
        ),
    )


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    """Write an archive of files, by name: the same bytes whenever it is written."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def _members(scene: Scene) -> Iterator[tuple[str, bytes]]:
    jpeg = io.BytesIO()
    Image.fromarray(scene.image).save(jpeg, "JPEG", quality=JPEG_QUALITY)
    yield "jpg", jpeg.getvalue()
    side = scene.image.shape[0]
    yield "json", json.dumps({"labels": list(scene.masks), "width": side, "height": side}).encode()
    yield "txt", scene.caption.encode()


def _instances(scenes: list[Scene]) -> dict[str, Any]:
    """COCO instances; ids start at 1, for COCO's own evaluation takes 0 for no match."""
    names = {name: number for number, name in enumerate(CLASSES, 1)}
    masks = [
        (i, name, mask) for i, scene in enumerate(scenes, 1) for name, mask in scene.masks.items()
    ]
    return {
        "info": {"description": "LeGrad demo scenes", "version": "1"},
        "licenses": [],
        "images": [
            {"id": i, "file_name": f"{key_of(i - 1)}.jpg", "width": SIDE, "height": SIDE}
            for i in range(1, len(scenes) + 1)
        ],
        "categories": [
            {"id": number, "name": name, "supercategory": "thing"} for name, number in names.items()
        ],
        "annotations": [
            {"id": number, "image_id": image, "category_id": names[name], **_region(mask)}
            for number, (image, name, mask) in enumerate(masks, 1)
        ],
    }


def _region(mask: np.ndarray) -> dict[str, Any]:
    (rle,) = encode(np.asfortranarray(mask[..., None], dtype=np.uint8))
    area, bbox = measure(rle)
    return {"segmentation": rle, "area": area, "bbox": bbox, "iscrowd": 0}


def _write_points(path: Path, scenes: list[Scene]) -> None:
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(POINT_COLUMNS)
        for index, scene in enumerate(scenes):
            for name, points in sample_points(scene, index).items():
                for point in points:
                    place = (key_of(index), f"{point.x:.6f}", f"{point.y:.6f}", _label(name))
                    vote = ("yes", "demo", 1, 0, 0) if point.yes else ("no", "demo", 0, 1, 0)
                    writer.writerow((*place, *vote, ""))


if __name__ == "__main__":
    auto_cli(bundle)
