"""One label per pixel, out of the masks of an image that may overlap."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from legrad import HeatOrder
from legrad.errors import near
from pipeline.errors import ConfigError
from pipeline.outputs.closed_form.grid import Axis, normalised
from pipeline.outputs.masks import decode, stored_heat, stretched

CPU = torch.device("cpu")
BACKGROUND = 0
IGNORE = 255
"""What training leaves out, as mmsegmentation and Detectron2 have it."""
MOST_LABELS = IGNORE - 1
NO_HEAT = (
    "--semantic.level and band need heat, and the run was made with --mask.heat false; "
    "--semantic.level own takes its masks as they are"
)
REFINED = (
    "--semantic.level and band need heat, and what the run has stored is not refined as its masks "
    "are; leave them out to take the masks as they are, or refine at another --mask.threshold"
)
LEVEL = 0.45
"""Of a constant background; docs/training.md has what others are worth."""

COLUMNS = (
    *("sample_index", "prompt_index", "category", "score", "threshold", "heat_mean"),
    *("height", "width", "segmentation", "heat", "heat_shape"),
)
"""Of `annotations/`, that it takes; and `raw_min` and `raw_max` where the table has both."""


@dataclass(frozen=True)
class SemanticConfig:
    """Which pixel gets which label, and which is background.

    A pixel belongs to the mask with the highest value there; of equal ones to the lower label.
    """

    winner: Literal["heat", "score"] = "heat"
    """What masks compete with: their heat at the pixel, or their score wherever they cover it."""
    background: Literal["constant", "band", "prompts"] = "constant"
    """constant: pixels whose heat exceeds no level. band: those up to the lower of two; those up to
    the higher one are ignored. prompts: those that a background category wins."""
    level: float | Literal["own"] | None = None
    """Heat that a label's pixel exceeds; own: each mask's own threshold. Without it 0.45, which
    students learn most from (docs/training.md)."""
    band: tuple[float, float] = (0.4, 0.5)
    """Levels of --semantic.background band."""
    prompts: list[str] | None = None
    """Background categories, which the run has looked for too: sky, grass, wall."""

    def __post_init__(self) -> None:
        low, high = self.band
        if not 0 <= low <= high < 1:
            raise ConfigError(f"--semantic.band {self.band}: two levels from 0 to 1, lower first")
        if isinstance(self.level, float | int) and not 0 <= self.level < 1:
            raise ConfigError(f"--semantic.level {self.level}: must be from 0 to 1")
        if bool(self.prompts) != (self.background == "prompts"):
            raise ConfigError("--semantic.prompts goes with --semantic.background prompts")
        if self.background == "band" and self.level is not None:
            raise ConfigError("--semantic.level: has no effect with --semantic.background band")
        if self.winner == "score" and (self.background == "band" or self.level is not None):
            raise ConfigError(
                "--semantic.winner score takes masks as they are; levels go with winner heat"
            )

    @property
    def least(self) -> float | None:
        """Heat that a label's pixel exceeds; None where it is not the same for all masks."""
        if isinstance(self.level, float | int):
            return self.level
        heat_decides = self.winner == "heat" and self.background == "constant"
        return LEVEL if heat_decides and self.level is None else None

    @property
    def needs_heat(self) -> bool:
        """Whether masks alone do not do."""
        return self.background == "band" or self.least is not None

    def of_run(self, identity: Mapping[str, Any]) -> SemanticConfig:
        """The rule for the masks of a run.

        Refined masks are taken as they are: the heat that is stored with them is not refined.

        Args:
            identity: the settings of the run.

        Raises:
            ConfigError: it has not stored the heat that the rule needs.
        """
        if identity["mask"].get("refine", "none") != "none" and self.winner == "heat":
            if self.background == "band" or isinstance(self.level, float | int):
                raise ConfigError(REFINED)
            return replace(self, winner="score", level=None)
        if self.needs_heat and not identity["mask"].get("heat", True):
            raise ConfigError(NO_HEAT)
        return self

    def labels(self, categories: Iterable[str]) -> dict[str, int]:
        """The label of every category: background categories 0, all others 1..K by name.

        Raises:
            ConfigError: there are more than `MOST_LABELS`, or a background category that the run
                does not have.
        """
        names = sorted(categories)
        for name in self.prompts or ():
            if name not in names:
                raise ConfigError(f"--semantic.prompts: the run has no {name!r}{near(name, names)}")
        things = [name for name in names if name not in (self.prompts or ())]
        if len(things) > MOST_LABELS:
            raise ConfigError(
                f"{len(things)} categories do not fit into 8 bits (at most {MOST_LABELS}): take "
                "fewer with --select.categories"
            )
        return {name: BACKGROUND for name in self.prompts or ()} | {
            name: number for number, name in enumerate(things, 1)
        }


def semantic_map(
    rows: Sequence[Mapping[str, Any]],
    labels: Mapping[str, int],
    size: tuple[int, int],
    config: SemanticConfig,
    order: HeatOrder = HeatOrder.UPSAMPLE_NORMALISE,
) -> UInt8[np.ndarray, "height width"]:
    """The label of every pixel of an image: 0 background, 255 ignored.

    Args:
        rows: the masks of the image, with `COLUMNS`.
        labels: of every category; masks of none among them are passed over.
        size: (height, width) of the map, which need not be the image's.
        config: the rule.
        order: what `schema.heat_order` says of the table.

    Raises:
        ConfigError: the rule needs heat, and the run has stored none.
    """
    competing = sorted(
        (row for row in rows if row["category"] in labels),
        key=lambda row: (labels[row["category"]], row["prompt_index"]),
    )
    best = torch.zeros(size)
    winner = torch.zeros(size, dtype=torch.uint8)
    values = _values(competing, size, config, order)
    for row, value in zip(competing, values, strict=True):
        # Labels rise from mask to mask, so that where a later one is better it is the maximum too;
        # to select by a mask of bools takes twenty times as long.
        better = (value > best).to(torch.uint8).mul_(labels[row["category"]])
        torch.maximum(winner, better, out=winner)
        torch.maximum(best, value, out=best)
    if config.background == "band":
        low, high = config.band
        ignored = (best > low) & (best <= high) & (winner != BACKGROUND)
        winner[best <= high] = BACKGROUND
        winner[ignored] = IGNORE
    made: np.ndarray = winner.numpy()
    return made


def _values(
    rows: Sequence[Mapping[str, Any]],
    size: tuple[int, int],
    config: SemanticConfig,
    order: HeatOrder,
) -> Iterator[Float[Tensor, "height width"]]:
    """What each mask competes with at every pixel: above 0 where it may win, else no more."""
    if config.winner == "score" or any(row["heat"] is None for row in rows):
        yield from _of_masks(rows, size, config)
        return
    if not rows:
        return
    grids = torch.cat([stored_heat(row) for row in rows])  # of one shape, for one model made them
    down, across = (Axis.of(*side, CPU) for side in zip(size, grids.shape[1:], strict=True))
    for row, grid in zip(rows, normalised(grids, down, across, order).float(), strict=True):
        heat = down.matrix @ (grid @ across.matrix.T)  # a quarter of `interpolate`'s time
        if config.least is not None:
            F.threshold(heat, config.least, 0.0, inplace=True)
        elif config.background == "constant" or config.level == "own":
            F.threshold(heat, row["threshold"], 0.0, inplace=True)
        yield heat


def _of_masks(
    rows: Sequence[Mapping[str, Any]], size: tuple[int, int], config: SemanticConfig
) -> Iterator[Float[Tensor, "height width"]]:
    """The same without heat: a mask competes as a whole."""
    if config.needs_heat:
        raise ConfigError(NO_HEAT)
    for row in rows:
        # Scores are cosines; what competes is above 0.
        value = row["heat_mean"] if config.winner == "heat" else row["score"] + 2
        mask = torch.from_numpy(stretched(decode(row["segmentation"]), *size))
        yield mask.to(torch.float32).mul_(value)
