"""The two tables of a shard as they fill up, sample after sample."""

from __future__ import annotations

from collections import Counter
from typing import Any

from legrad import HeatOrder
from pipeline.config import AnnotateConfig
from pipeline.inputs.calibration import Calibration
from pipeline.inputs.classes import unlisted
from pipeline.inputs.prompts import PromptedSample
from pipeline.inputs.samples import Rejected
from pipeline.outputs.annotations import Annotated, Annotation
from pipeline.outputs.records import Counts
from pipeline.outputs.schema import image_id, to_files

Row = dict[str, Any]


class ShardTables:
    """Rows of `annotations/` and `images/` for one shard, in the order of its samples."""

    def __init__(
        self,
        shard: str,
        config: AnnotateConfig,
        order: HeatOrder,
        calibration: Calibration | None = None,
    ) -> None:
        """Start with no rows.

        Args:
            shard: name of the shard.
            config: of the run; the part of it that changes results goes into the footers.
            order: of the steps from raw maps to heat.
            calibration: that the configuration names, if it does.
        """
        self._calibration = calibration
        self.shard, self.mask = shard, config.mask
        self.results = config.identity()
        self.order = order
        self.images: list[Row] = []
        self.annotations: list[Row] = []
        self.degraded = False
        self.lost_images = 0
        self._categories: dict[str, int | None] = {}

    def add(self, sample: PromptedSample, annotated: Annotated) -> None:
        """Add a sample with what was found in it."""
        results = annotated.annotations
        found = [result for result in results if result.mask is not None]
        dropped = Counter(result.dropped for result in results if result.dropped)
        if annotated.absent:
            dropped["absent"] = len(annotated.absent)
        self.degraded |= annotated.degraded
        absent = [each.prompt for each in annotated.absent]
        for prompt in [*(result.prompt for result in results), *absent]:
            if prompt.category is not None:
                self._categories[prompt.category] = prompt.category_id
        self._add_image(
            sample,
            height=sample.height,
            width=sample.width,
            status="annotated" if found else "empty",
            prompts=len(results) + len(annotated.absent),
            prompts_cut=annotated.cut,
            masks=len(found),
            without_mask=[{"reason": r, "count": n} for r, n in sorted(dropped.items())],
            absent=[
                {
                    "prompt_index": each.prompt.index,
                    "category": each.prompt.category,
                    "score": each.score,
                }
                for each in annotated.absent
            ],
        )
        self.annotations += [self._annotation(sample, result) for result in found]

    def add_rejected(self, sample: Rejected) -> None:
        """Add a sample that could not be annotated."""
        self.lost_images += sample.images
        self._add_image(sample, status="rejected", reason=sample.reason, detail=sample.detail)

    def files(self) -> dict[str, bytes]:
        """Path below the output → complete Parquet file."""
        return to_files(self.shard, self.annotations, self.images, self.results, self.order)

    def counts(self) -> Counts:
        """The totals so far."""
        rejected = (row["reason"] for row in self.images if row["status"] == "rejected")
        return {
            "samples": len(self.images),
            "statuses": dict(sorted(Counter(row["status"] for row in self.images).items())),
            "rejects": dict(sorted(Counter(rejected).items())),
            "prompts": sum(row["prompts"] for row in self.images),
            "prompts_cut": sum(row["prompts_cut"] for row in self.images),
            "masks": len(self.annotations),
        }

    def names(self) -> list[str]:
        """The categories that were looked for and are in no class file."""
        return unlisted(self._categories)

    def first_reject(self) -> str:
        """Key, reason and detail of the first sample that was rejected."""
        for row in self.images:
            if row["status"] == "rejected":
                return f"{row['key']}: {row['reason']}: {row['detail']}"
        return "none"

    def _add_image(self, sample: PromptedSample | Rejected, **columns: Any) -> None:
        unknown = {"height": None, "width": None, "reason": None, "detail": None}
        nothing = {"prompts": 0, "prompts_cut": 0, "masks": 0, "without_mask": []}
        nothing |= {"absent": []}
        name = {"file_name": sample.file_name}
        self.images.append(self._identity(sample) | name | unknown | nothing | columns)

    def _identity(self, sample: PromptedSample | Rejected) -> Row:
        return {
            "shard": self.shard,
            "sample_index": sample.index,
            "key": sample.key,
            "image_id": image_id(self.shard, sample.key),
        }

    def _annotation(self, sample: PromptedSample, result: Annotation) -> Row:
        assert result.mask is not None
        likely = {}
        if self._calibration is not None:
            likely = {"probability": self._calibration.probability(result.score)}
        return (self._identity(sample) | likely) | {
            "height": sample.height,
            "width": sample.width,
            "prompt_index": result.prompt.index,
            "prompt": result.text,
            "category": result.prompt.category,
            "category_id": result.prompt.category_id,
            "score": result.score,
            "raw_min": result.raw_min,
            "raw_max": result.raw_max,
            "heat_mean": result.mask.heat_mean,
            "threshold": result.mask.threshold,
            "area": result.mask.area,
            "bbox": result.mask.bbox,
            "segmentation": result.mask.segmentation,
            "heat": result.heat.numpy().tobytes() if self.mask.heat else None,
            "heat_shape": list(result.heat.shape) if self.mask.heat else None,
        }
