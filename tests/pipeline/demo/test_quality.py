"""The measures of the demo's quality table."""

import numpy as np
import pytest

from pipeline.evaluation.segmentation.precision import average_precision

TRUTH = np.array([[True, False], [False, True]])


@pytest.mark.parametrize(
    ("heat", "expected"),
    [
        ([[0.9, 0.1], [0.2, 0.8]], 1.0),
        ([[0.5, 0.5], [0.5, 0.5]], 0.5),  # one value: all pixels are found at once
        ([[0.9, 0.8], [0.1, 0.7]], (1 + 2 / 3) / 2),
        ([[0.1, 0.9], [0.8, 0.2]], (1 / 3 + 2 / 4) / 2),
        ([[0.9, 0.9], [0.1, 0.1]], (1 / 2 + 2 / 4) / 2),
    ],
)
def test_average_precision(heat: list[list[float]], expected: float) -> None:
    assert average_precision(np.array(heat), TRUTH) == pytest.approx(expected)
