"""Outputs of runs that never were: as many shards as a test needs, with any texts and numbers."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from legrad import HeatOrder
from pipeline.config import AnnotateConfig
from pipeline.inputs.classes import stable_id
from pipeline.inputs.shards import Shard
from pipeline.outputs.ledger import Ledger
from pipeline.outputs.masks import encode, measure
from pipeline.outputs.records import make_commit
from pipeline.outputs.schema import image_id, to_files
from tests.pipeline.report.browser import CHROMIUM, Browser

SIDE = 24
Row = dict[str, Any]
MakeOutput = Callable[..., str]


def image_row(shard: str, index: int, masks: int, **columns: Any) -> Row:
    """A row of images/ of a sample that was read."""
    return {
        "shard": shard,
        "sample_index": index,
        "key": f"{index:04d}",
        "file_name": f"{index:04d}.jpg",
        "image_id": image_id(shard, f"{index:04d}"),
        "height": SIDE,
        "width": SIDE,
        "status": "annotated" if masks else "empty",
        "reason": None,
        "detail": None,
        "prompts": masks,
        "prompts_cut": 0,
        "masks": masks,
        "without_mask": [],
    } | columns


def mask_row(image: Row, number: int, category: str | None, random: Any, **columns: Any) -> Row:
    """A row of annotations/: a rectangle, and numbers that are drawn."""
    pixels = np.zeros((SIDE, SIDE, 1), np.uint8)
    height, width = random.integers(1, SIDE + 1, 2)
    pixels[:height, :width] = 1
    (segmentation,) = encode(np.asfortranarray(pixels))
    area, bbox = measure(segmentation)
    same = ("shard", "sample_index", "key", "image_id", "height", "width")
    return {
        **{name: image[name] for name in same},
        "prompt_index": number,
        "prompt": f"a photo of a {category}." if category is not None else f"caption {number}",
        "category": category,
        "category_id": None if category is None else stable_id(category),
        "score": random.normal(0.25, 0.05),
        "raw_max": float(np.exp(random.normal(-3, 1))),
        "heat_mean": random.uniform(0.5, 1),
        "threshold": 0.5,
        "area": area,
        "bbox": bbox,
        "segmentation": segmentation,
        "heat": random.integers(0, 256, 4, np.uint8).tobytes(),
        "heat_shape": [2, 2],
    } | columns


def draw_shard(
    name: str, random: Any, images: int, categories: Sequence[str | None]
) -> tuple[list[Row], list[Row]]:
    """Rows of annotations/ and images/: 0 to 3 masks in an image."""
    annotations, samples = [], []
    for index in range(images):
        image = image_row(name, index, int(random.integers(0, 4)))
        samples.append(image)
        for number in range(image["masks"]):
            category = categories[int(random.integers(len(categories)))]
            annotations.append(mask_row(image, number, category, random))
    return annotations, samples


@pytest.fixture
def make_output(tmp_path: Path) -> MakeOutput:
    """`make_output(shards, categories=, images=, change=, missing=)` → where the output is.

    `change(annotations, images)` may change the rows of every shard before they are written.
    """

    def make(
        shards: int = 3,
        categories: Sequence[str | None] = ("dog", "cat"),
        images: int = 20,
        change: Callable[[list[Row], list[Row]], None] = lambda annotations, images: None,
        missing: Sequence[str] = (),
        **fields: Any,
    ) -> str:
        config = AnnotateConfig(output=str(tmp_path / "run"))
        ledger = Ledger(config.output)
        ledger.open(config.identity(), config.public(), [])
        for number in range(shards):
            shard = Shard("", f"data/{number:05d}.tar", 1000)
            random = np.random.default_rng(number)
            annotations, samples = draw_shard(shard.name, random, images, categories)
            change(annotations, samples)
            files = to_files(
                shard.name, annotations, samples, config.identity(), HeatOrder.UPSAMPLE_NORMALISE
            )
            statuses = Counter(row["status"] for row in samples)
            rejects = Counter(row["reason"] for row in samples if row["reason"])
            commit = make_commit(
                shard,
                ledger.fingerprint,
                {
                    "samples": len(samples),
                    "statuses": dict(sorted(statuses.items())),
                    "rejects": dict(sorted(rejects.items())),
                    "prompts": sum(row["prompts"] for row in samples),
                    "prompts_cut": 0,
                    "masks": len(annotations),
                },
                files,
                **{
                    "seconds": 2.0 + number,
                    "attempt": 1,
                    "names": sorted(name for name in categories if name is not None),
                    "stages": {"read": 0.5, "model": 1.5, "mask": 0.25},
                }
                | fields,
            )
            ledger.commit(commit, files)
        for name in missing:
            ledger.fail(Shard("", name, 0), "cannot be read <b>at all</b>")
        ledger.summarise([*ledger.committed(), *ledger.failed()])
        ledger.write_index(ledger.commits())
        return config.output

    return make


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A Chromium, where there is one."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium on the path (Debian: apt-get install chromium)")
    opened = Browser(tmp_path_factory.mktemp("chromium"))
    yield opened
    opened.close()
