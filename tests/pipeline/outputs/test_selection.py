"""Filters of masks, against plain loops over rows."""

from collections import Counter
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.outputs.schema import ANNOTATIONS, PROBABILITY
from pipeline.outputs.selection import COLUMNS, UNNAMED, SelectionConfig

SCHEMA = pa.schema([*(ANNOTATIONS.field(name) for name in COLUMNS), PROBABILITY])
LEVELS = st.sampled_from([-1.0, -0.25, 0.0, 0.25, 0.5])  # float32 has them all


@st.composite
def tables(draw: st.DrawFn) -> list[dict[str, Any]]:
    rows = []
    for image in range(draw(st.integers(0, 4))):
        height, width = draw(st.integers(1, 4)), draw(st.integers(1, 4))
        for prompt in range(draw(st.integers(0, 4))):
            rows.append(
                {
                    **dict(sample_index=image, prompt_index=prompt, height=height, width=width),
                    "category": draw(st.sampled_from(["dog", "cat", None])),
                    "score": draw(LEVELS),
                    "raw_max": draw(LEVELS),
                    "probability": draw(LEVELS),
                    "area": draw(st.integers(1, height * width)),
                }
            )
    return rows


SETTINGS = st.fixed_dictionaries(
    {
        "categories": st.sampled_from([None, ["dog"], ["dog", "cat"]]),
        "score": st.none() | LEVELS,
        "raw_max": st.none() | LEVELS,
        "probability": st.none() | LEVELS.filter(lambda level: 0 <= level <= 1),
        "min_area": st.sampled_from([0.0, 0.25]),
        "max_area": st.sampled_from([1.0, 0.5]),
        "top_k": st.none() | st.integers(1, 3),
    }
)


def expected(rows: list[dict[str, Any]], config: SelectionConfig) -> Any:
    def why(row: dict[str, Any]) -> str | None:
        part = row["area"] / (row["height"] * row["width"])
        if config.categories is not None and row["category"] not in config.categories:
            return "categories"
        if config.score is not None and row["score"] < config.score:
            return "score"
        if config.probability is not None and row["probability"] < config.probability:
            return "probability"
        if config.raw_max is not None and row["raw_max"] < config.raw_max:
            return "raw_max"
        if part < config.min_area:
            return "min_area"
        return "max_area" if part > config.max_area else None

    left = [row for row in rows if why(row) is None]
    best = sorted(left, key=lambda row: (-row["score"], row["prompt_index"]))
    kept, dropped = [], Counter[tuple[str, str]]()
    for row in rows:
        reason = why(row)
        if reason is None and config.top_k is not None:
            of_image = [other for other in best if other["sample_index"] == row["sample_index"]]
            reason = "top_k" if row not in of_image[: config.top_k] else None
        if reason is None:
            kept.append(row)
        else:
            dropped[reason, row["category"] or UNNAMED] += 1
    return kept, dropped


@given(tables(), SETTINGS)
def test_what_is_taken_and_what_is_dropped(
    rows: list[dict[str, Any]], settings: dict[str, Any]
) -> None:
    config = SelectionConfig(**settings)
    kept, dropped = config.select(pa.Table.from_pylist(rows, SCHEMA))
    assert (kept.to_pylist(), dropped) == expected(rows, config)


def test_without_a_setting_everything_is_taken() -> None:
    row = dict(zip(COLUMNS, [0, 0, None, -1.0, 0.0, 1, 1, 1], strict=True), probability=0.0)
    table = pa.Table.from_pylist([row], SCHEMA)
    assert SelectionConfig().select(table) == (table, Counter())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"min_area": 0.5, "max_area": 0.25},
            "min_area 0.5 --select.max_area 0.25: parts",
        ),
        ({"max_area": 1.5}, "from 0 to 1"),
        ({"probability": 1.5}, "--select.probability 1.5: must lie between 0 and 1"),
        ({"probability": float("nan")}, "--select.probability nan: must lie between 0 and 1"),
        ({"top_k": 0}, "--select.top_k 0: must be at least 1"),
        ({"categories": []}, "would take nothing"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SelectionConfig(**settings)


def test_a_category_that_the_run_does_not_have() -> None:
    config = SelectionConfig(categories=["dog", "cot"])
    config.check(["dog", "cot"])
    with pytest.raises(ConfigError, match=r"the run has no 'cot' \(did you mean cat\?\)"):
        config.check(["dog", "cat"])
