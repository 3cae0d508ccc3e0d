"""Other thresholds and scores than the written ones, and heat that masks are made of again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from legrad import HeatOrder
from pipeline.config import MaskConfig
from pipeline.evaluation.points.counts import PAIR_COUNTS, THRESHOLDS
from pipeline.evaluation.points.scores import PER_CLASS, PairCounts, score_sweep, threshold_sweep

Run = Callable[..., Any]
LEFT = np.array([[True, True, False, False]] * 2)


def test_score_sweep_by_hand() -> None:
    base = {"image": "i", "yes": 1, "no": 1, "tp": 1, "fp": 0}
    rows = [base | {"label": "a", "score": 0.25}, base | {"label": "b", "score": 0.5}]
    sweep = score_sweep(PairCounts.of(pa.Table.from_pylist(rows, schema=PAIR_COUNTS)))
    assert (sweep[0]["kept"], sweep[0]["p_miou"]) == (1.0, 1.0)
    assert (sweep[-1]["kept"], sweep[-1]["p_miou"]) == (0.5, 0.5)


def test_threshold_sweep_by_hand(csvs: tuple[str, str], write_predictions: Run, run: Run) -> None:
    ramp = np.array([[255, 170, 85, 0]] * 2, dtype=np.uint8)  # heat 1, ⅔, ⅓, 0: rebuilt = LEFT
    predictions = write_predictions({"0001": {"dog": LEFT}}, heat={("0001", "dog"): ramp})
    found = run(
        "points", "--predictions", predictions, "--points", csvs[0], "--descriptions", csvs[1]
    )
    assert found["rebuilt_mask_iou"] == 1.0
    at = {entry["threshold"]: entry["p_miou"] for entry in found["sweeps"]["thresholds"]}
    # Columns 0, 1, 1, 2 and 3: yes yes(0) no(1) no(2) yes(3). Above 0.7 column 0 alone is left.
    assert at[0.05] == pytest.approx(2 / (3 + 2)) and at[0.3] == pytest.approx(2 / (3 + 2))
    assert at[0.35] == at[0.65] == pytest.approx(2 / (3 + 1))
    assert at[0.7] == at[0.95] == pytest.approx(2 / 3)
    assert found["scores"][PER_CLASS] == pytest.approx(2 / (3 + 1))


def test_heat_is_upsampled_as_its_order_says(
    csvs: tuple[str, str], write_predictions: Run, run: Run
) -> None:
    # Upsampled twofold, a lone peak of 1 becomes four pixels of 0.75 ** 2 = 0.5625.
    peak = np.zeros((3, 3), dtype=np.uint8)
    peak[1, 1] = 255
    middle = np.zeros((6, 6), dtype=bool)
    middle[2:4, 2:4] = True
    files = ("--points", csvs[0], "--descriptions", csvs[1])
    for order, hottest in (
        (HeatOrder.NORMALISE_UPSAMPLE, 0.55),
        (HeatOrder.UPSAMPLE_NORMALISE, 0.95),
    ):
        predictions = write_predictions(
            {"0001": {"dog": middle}},
            heat={("0001", "dog"): peak},
            name=f"predictions-{order.value}",
            order=order,
        )
        found = run("points", "--predictions", predictions, *files, output=f"scores-{order.value}")
        assert found["rebuilt_mask_iou"] == 1.0
        counts = Path(predictions).parent / f"scores-{order.value}" / "counts"
        rows = pq.read_table(counts).to_pylist()
        (row,) = (row for row in rows if row["label"] == "/m/d")
        assert max(t for t, n in zip(THRESHOLDS, row["fp_at"], strict=True) if n) == hottest


@pytest.mark.parametrize("mask", [MaskConfig(refine="pamr"), MaskConfig(overlap="winner")])
def test_heat_that_is_not_the_masks_own_scores_nothing(
    write_predictions: Run, run: Run, csvs: tuple[str, str], mask: MaskConfig
) -> None:
    ramp = np.array([[255, 170, 85, 0]] * 2, dtype=np.uint8)
    heat = {("0001", "dog"): ramp}
    predictions = write_predictions({"0001": {"dog": LEFT}}, heat=heat, mask=mask)
    flags = ["--points", csvs[0], "--descriptions", csvs[1], "--predictions", predictions]
    found = run("points", *flags)
    assert found.get("rebuilt_mask_iou") is None and not found["sweeps"]["thresholds"]


def test_heat_that_was_cut_off_at_0_is_rebuilt_so(
    csvs: tuple[str, str], write_predictions: Run, run: Run
) -> None:
    # Of the raw map, from -1 to 1, only the peak is above 0; of heat from 0 to 1 all but a corner
    # is above a half.
    grid = np.full((3, 3), 127, dtype=np.uint8)
    grid[0, 0], grid[1, 1] = 0, 255
    middle = np.zeros((6, 6), dtype=bool)
    middle[2:4, 2:4] = True
    files = ("--points", csvs[0], "--descriptions", csvs[1])
    found = {}
    for order in (HeatOrder.UPSAMPLE_CLIP_NORMALISE, HeatOrder.UPSAMPLE_NORMALISE):
        predictions = write_predictions(
            {"0001": {"dog": middle}},
            heat={("0001", "dog"): grid},
            name=f"predictions-{order.value}",
            order=order,
        )
        output = f"scores-{order.value}"
        scores = run("points", "--predictions", predictions, *files, output=output)
        found[order] = scores["rebuilt_mask_iou"]
    assert found[HeatOrder.UPSAMPLE_CLIP_NORMALISE] == 1.0
    assert found[HeatOrder.UPSAMPLE_NORMALISE] < 0.2


def test_a_mask_without_heat_ends_the_sweep() -> None:
    row = {"image": "i", "label": "a", "yes": 1, "no": 0, "tp": 1, "fp": 0, "score": 0.5}
    counts = PairCounts.of(pa.Table.from_pylist([row], schema=PAIR_COUNTS))
    assert threshold_sweep(counts) == []
