"""Masks in closed form against those of every pixel, of the maps of real images."""

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco

from pipeline.config import MaskConfig, PromptConfig
from pipeline.inputs.prompts import PromptReader
from pipeline.inputs.reader import ShardReader, in_batches
from pipeline.inputs.samples import Sample
from pipeline.inputs.shards import find_shards
from pipeline.models.demo import ASSETS
from pipeline.models.explain import PromptExplainer
from pipeline.outputs.masks import Mask, encode_masks
from pipeline.outputs.raster import rasters
from pipeline.outputs.thresholding import threshold_maps

PHOTOGRAPHS = Path(__file__).parents[4] / "shared" / "data" / "coco-val-100"
SOURCES = [
    pytest.param(ASSETS / "shards", 48, id="demo"),
    pytest.param(
        PHOTOGRAPHS,
        40,
        id="photographs",
        marks=pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason=f"{PHOTOGRAPHS} is not there"),
    ),
]


@pytest.mark.parametrize(("folder", "images"), SOURCES)
def test_masks_are_those_of_every_pixel(
    folder: Path, images: int, explainer: PromptExplainer
) -> None:
    prompts_of = PromptReader(PromptConfig())
    read = ShardReader(lambda raw: prompts_of(raw.fields), explainer.squash)
    samples = (sample for shard in find_shards([str(folder)]) for sample in read(shard))
    ious: dict[str, list[float]] = {"keep": [], "winner": []}
    for batch in in_batches(islice(samples, images), 8):
        asked = [sample for sample in batch if isinstance(sample, Sample) and sample.wanted]
        for sample, maps in zip(asked, explainer(asked), strict=True):
            for overlap, found in ious.items():
                config = replace(MaskConfig(threshold=0.4), overlap=overlap)
                own = [None] * len(maps.raw)
                arguments = (maps.raw, sample.height, sample.width, own, config)
                found += _ious(*(_masks(make(*arguments)) for make in (threshold_maps, rasters)))
    # Of a few pixels that a map wins, one may be decided by the last bit of float32.
    for overlap, least in (("keep", 0.9999), ("winner", 0.999)):
        assert len(ious[overlap]) > 60
        assert np.mean(ious[overlap]) >= least, overlap


def _masks(parts: Any) -> list[Mask | str]:
    return [mask for part in parts for mask in encode_masks(part, 0.0)]


def _ious(ours: list[Mask | str], theirs: list[Mask | str]) -> list[float]:
    found = []
    for one, other in zip(ours, theirs, strict=True):
        if isinstance(one, Mask) and isinstance(other, Mask):
            found.append(float(coco.iou([one.segmentation], [other.segmentation], [0])[0][0]))
        else:
            assert one == other
    return found
