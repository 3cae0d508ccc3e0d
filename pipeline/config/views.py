"""Views that maps are averaged over, a group of flags; the text under a field is its help."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from legrad.views import checked_scales, checked_shifts
from pipeline.errors import ConfigError


@dataclass(frozen=True)
class ViewsConfig:
    """Views of each image whose maps are averaged: every combination, a forward pass each."""

    shifts: int = 1
    """1: the image as it is; 2: also moved by half a patch down and to the right; 4: also by each
    of the two alone. Maps have twice the rows and columns then."""
    flip: bool = False
    """Also mirrored from left to right."""
    scales: list[float] = dataclasses.field(default_factory=lambda: [1.0])
    """Sides over those of the model's input, in whole patches; 1 has to be among them, and is what
    the score is of. Work grows with the square and more."""

    def __post_init__(self) -> None:
        try:
            checked_shifts(self.shifts)
            # They stay as they were given: fingerprints of outputs hold their order, which maps do
            # not depend on.
            checked_scales(self.scales)
        except (TypeError, ValueError) as error:
            raise ConfigError("--views." + str(error).replace("=", " ", 1)) from error

    @property
    def plain(self) -> bool:
        """Whether there is but one view: the image as it is."""
        return self == ONE_VIEW


ONE_VIEW = ViewsConfig()
"""The image as it is."""
