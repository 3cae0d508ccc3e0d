"""The numbers of a report, against the same taken from the whole tables at once."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipeline.outputs.predictions import Predictions
from pipeline.outputs.selection import SelectionConfig
from pipeline.report.build import NUMBERS, PAGE, count_shards, write_report
from pipeline.report.config import ReportConfig
from pipeline.report.picks import Smallest
from tests.pipeline.report.conftest import MakeOutput, Row, image_row

CATEGORIES = ("dog", "cat", "bird", "fish", "cow")


def report(output: str, **settings: Any) -> Any:
    folder = Path(output).parent / "report"
    write_report(ReportConfig(predictions=output, output=str(folder), **settings))
    return json.loads((folder / NUMBERS).read_text())


def whole(output: str, folder: str) -> pa.Table:
    return pq.read_table(Path(output) / folder)


def exact(values: Any, share: float) -> Any:
    """A quantile of values, as the bins' middle gives it."""
    return pytest.approx(np.quantile(values, share, method="inverted_cdf"), abs=0.00051)


def test_each_class_has_its_own_numbers(make_output: MakeOutput) -> None:
    output = make_output(5, CATEGORIES)
    table = whole(output, "annotations")
    rows = {row["name"]: row for row in report(output)["classes"]}
    assert set(rows) == set(CATEGORIES)
    for name, row in rows.items():
        of = table.filter(pc.equal(table["category"], name))
        scores = of["score"].to_numpy()
        areas = of["area"].to_numpy() / (of["height"].to_numpy() * of["width"].to_numpy())
        images = set(zip(of["shard"].to_pylist(), of["key"].to_pylist(), strict=True))
        assert (row["masks"], row["images"]) == (len(of), len(images))
        assert row["score"]["mean"] == pytest.approx(scores.mean(), rel=1e-5)
        for column, share in (("p10", 0.1), ("p50", 0.5), ("p90", 0.9)):
            assert row["score"][column] == exact(scores, share)
        assert row["area_mean"] == pytest.approx(areas.mean())
        assert row["area_p50"] == exact(areas, 0.5)


def test_the_rarest_classes_are_summed_up(make_output: MakeOutput) -> None:
    output = make_output(4, CATEGORIES)
    every, some = report(output)["classes"], report(output, classes=2)["classes"]
    assert some[:2] == every[:2]
    others = some[2]
    assert others["name"] == "3 other classes" and len(some) == 3
    assert others["masks"] == sum(row["masks"] for row in every[2:])
    table = whole(output, "annotations")
    rest = table.filter(pc.invert(pc.is_in(table["category"], pa.array([r["name"] for r in some]))))
    images = set(zip(rest["shard"].to_pylist(), rest["key"].to_pylist(), strict=True))
    assert others["images"] == len(images)
    assert others["score"]["mean"] == pytest.approx(rest["score"].to_numpy().mean(), rel=1e-5)


def test_a_score_limit_drops_what_the_selection_of_an_export_drops(make_output: MakeOutput) -> None:
    output = make_output(6, CATEGORIES)
    numbers = report(output)
    table = whole(output, "annotations")
    images = len(set(zip(table["shard"].to_pylist(), table["key"].to_pylist(), strict=True)))
    assert [level["share"] for level in numbers["levels"]] == [0.05, 0.1, 0.25, 0.5, 0.75]
    for place, level in enumerate(numbers["levels"]):
        kept, dropped = SelectionConfig(score=level["limit"]).select(table)
        left = len(set(zip(kept["shard"].to_pylist(), kept["key"].to_pylist(), strict=True)))
        assert level["dropped"] == dropped.total() == len(table) - len(kept)
        assert level["emptied"] == images - left
        assert level["dropped"] / len(table) == pytest.approx(level["share"], abs=0.02)
        for row in numbers["classes"]:
            assert row["dropped"][place] == dropped["score", row["name"]]


def test_histograms_count_every_mask_and_image_once(make_output: MakeOutput) -> None:
    output = make_output(4)
    histograms, table = report(output)["histograms"], whole(output, "annotations")
    for name, column in (("score", "score"), ("raw_max", "raw_max"), ("heat_mean", "heat_mean")):
        found, values = histograms[name], table[column].to_numpy()
        edges = np.array(found["edges"]).astype(np.float32)
        assert found["counts"] == np.histogram(values, edges)[0].tolist()
        assert sum(found["counts"]) == len(table)
    per_image = whole(output, "images")["masks"].to_numpy()
    assert histograms["masks_per_image"]["counts"] == np.bincount(per_image).tolist()


def test_rejects_have_their_first_examples_and_missing_shards_their_reasons(
    make_output: MakeOutput,
) -> None:
    def change(_: list[Row], images: list[Row]) -> None:
        for index, reason in ((90, "undecodable"), (91, "undecodable"), (92, "missing_field")):
            images.append(
                image_row(images[0]["shard"], index, 0, status="rejected", reason=reason)
                | {"detail": f"because {index}", "height": None, "width": None}
            )
        images[0]["without_mask"] = [{"reason": "min_area", "count": 2}]

    numbers = report(make_output(2, change=change, missing=["data/x.tar"], incomplete="cut"))
    rejects = numbers["rejects"]
    assert [(row["reason"], row["count"]) for row in rejects] == [
        ("undecodable", 4),
        ("missing_field", 2),
    ]
    examples = [(example["key"], example["detail"]) for example in rejects[0]["examples"]]
    assert examples == [("0090", "because 90"), ("0091", "because 91"), ("0090", "because 90")]
    assert numbers["without_mask"] == {"min_area": 4}
    assert numbers["missing"]["total"] == 1 and numbers["incomplete"]["total"] == 2
    assert numbers["missing"]["listed"][0][1] == "cannot be read <b>at all</b>"
    assert numbers["totals"]["statuses"]["rejected"] == 6
    assert sum(numbers["totals"]["statuses"].values()) == numbers["totals"]["samples"]


def test_times_are_those_of_the_commits(make_output: MakeOutput) -> None:
    times = report(make_output(7))["times"]
    assert times["stages"] == {"read": 3.5, "model": 10.5, "mask": 1.75}
    assert times["seconds"] == sum(2.0 + number for number in range(7))
    assert times["images_per_second"] == pytest.approx(7 * 20 / times["seconds"])
    assert [row["seconds"] for row in times["slowest"]] == [8, 7, 6, 5, 4]


def test_scores_that_are_no_number_are_counted_apart(make_output: MakeOutput) -> None:
    def change(annotations: list[Row], _: list[Row]) -> None:
        for row in annotations:
            row["score"] = float("nan")

    numbers = report(make_output(2, change=change))
    assert numbers["scores_not_finite"] == numbers["totals"]["masks"] > 0
    assert numbers["levels"] == [] and sum(numbers["histograms"]["score"]["counts"]) == 0
    assert {row["score"]["mean"] for row in numbers["classes"]} == {None}


def test_shown_masks_are_the_highest_the_lowest_and_those_drawn(make_output: MakeOutput) -> None:
    output = make_output(20, CATEGORIES, images=10)
    numbers, again = report(output, examples=4), report(output, examples=4, seed=1)
    groups = {group["title"]: group["masks"] for group in numbers["gallery"]["groups"]}
    scores = np.sort(whole(output, "annotations")["score"].to_numpy())
    assert [mask["score"] for mask in groups["Lowest score"]] == scores[:4].tolist()
    assert [mask["score"] for mask in groups["Highest score"]] == scores[:-5:-1].tolist()
    assert len({(m["shard"], m["key"], m["prompt_index"]) for m in groups["Random"]}) == 4
    for name in CATEGORIES:
        assert [mask["category"] for mask in groups[f"Class: {name}"]] == [name] * 2
    other = {group["title"]: group["masks"] for group in again["gallery"]["groups"]}
    assert other["Random"] != groups["Random"]
    assert other["Highest score"] == groups["Highest score"]


def test_masks_at_random_are_drawn_evenly() -> None:
    counts = np.zeros(50, np.int64)
    for seed in range(2000):
        kept, random = Smallest(5), np.random.default_rng(seed)
        for start in range(0, 50, 10):  # in five shards
            rows = np.stack([np.arange(start, start + 10)] * 3, axis=1)
            kept.add(np.zeros(10, np.int64), random.random(10), rows)
        counts[[row[0] for row in kept.of(0)]] += 1
    assert counts.sum() == 2000 * 5
    assert abs(counts - 200).max() < 5 * np.sqrt(200)


def peaks(predictions: Predictions) -> tuple[int, int]:
    """The most bytes that Python and that Arrow take while shards are counted."""
    usual = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(usual)
    pa.set_memory_pool(pool)
    tracemalloc.start()
    count_shards(ReportConfig(predictions=predictions.location, output="none"), predictions)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    pa.set_memory_pool(usual)
    return most, pool.max_memory()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_shards(make_output: MakeOutput) -> None:
    made = Predictions(make_output(200, images=4))
    every, made.commits = made.commits, made.commits[:20]
    peaks(made)  # imports and caches
    few = peaks(made)
    made.commits = every
    many = peaks(made)
    # Of ten times as many; up to four are in Arrow's memory at once, by chance.
    assert many[0] < 3 * few[0] and many[1] < 5 * few[1]


def test_files_do_not_grow_with_the_shards(make_output: MakeOutput) -> None:
    sizes = []
    for shards in (20, 60):
        output = make_output(shards, images=4)
        assert report(output)["totals"]["shards"] == shards
        folder = Path(output).parent / "report"
        sizes.append([(folder / name).stat().st_size for name in (PAGE, NUMBERS)])
    assert all(more < 1.2 * less for less, more in zip(*sizes, strict=True))
