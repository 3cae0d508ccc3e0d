"""Counts in fixed bins: they add up over shards, and quantiles can be read off them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class Bins:
    """Bins from each edge to the next, that one excluded; the outer ones take what lies beyond.

    Attributes:
        edges: rising, one more than there are bins.
        whole: values are whole numbers, so that a bin stands for its lower edge.
    """

    edges: Float[np.ndarray, " edge"] = field(repr=False)
    whole: bool = False

    def __len__(self) -> int:
        return len(self.edges) - 1

    def index(self, values: np.ndarray) -> Int[np.ndarray, " value"]:
        """The bin of every value; edges are compared in the values' own precision.

        A float32 value is below a float32 limit exactly when its bin is below the limit's.
        """
        edges = self.edges.astype(np.result_type(values.dtype, np.float32))
        found = np.searchsorted(edges, values, side="right") - 1
        return found.clip(0, len(self) - 1)

    def count(self, values: np.ndarray) -> Int[np.ndarray, " bin"]:
        """How many of the values are in each bin."""
        return np.bincount(self.index(values), minlength=len(self))

    def quantile(self, counts: Int[np.ndarray, " bin"], share: float) -> float | None:
        """The value that the share of all values does not exceed, to half a bin; None of none."""
        place = self.place(counts, share)
        if place is None:
            return None
        low, high = float(self.edges[place]), float(self.edges[place + 1])
        return low if self.whole else float(f"{(low + high) / 2:.9g}")

    def place(self, counts: Int[np.ndarray, " bin"], share: float) -> int | None:
        """The bin that holds a quantile."""
        total = int(counts.sum())
        if not total:
            return None
        wanted = max(1, math.ceil(round(share * total, 6)))
        return int(np.searchsorted(np.cumsum(counts), wanted))


SCORE = Bins(np.arange(-1000, 1001) / 1000)
"""Cosines. As wide as three digits tell apart, the digits in which a limit is given."""
AREA = Bins(np.arange(1001) / 1000)
"""Parts of the image."""
HEAT = Bins(np.arange(101) / 100)
RAW_MAX = Bins(10.0 ** (np.arange(-160, 81) / 20))
"""Methods and models differ by orders of magnitude: 20 bins to a factor of ten."""
MASKS = Bins(np.arange(1002.0), whole=True)
"""Masks per image; the last bin is 1000 and more."""
