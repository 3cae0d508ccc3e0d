"""Masks made again at another threshold, from the heat that a run has stored, without a GPU.

Stored heat is that of the patch grid, before maps compete and before they are refined, so that
every recipe can start from it; one that refines needs the images again.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby, repeat
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco

from legrad import HeatOrder
from pipeline import storage
from pipeline.config import SCHEMA_VERSION, MaskConfig, fingerprint, public
from pipeline.config.identity import identity_of
from pipeline.config.unused import refuse_given
from pipeline.errors import ConfigError, naming
from pipeline.inputs.classes import load_classes
from pipeline.inputs.samples import Guide
from pipeline.outputs.card import annotations_card
from pipeline.outputs.ledger import Ledger
from pipeline.outputs.masks import RLE, Mask, encode_masks, stored_heat
from pipeline.outputs.predictions import Predictions
from pipeline.outputs.records import Commit, file_record
from pipeline.outputs.refinement.run_images import ImagesOfRun
from pipeline.outputs.schema import heat_order, to_files
from pipeline.outputs.thresholding import threshold_maps

Row = dict[str, Any]


@dataclass(frozen=True)
class RethresholdConfig:
    """Making masks again from stored heat."""

    source: str = ""
    """Output of an annotation run with --mask.heat."""
    output: str = ""
    """Where to write the same run with other masks."""
    images: list[str] | str = field(default_factory=list)
    """Shards with the images, as --input of annotate.py has them; needed with --mask.refine."""
    input_root: str = ""
    """The --input_root of the run: shards of --images lose it before they are named."""
    classes: str = ""
    """Class file with a threshold for some of the classes."""
    mask: MaskConfig = field(default_factory=MaskConfig)
    """The new rule; pairs that the source has no mask for have none here either, and do not
    compete where --mask.overlap is winner."""

    def __post_init__(self) -> None:
        if not self.source or not self.output:
            raise ConfigError(
                "--source and --output are needed: an annotation output and a new one"
            )
        if storage.normalise(self.source) == storage.normalise(self.output):
            raise ConfigError(f"--output {self.output}: is the source itself; name another place")
        if not self.images:
            refuse_given(self, ["input_root"], "without --images")
        if self.mask.refine != "none" and not self.images:
            raise ConfigError(
                f"--mask.refine {self.mask.refine} needs the pixels: give the shards of the run "
                "with --images"
            )

    @property
    def patterns(self) -> list[str]:
        """`images` as a list."""
        return [self.images] if isinstance(self.images, str) else self.images

    def public(self) -> dict[str, Any]:
        """All settings as JSON values, without credentials."""
        return public(self)


@dataclass(frozen=True)
class _Recipes:
    """What masks are made again with.

    Attributes:
        own: threshold of a class, where it has one.
        source: how the run made its masks, as far as this matters; the thresholds are in its rows.
        images: of the run, where maps are refined.
    """

    own: dict[str, float | None]
    source: MaskConfig
    images: ImagesOfRun | None


def rethreshold(config: RethresholdConfig) -> float:
    """Write `source` again with other masks.

    Returns:
        Mean IoU between the source's masks and those that its stored heat gives back at their own
        thresholds: what the eight bits of the stored heat cost. NaN where it has no masks, or they
        were refined and there are no images to refine them by again.

    Raises:
        ConfigError: the source is no annotation run, has no heat, or a file of it cannot be read;
            the output cannot be written; an image is needed and is not in the shards.
    """
    before, after = Predictions(config.source, "--source"), Ledger(config.output)
    made_with = before.identity
    if not made_with["mask"]["heat"]:
        raise ConfigError(f"{before}: was made with --mask.heat false")
    with naming(f"--classes {storage.public(config.classes)}"):
        classes = load_classes(config.classes, "--classes") if config.classes else []
    own = {category.name: category.threshold for category in classes}
    did = {k: v for k, v in made_with["mask"].items() if k in ("overlap", "refine", "refine_size")}
    images = None
    if config.patterns:
        images = ImagesOfRun(config.patterns, config.input_root, made_with)
        images.check(before.commits)
    recipes = _Recipes(own, MaskConfig(**did), images)
    results = made_with | {
        "schema_version": SCHEMA_VERSION,
        "mask": identity_of(config.mask),
        "rethresholded": {"mask": made_with["mask"], "thresholds": own},
    }
    with naming(str(before)):
        categories = _listed(before)
    with naming(f"--output {storage.public(config.output)}"):
        after.open(results, config.public(), categories)
        after.write_card(annotations_card(made_with["model"]))
    ious: list[float] = []
    for commit in before.commits:
        ious += _rewrite(config, recipes, results, commit, before, after)
    commits = after.table()
    planned = {commit.shard for commit in before.commits} | before.missing.keys()
    after.summarise(planned, commits=commits)
    after.write_index(commits)
    return float(np.mean(ious)) if ious else float("nan")


def _rewrite(
    config: RethresholdConfig,
    recipes: _Recipes,
    results: dict[str, Any],
    commit: Commit,
    before: Predictions,
    after: Ledger,
) -> list[float]:
    """One shard; returns the IoU of every mask of the source with its reconstruction."""
    started = time.monotonic()
    source = before.read(commit)
    images, rows = source.images.to_pylist(), source.annotations.to_pylist()
    order = heat_order(source.annotations)
    dropped: dict[int, Counter[str]] = defaultdict(Counter)
    kept: list[Row] = []
    masks: list[Mask | str] = []
    ious: list[float] = []
    guides = _guides(commit.shard, rows, config.mask, recipes)
    for _, of_image in groupby(rows, key=itemgetter("sample_index")):
        prompts = list(of_image)
        guide, of_source = next(guides)
        thresholds = [recipes.own.get(row["category"]) for row in prompts]
        masks += _masks(prompts, thresholds, config.mask, order, guide)
        if recipes.source.refine == "none" or of_source is not None:
            ious += _ious(prompts, recipes.source, order, of_source)
    for row, mask in zip(rows, masks, strict=True):
        if isinstance(mask, str):
            dropped[row["sample_index"]][mask] += 1
        else:
            kept.append(row | asdict(mask) | ({} if config.mask.heat else NO_HEAT))
    for image in images:
        _drop(image, dropped[image["sample_index"]])
    files = to_files(commit.shard, kept, images, results, order)
    statuses = Counter(image["status"] for image in images)
    record = replace(
        commit,
        fingerprint=fingerprint(results),
        statuses=dict(sorted(statuses.items())),
        masks=len(kept),
        files={path: file_record(data) for path, data in files.items()},
        seconds=round(time.monotonic() - started, 3),
    )
    after.commit(record, files)
    return ious


def _listed(source: Predictions) -> list[dict[str, Any]]:
    return [{"id": number, "name": name} for number, name in source.categories.items()]


NO_HEAT: Row = {"heat": None, "heat_shape": None}


def _guides(
    shard: str, rows: Sequence[Row], config: MaskConfig, recipes: _Recipes
) -> Iterator[tuple[Guide | None, Guide | None]]:
    """For every image that has rows: what its maps are refined by, and were by the source."""
    needed = [c for c in (config, recipes.source) if c.refine != "none"]
    if not needed or recipes.images is None:
        yield from repeat((None, None))
        return
    for made in recipes.images.guides(shard, rows, needed):
        of_config = made[0] if config.refine != "none" else None
        yield of_config, made[-1] if recipes.source.refine != "none" else None


def _masks(
    rows: Sequence[Row],
    own: Sequence[float | None],
    config: MaskConfig,
    order: HeatOrder,
    guide: Guide | None,
) -> list[Mask | str]:
    """The masks that the stored heat of an image's rows gives, or why it gives none."""
    heat = torch.cat([stored_heat(row) for row in rows])
    height, width = rows[0]["height"], rows[0]["width"]
    parts = threshold_maps(heat, height, width, own, config, order, guides=[guide])
    return [mask for part in parts for mask in encode_masks(part, config.min_area)]


def _ious(
    rows: Sequence[Row], made_with: MaskConfig, order: HeatOrder, guide: Guide | None
) -> list[float]:
    """IoU of an image's masks with what their heat gives at their own thresholds."""
    rebuilt = _masks(rows, [row["threshold"] for row in rows], made_with, order, guide)
    return [
        0.0 if isinstance(mask, str) else _iou(row["segmentation"], mask.segmentation)
        for row, mask in zip(rows, rebuilt, strict=True)
    ]


def _iou(first: RLE, second: RLE) -> float:
    one: Any = [first]
    other: Any = [second]
    return float(coco.iou(one, other, [0])[0][0])


def _drop(image: Row, reasons: Counter[str]) -> None:
    """Take masks off an image's counts."""
    total = Counter({r["reason"]: r["count"] for r in image["without_mask"]}) + reasons
    image["without_mask"] = [{"reason": r, "count": n} for r, n in sorted(total.items())]
    image["masks"] -= reasons.total()
    if image["status"] == "annotated" and not image["masks"]:
        image["status"] = "empty"
