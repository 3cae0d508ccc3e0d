"""How heatmaps become masks: a group of flags; the text under a field is its help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.config.identity import since
from pipeline.errors import ConfigError

MAX_REFINE_SIZE = 4096
"""Pixels; refining takes some 150 bytes for each of an image at this size, 2.5 GB here."""


@dataclass(frozen=True)
class MaskConfig:
    """How a heatmap becomes a mask."""

    rule: Literal["fixed", "mean"] = "fixed"
    """fixed: the threshold below, or that of the class file; mean: the mean heat of each map."""
    threshold: float = 0.5
    """A pixel is foreground where its heat, 0 to 1 over each map, exceeds this."""
    overlap: Literal["keep", "winner"] = since("keep", before="keep")
    """keep: masks of an image may overlap; winner: a pixel belongs to the prompt of its image that
    is hottest there, the first of equals, and is foreground where that heat exceeds the
    threshold."""
    refine: Literal["none", "pamr", "regions", "regions_pamr"] = since("none", before="none")
    """Bring maps closer to the outlines in the image by its colours. pamr: heat spreads among
    neighbours of like colour; regions: colour regions vote, half and half with the map;
    regions_pamr: first regions, then pamr. Thresholds belong to recipes: see docs/masks.md."""
    refine_size: int = since(224, before=224)
    """Longer side in pixels of the image that maps are refined at; smaller images as they are."""
    min_area: float = 0.0
    """Smaller masks are dropped: pixels from 1 up, a fraction of the image below 1."""
    heat: bool = True
    """Also store the patch-grid heatmap, so that masks can be made again at another threshold."""

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < 1:
            raise ConfigError(f"--mask.threshold {self.threshold}: give a number from 0 to below 1")
        if not 16 <= self.refine_size <= MAX_REFINE_SIZE:
            raise ConfigError(
                f"--mask.refine_size {self.refine_size}: give pixels from 16 to {MAX_REFINE_SIZE}"
            )
        if not self.min_area >= 0:
            raise ConfigError(f"--mask.min_area {self.min_area}: must not be negative")

    def levels(self, own: Sequence[float | None]) -> list[float]:
        """The threshold of each map under the fixed rule: that of its class, or the run's."""
        return [self.threshold if level is None else level for level in own]
