"""The points stage: by hand, against scikit-learn, on bad input, on real data."""

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from sklearn.metrics import jaccard_score

from pipeline.evaluation.points.counters import count_predictions
from pipeline.evaluation.points.counts import PAIR_COUNTS
from pipeline.evaluation.points.definition import PointCounts
from pipeline.evaluation.points.labels import Cleaning, read_labels
from pipeline.evaluation.points.pairs import LabelledPairs
from pipeline.evaluation.points.scores import (
    AVERAGES,
    PER_CLASS,
    PairCounts,
    confidence_interval,
)
from pipeline.models.demo import ASSETS
from pipeline.outputs.ledger import Ledger

Run = Callable[..., Any]
REAL = Path(__file__).parents[5] / "shared" / "data"
LEFT = np.array([[True, True, False, False]] * 2)
HALVES = {"0001": {"dog": LEFT, "cat": LEFT}, "0002": {"Cat": LEFT}, "0004": {"dog": LEFT}}


def scores(values: dict[str, float]) -> list[float]:
    return [values[name] for name in AVERAGES]


def test_the_fixture_by_hand(csvs: tuple[str, str], write_predictions: Run, run: Run) -> None:
    found = run(
        "points",
        *("--predictions", write_predictions(HALVES)),
        *("--points", csvs[0], "--descriptions", csvs[1]),
    )
    # Dog: two yes points and one no point of 0001 lie in the left half, one yes point and one no
    # point do not, and 0002 has no mask, so that its yes point is missed. Cat: one yes and one no
    # point in the left half. Lamp: one yes point and no mask. 0003 is in no shard.
    assert {c["name"]: (c["tp"], c["fp"], c["yes"], c["no"]) for c in found["classes"]} == {
        "Dog": (2, 1, 4, 2),
        "Cat": (1, 1, 1, 1),
        "Green lamp": (0, 0, 1, 0),
    }
    background = (1 / 4, 0, 0)
    assert scores(found["scores"]) == pytest.approx(
        [
            (2 / 5 + 1 / 2 + 0) / 3,
            (2 / 4 + 0 + 1 / 2 + 0) / 4,
            3 / (3 + 2 + 3),
            (2 / 5 + 1 / 2 + 0 + sum(background)) / 6,
        ]
    )
    # Everything: no class has any background left, but the lamp has none to lose.
    assert scores(found["everything"]) == pytest.approx(
        [(4 / 6 + 1 / 2 + 1) / 3, (3 / 5 + 1 + 1 / 2 + 1) / 4, 6 / 9, (4 / 6 + 1 / 2 + 2) / 6]
    )
    # Nothing: the background of dog is 2 of 6, of cat 1 of 2, of lamp 0 of 1.
    assert scores(found["nothing"]) == pytest.approx([0, 0, 0, (2 / 6 + 1 / 2) / 6])
    assert found["classes_without_predictions"] == ["Green lamp"]
    assert found["images_without_predictions"] == ["0003"]
    assert found["images"] == {"scored": 2, "without points": 1}
    assert found["rows"]["strange_answers"] == {"maybe": 1}
    low, high = found["confidence_interval"]
    assert 0 <= low <= found["scores"][PER_CLASS] <= high <= 1


def test_an_interval_of_nothing_is_still_one(
    csvs: tuple[str, str], write_predictions: Run, run: Run, tmp_path: Path
) -> None:
    flags = ("--points", csvs[0], "--descriptions", csvs[1])
    nothing = write_predictions({"0001": {}, "0002": {}})
    assert run("points", "--predictions", nothing, *flags)["confidence_interval"] == [0.0, 0.0]
    assert "| 0.00 | 0.00 to 0.00 |" in (tmp_path / "scores" / "metrics.md").read_text()


def test_missing_images_can_count_as_empty(
    csvs: tuple[str, str], write_predictions: Run, run: Run
) -> None:
    flags = ["--points", csvs[0], "--descriptions", csvs[1], "--missing_images", "empty"]
    found = run("points", "--predictions", write_predictions(HALVES), *flags)
    assert found["scores"][PER_CLASS] == pytest.approx((2 / 6 + 1 / 2) / 3)


def test_a_limit_takes_the_first_samples_of_the_run(
    csvs: tuple[str, str], write_predictions: Run, run: Run
) -> None:
    flags = ["--points", csvs[0], "--descriptions", csvs[1], "--limit_samples", 1]
    predictions = write_predictions([{"0001": HALVES["0001"]}, {"0002": {}, "0003": {}}])
    found = run("points", "--predictions", predictions, *flags)
    assert found["images"] == {"scored": 2} and found["settings"]["limit_samples"] == 1
    assert found["images_without_predictions"] == ["0003"]


def test_a_rejected_image_was_seen(csvs: tuple[str, str], write_predictions: Run, run: Run) -> None:
    predictions = write_predictions(HALVES | {"0003": {}}, rejected=("0003",))
    found = run(
        "points", "--predictions", predictions, "--points", csvs[0], "--descriptions", csvs[1]
    )
    assert found["scores"][PER_CLASS] == pytest.approx((2 / 6 + 1 / 2) / 3)
    assert found["rejected"] == {"undecodable": 1}


def test_the_stage_files(
    csvs: tuple[str, str], write_predictions: Run, run: Run, tmp_path: Path
) -> None:
    flags = ["--points", csvs[0], "--descriptions", csvs[1]]
    run("points", "--predictions", write_predictions([HALVES, {"x": {}}]), *flags)
    names = {str(p.relative_to(tmp_path / "scores")) for p in (tmp_path / "scores").rglob("*.*")}
    assert {name for name in names if "-" not in name} == {
        *("categories.json", "classes.md", "classes.png", "metrics.json", "metrics.md"),
        *("pairs.parquet", "run.json", "scores.png", "shards.parquet", "summary.json"),
    }
    text = (tmp_path / "scores" / "metrics.md").read_text()
    assert "| **p-mIoU: classes** | 30.00 |" in text and "maybe" in text


def test_equal_counts_in_any_division(
    cleaned: tuple[LabelledPairs, Cleaning], write_predictions: Run
) -> None:
    whole = write_predictions(HALVES, name="whole")
    parts = write_predictions([{key: masks} for key, masks in HALVES.items()], name="parts")
    tables = [count_predictions(output, cleaned[0]) for output in (whole, parts)]
    assert tables[0].sort_by("image") == tables[1].sort_by("image")


def test_the_better_of_two_masks_counts(
    cleaned: tuple[LabelledPairs, Cleaning], write_predictions: Run
) -> None:
    masks = {"0001": {"Dog": LEFT, "dog": ~LEFT}}
    output = write_predictions(masks, scores={("0001", "Dog"): 0.1, ("0001", "dog"): 0.2})
    (row,) = (r for r in count_predictions(output, cleaned[0]).to_pylist() if r["image"] == "0001")
    assert (row["tp"], row["fp"]) == (1, 1)


def random_counts(seed: int) -> tuple[PairCounts, dict[str, tuple[list[bool], list[bool]]]]:
    """Random pairs, and for each label what is true and what is predicted at all its points."""
    rng = np.random.default_rng(seed)
    rows, per_label = [], defaultdict(lambda: ([], []))
    for image in range(30):
        for label in rng.choice(6, size=3, replace=False):
            truth = np.append(rng.random(rng.integers(1, 9)) < 0.4, True)
            inside = rng.random(len(truth)) < 0.5
            counts = [truth.sum(), (~truth).sum(), (truth & inside).sum(), (~truth & inside).sum()]
            row = dict(zip(("yes", "no", "tp", "fp"), map(int, counts), strict=True))
            rows.append(row | {"image": f"i{image}", "label": f"l{label}", "score": rng.random()})
            per_label[f"l{label}"][0].extend(truth)
            per_label[f"l{label}"][1].extend(inside)
    return PairCounts.of(pa.Table.from_pylist(rows, schema=PAIR_COUNTS)), per_label


@pytest.mark.parametrize("seed", range(5))
def test_averages_against_scikit_learn(seed: int) -> None:
    counts, per_label = random_counts(seed)
    found = counts.averages()
    of_class = [jaccard_score(truth, inside) for truth, inside in per_label.values()]
    of_background = [jaccard_score(t, i, pos_label=False) for t, i in per_label.values()]
    everything = [np.concatenate([part[i] for part in per_label.values()]) for i in (0, 1)]
    assert found[AVERAGES[0]] == pytest.approx(np.mean(of_class), abs=1e-9)
    assert found[AVERAGES[2]] == pytest.approx(jaccard_score(*everything), abs=1e-9)
    assert found[AVERAGES[3]] == pytest.approx(np.mean([of_class, of_background]), abs=1e-9)
    sums = counts.classes()
    by_counter = PointCounts(
        *(
            Counter(dict(zip(counts.labels, column.tolist(), strict=True)))
            for column in (sums["tp"], sums["fp"], sums["yes"] - sums["tp"])
        )
    )
    assert by_counter.p_miou() == pytest.approx(counts.p_miou(), abs=1e-12)


def test_the_interval_is_that_of_resampled_images() -> None:
    counts, _ = random_counts(0)
    rng, values = np.random.default_rng(3), []
    for _ in range(50):
        drawn = rng.integers(len(counts.images), size=len(counts.images))
        rows = [pair for image in drawn for pair in np.flatnonzero(counts.image == image)]
        tp, fp, yes = (
            np.bincount(counts.label[rows], column[rows])
            for column in (counts.tp, counts.fp, counts.yes)
        )
        values.append(np.mean(tp / (yes + fp)))
    expected = np.quantile(values, [0.025, 0.975])
    assert confidence_interval(counts, 50, 3) == pytest.approx(tuple(expected), abs=1e-12)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"--predictions": "/nowhere"}, "no annotation run has committed there"),
        ({"--points": ""}, "--points is needed"),
        ({"--points": "/nowhere.csv"}, "nowhere.csv"),
        ({"--input": "x.tar"}, "give either --predictions or --input"),
        ({"--bootstrap": -1}, "must not be negative"),
        ({"--key_end": "last_dot"}, "--key_end: has no effect beside --predictions"),
        ({"--image_field": "left.png"}, "--image_field: has no effect beside --predictions"),
        ({"--input_root": "/data"}, "--input_root: has no effect beside --predictions"),
        ({"--max_pixels": 10}, "--max_pixels: has no effect beside --predictions"),
    ],
)
def test_settings_that_are_refused(
    csvs: tuple[str, str],
    write_predictions: Run,
    run: Run,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, object],
    words: str,
) -> None:
    flags = {"--predictions": write_predictions(HALVES), "--points": csvs[0]}
    flags |= {"--descriptions": csvs[1]} | change
    run("points", *(part for flag in flags.items() for part in flag), code=2)
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_an_image_in_two_shards_is_refused(
    csvs: tuple[str, str], write_predictions: Run, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions = write_predictions([HALVES, HALVES])
    flags = ["--points", csvs[0], "--descriptions", csvs[1]]
    run("points", "--predictions", predictions, *flags, code=2)
    assert "2 image ids are the key of several samples (the first: 0001)" in capsys.readouterr().err


def test_no_image_in_common_is_refused(
    csvs: tuple[str, str], write_predictions: Run, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions = write_predictions({"elsewhere": {"dog": LEFT}})
    flags = ["--points", csvs[0], "--descriptions", csvs[1]]
    run("points", "--predictions", predictions, *flags, code=2)
    assert "an image id (0001) has to be a sample's key" in capsys.readouterr().err


def test_other_points_on_the_same_output_are_refused(
    csvs: tuple[str, str], write_predictions: Run, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--predictions", write_predictions(HALVES), "--descriptions", csvs[1]]
    run("points", *flags, "--points", csvs[0])
    first = Path(csvs[0])
    first.write_text(first.read_text() + "\n0001,0.3,0.3,/m/d,yes,ih,1,0,0,,\n")
    run("points", *flags, "--points", csvs[0], code=2)
    assert "another configuration (points:" in capsys.readouterr().err
    run("points", *flags, "--points", csvs[0], "--on_mismatch", "redo")


def test_maps_of_a_model_are_those_of_the_library(run: Run, tmp_path: Path) -> None:
    import torch

    import legrad
    from pipeline.demo.quality import bundled_scenes
    from pipeline.models.demo import TEMPLATE, create, tokenize
    from pipeline.models.preprocess import Preprocess

    flags = ["--points", ASSETS / "points.csv", "--descriptions", ASSETS / "class-descriptions.csv"]
    shard = ASSETS / "shards" / "demo-00000.tar"
    size = ["--model.image_size", 96, "--limit_samples", 3]
    found = run("points", "--input", shard, *flags, *size)
    model = create()
    explainer, preprocess = legrad.build("legrad", model), Preprocess.of_clip(model)
    pairs, _ = read_labels(*map(str, flags[1::2]))
    tp = fp = yes = 0
    for number, scene in enumerate(bundled_scenes()[:3]):
        pixels = preprocess.squash(torch.from_numpy(scene.image).permute(2, 0, 1))[None]
        images = preprocess.normalise(pixels, torch.device("cpu"), torch.float32)
        for points in pairs.of_images([f"scene{number:05d}"])[f"scene{number:05d}"]:
            with torch.no_grad():
                prompt = tokenize([TEMPLATE.format(points.label.name)])
                text = model.encode_text(prompt, normalize=True)
            heat = legrad.heatmap(explainer(images, text, torch.tensor([0])), (96, 96))[0]
            column = np.minimum((points.x * 96).astype(int), 95)
            inside = heat.numpy()[np.minimum((points.y * 96).astype(int), 95), column] > 0.5
            tp, fp = tp + (inside & points.yes).sum(), fp + (inside & ~points.yes).sum()
            yes += points.yes.sum()
    sums = {name: sum(c[name] for c in found["classes"]) for name in ("tp", "fp", "yes")}
    assert sums == {"tp": tp, "fp": fp, "yes": yes}
    assert found["images"] == {"scored": 3}


@pytest.mark.skipif(not REAL.exists(), reason="the real data is not here")
def test_perfect_predictions_on_real_data(write_predictions: Run, run: Run, tmp_path: Path) -> None:
    folder = REAL / "coco-val-100"
    names = json.loads((folder / "categories.json").read_text())
    masks = {}
    for path in sorted((folder / "masks").glob("*.png")):
        index = np.array(Image.open(path))
        masks[path.stem] = {names[str(c)]: index == c for c in np.unique(index) if str(c) in names}
    points, descriptions = folder / "points.csv", REAL / "oidv7-class-descriptions.csv"
    found = run(
        "points",
        *("--predictions", write_predictions(masks), "--points", points),
        *("--descriptions", descriptions, "--images", folder, "--bootstrap", 20),
    )
    assert scores(found["scores"]) == [1.0] * 4
    assert found["classes_without_predictions"] == found["images_without_predictions"] == []
    assert (tmp_path / "scores" / "gallery.png").exists()
    answers: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    with points.open() as stream:
        for row in csv.DictReader(stream):
            answers[row["Label"], row["ImageId"]][row["EstimatedYesNo"]] += 1
    per_class: dict[str, Counter[str]] = defaultdict(Counter)
    for (label, _), of_pair in answers.items():
        if of_pair["yes"]:
            per_class[label] += of_pair
    everything = [c["yes"] / c.total() for c in per_class.values()]
    assert found["everything"][PER_CLASS] == pytest.approx(np.mean(everything), abs=1e-12)
    assert found["nothing"][PER_CLASS] == 0.0


def test_folders_tell_the_images_of_points_apart(
    csvs: tuple[str, str], write_predictions: Run, run: Run, tmp_path: Path
) -> None:
    points = tmp_path / "folders.csv"
    text = Path(csvs[0]).read_text()
    points.write_text(text.replace("\n0001,", "\nx/0001,").replace("\n0003,", "\ny/0001,"))
    keys = {"x/0001": "0001", "y/0001": "0003", "in/0002": "0002", "0001": "0001"}
    masks = {key: HALVES.get(image, {}) for key, image in keys.items()}
    found = run(
        "points",
        *("--predictions", write_predictions(masks)),
        *("--points", points, "--descriptions", csvs[1]),
    )
    # As in the fixture by hand, and 0003, now y/0001, is in a shard: its yes point is missed.
    assert {c["name"]: (c["tp"], c["fp"], c["yes"], c["no"]) for c in found["classes"]} == {
        "Dog": (2, 1, 5, 2),
        "Cat": (1, 1, 1, 1),
        "Green lamp": (0, 0, 1, 0),
    }
    assert found["images"] == {"rejected": 1, "scored": 3}
    assert found["rejected"] == {"several_truths": 1}  # 0001 may be x/0001 or y/0001


def test_a_key_that_was_there_twice_is_scored_once(
    csvs: tuple[str, str], write_predictions: Run, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictions = write_predictions(HALVES)
    once = run("points", "--predictions", predictions, "--points", csvs[0],
               "--descriptions", csvs[1])  # fmt: skip
    read = Ledger.read

    def with_a_repeated_key(ledger: Ledger, folder: str, *rest: Any, **more: Any) -> pa.Table:
        table = read(ledger, folder, *rest, **more)
        if folder != "images":
            return table
        again = table.slice(0, 1).to_pylist()[0] | {"reason": "duplicate_key"}
        again |= {"status": "rejected"} if "status" in again else {}
        return pa.concat_tables([table, pa.Table.from_pylist([again], schema=table.schema)])

    monkeypatch.setattr(Ledger, "read", with_a_repeated_key)
    twice = run("points", "--predictions", predictions, "--points", csvs[0],
                "--descriptions", csvs[1], output="twice")  # fmt: skip
    assert twice["scores"] == once["scores"]
    assert twice["rejected"] == {"duplicate_key": 1}
