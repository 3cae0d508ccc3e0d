"""The two tables of a shard as they fill up, sample after sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from legrad import HeatOrder
from pipeline.config import AnnotateConfig
from pipeline.inputs.calibration import Calibration
from pipeline.inputs.classes import unlisted
from pipeline.inputs.prompts import PromptedSample, Prompts
from pipeline.inputs.samples import Rejected
from pipeline.outputs.annotations import Annotated, Annotation
from pipeline.outputs.records import Counts
from pipeline.outputs.schema import files_of, image_id, schemas

ROWS = 4096
"""Rows that are Python objects at once, which take three times the memory of Arrow's."""


class Rows:
    """The rows of a table as they come, by column."""

    def __init__(self, schema: pa.Schema) -> None:
        """Start with none."""
        self._schema = schema
        self._done: list[pa.RecordBatch] = []
        self._begin()

    def _begin(self) -> None:
        self._values: dict[str, list[Any]] = {name: [] for name in self._schema.names}
        self._open = 0

    def add(self, count: int, columns: Mapping[str, Iterable[Any]]) -> None:
        """Add some rows.

        Args:
            count: how many.
            columns: the values of each column; what the table has no column for is left out, and
                columns without values are null.
        """
        for name, values in self._values.items():
            values += columns[name] if name in columns else [None] * count
        self._open += count
        if self._open >= ROWS:
            self._close()

    def _close(self) -> None:
        self._done.append(pa.RecordBatch.from_pydict(self._values, schema=self._schema))
        self._begin()

    def table(self) -> pa.Table:
        """All of them, in one piece: how a file is laid out would depend on the pieces."""
        if self._open:
            self._close()
        return pa.Table.from_batches(self._done, self._schema).combine_chunks()


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
        of_masks, of_images = schemas(self.results, order.clips)
        self._annotations, self._images = Rows(of_masks), Rows(of_images)
        self._statuses, self._rejects = Counter[str](), Counter[str]()
        self._totals = dict.fromkeys(("prompts", "prompts_cut", "masks"), 0)
        self._first_reject = "none"
        self.degraded = False
        self.lost_images = 0
        self._categories: dict[str, int | None] = {}

    @property
    def samples(self) -> int:
        """How many there are, rejected ones too."""
        return self._statuses.total()

    def add(self, sample: PromptedSample, annotated: Annotated) -> None:
        """Add a sample with what was found in it."""
        results = annotated.annotations
        found = [result for result in results if result.mask is not None]
        dropped = Counter(result.dropped for result in results if result.dropped)
        if isinstance(sample.wanted, Prompts) and sample.wanted.blank:
            dropped["blank"] = sample.wanted.blank
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
        self._add_masks(sample, found)

    def add_rejected(self, sample: Rejected) -> None:
        """Add a sample that could not be annotated."""
        self.lost_images += sample.images
        if not self._rejects:
            self._first_reject = f"{sample.key}: {sample.reason}: {sample.detail}"
        self._rejects[sample.reason] += 1
        self._add_image(sample, status="rejected", reason=sample.reason, detail=sample.detail)

    def files(self) -> dict[str, bytes]:
        """Path below the output → complete Parquet file."""
        tables = self._annotations.table(), self._images.table()
        return files_of(self.shard, *tables, self.results, self.order)

    def counts(self) -> Counts:
        """The totals so far."""
        return {
            "samples": self.samples,
            "statuses": dict(sorted(self._statuses.items())),
            "rejects": dict(sorted(self._rejects.items())),
            "prompts": self._totals["prompts"],
            "prompts_cut": self._totals["prompts_cut"],
            "masks": self._totals["masks"],
        }

    def names(self) -> list[str]:
        """The categories that were looked for and are in no class file."""
        return unlisted(self._categories)

    def first_reject(self) -> str:
        """Key, reason and detail of the first sample that was rejected."""
        return self._first_reject

    def _add_image(self, sample: PromptedSample | Rejected, **columns: Any) -> None:
        nothing = {"prompts": 0, "prompts_cut": 0, "masks": 0, "without_mask": [], "absent": []}
        row = self._identity(sample) | nothing | {"file_name": sample.file_name} | columns
        self._statuses[row["status"]] += 1
        for name in self._totals:
            self._totals[name] += row[name]
        self._images.add(1, {name: (value,) for name, value in row.items()})

    def _identity(self, sample: PromptedSample | Rejected) -> dict[str, Any]:
        return {
            "shard": self.shard,
            "sample_index": sample.index,
            "key": sample.key,
            "image_id": image_id(self.shard, sample.key),
        }

    def _add_masks(self, sample: PromptedSample, found: Sequence[Annotation]) -> None:
        masks = [result.mask for result in found if result.mask is not None]
        of_image = self._identity(sample) | {"height": sample.height, "width": sample.width}
        columns: dict[str, Iterable[Any]] = {
            name: [value] * len(masks) for name, value in of_image.items()
        }
        if self._calibration is not None:
            probability = self._calibration.probability
            columns["probability"] = [probability(result.score) for result in found]
        if self.mask.heat:
            columns["heat"] = [result.heat.numpy().tobytes() for result in found]
            columns["heat_shape"] = [list(result.heat.shape) for result in found]
        self._annotations.add(
            len(masks),
            columns
            | {
                "prompt_index": [result.prompt.index for result in found],
                "prompt": [result.text for result in found],
                "category": [result.prompt.category for result in found],
                "category_id": [result.prompt.category_id for result in found],
                "score": [result.score for result in found],
                "raw_min": [result.raw_min for result in found],
                "raw_max": [result.raw_max for result in found],
                "heat_mean": [mask.heat_mean for mask in masks],
                "threshold": [mask.threshold for mask in masks],
                "area": [mask.area for mask in masks],
                "bbox": [mask.bbox for mask in masks],
                "segmentation": [mask.segmentation for mask in masks],
            },
        )
