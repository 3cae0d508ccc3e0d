"""Average precision of heat against a mask."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float


def average_precision(
    heat: Float[np.ndarray, "*pixels"], truth: Bool[np.ndarray, "*pixels"]
) -> float:
    """Σ (R_k − R_{k−1}) P_k over the distinct values of `heat`, from the highest down; 0..1.

    Pixels of one value are found together, whatever their order. Without a true pixel it is 0.
    """
    if not truth.any():
        return 0.0
    order = np.argsort(heat, axis=None)[::-1]
    values, found = heat.flat[order], np.cumsum(truth.flat[order])
    last = np.append(np.flatnonzero(np.diff(values)), values.size - 1)
    precision, recall = found[last] / (last + 1), found[last] / found[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def two_channel_precision(
    heat: Float[np.ndarray, " pixel"], truth: Bool[np.ndarray, " pixel"]
) -> float:
    """Average precision of background and foreground together: [1 − E; E] against [not G; G].

    A random map scores one half whatever the size of the object. A map that found nothing, all
    zeros, says nothing about either channel.
    """
    channels = [1 - heat, heat] if heat.any() else [heat, heat]
    return average_precision(np.concatenate(channels), np.concatenate([~truth, truth]))
