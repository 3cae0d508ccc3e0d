"""What the settings of a run change in its tables."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import MaskConfig, PromptConfig, ViewsConfig
from pipeline.inputs.classes import stable_id
from pipeline.outputs.masks import decode
from pipeline.run.worker import Worker
from tests.pipeline.stand_ins import (
    Annotate,
    Labelled,
    MakeConfig,
    MakeTar,
    Write,
    rows,
)


def test_limits(
    good: bytes, write_shards: Write, make_config: MakeConfig, annotate: Annotate
) -> None:
    folder = write_shards(a=good, b=good[:-4096])
    ledger = annotate(make_config(input=f"{folder}/a.tar", limit_samples=3))
    assert [row["key"] for row in rows(ledger, "images")] == ["0", "1", "2"]


def test_heat_may_be_left_out(
    good: bytes, write_shards: Write, make_config: MakeConfig, annotate: Annotate
) -> None:
    config = make_config(input=write_shards(a=good), mask=MaskConfig(heat=False, threshold=0.6))
    for row in rows(annotate(config), "annotations"):
        assert row["heat"] is None and row["heat_shape"] is None
        assert row["threshold"] == pytest.approx(0.6)


def test_batches_do_not_depend_on_rejects_in_between(
    tar: MakeTar,
    labelled: Labelled,
    picture: Callable[..., bytes],
    write_shards: Write,
    make_config: MakeConfig,
    annotate: Annotate,
) -> None:
    """Rejected samples take no place in a batch, so that the others' bytes stay the same."""
    samples = [labelled(f"{i}", ["dog", "car"], picture(i)) for i in range(7)]
    clean = tar(m for sample in samples for m in sample)
    damaged = tar(m for i, s in enumerate(samples) for m in [*labelled(f"bad{i}", 0), *s])
    config = make_config(input=write_shards(a=clean))
    columns = ("key", "prompt", "score", "raw_max", "heat", "area")
    first = [[row[c] for c in columns] for row in rows(annotate(config), "annotations")]
    write_shards(a=damaged)
    config = replace(config, output=config.output + "-damaged")
    assert [[r[c] for c in columns] for r in rows(annotate(config), "annotations")] == first


@pytest.mark.parametrize("views", [ViewsConfig(), ViewsConfig(shifts=2)])
def test_a_vocabulary_finds_the_masks_that_labels_find(
    views: ViewsConfig,
    tmp_path: Path,
    good: bytes,
    write_shards: Write,
    make_config: MakeConfig,
    annotate: Annotate,
) -> None:
    path = tmp_path / "classes.yaml"
    path.write_text("- {id: 5, name: dog}\n- {id: 9, name: cat}")
    config = make_config(input=write_shards(a=good), views=views)
    with_labels = replace(config, prompts=PromptConfig(classes=str(path)))
    by_labels = rows(annotate(with_labels, Worker), "annotations")
    cells = 12 * views.shifts
    assert all(row["heat_shape"] == [cells, cells] for row in by_labels)
    by_vocabulary = rows(
        annotate(
            replace(
                config,
                output=config.output + "-vocabulary",
                prompts=PromptConfig("vocabulary", classes=str(path), presence=-1.0),
            ),
            Worker,
        ),
        "annotations",
    )
    found = {(row["key"], row["category"]): row for row in by_vocabulary}
    assert len(found) == len(by_labels) == 12
    for row in by_labels:
        same = found[row["key"], row["category"]]
        assert row["category_id"] == same["category_id"] in (5, 9)
        assert (row["prompt"], row["area"]) == (same["prompt"], same["area"])
        np.testing.assert_array_equal(decode(row["segmentation"]), decode(same["segmentation"]))


def test_embeddings_from_the_samples(
    tar: MakeTar, picture: Callable[..., bytes], write_shards: Write,
    make_config: MakeConfig, annotate: Annotate,
) -> None:  # fmt: skip
    def npy(vectors: np.ndarray) -> bytes:
        stream = io.BytesIO()
        np.save(stream, vectors)
        return stream.getvalue()

    vectors = np.random.default_rng(0).normal(size=(2, 128))
    names = b'{"sounds": ["bark", "bark"]}'
    members = [
        *(("a.jpg", picture()), ("a.json", names), ("a.npy", npy(vectors))),
        *(("b.jpg", picture()), ("b.json", names), ("b.npy", npy(vectors[:, :64]))),
    ]
    prompts = PromptConfig("embeddings", field="sounds")
    ledger = annotate(make_config(input=write_shards(a=tar(members)), prompts=prompts), Worker)
    assert [
        (row["prompt"], row["category"], row["category_id"], row["prompt_index"])
        for row in rows(ledger, "annotations")
    ] == [("bark", "bark", stable_id("bark"), i) for i in (0, 1)]
    _, other = rows(ledger, "images")
    assert other["detail"] == "vectors of 64, and the model's are 128"


def test_captions_past_the_context_are_counted(
    tar: MakeTar, picture: Callable[..., bytes], write_shards: Write,
    make_config: MakeConfig, annotate: Annotate,
) -> None:  # fmt: skip
    captions = ["a dog", "a dog and " * 40 + "a cat"]
    members = [
        member
        for number, caption in enumerate(captions)
        for member in ((f"{number}.jpg", picture()), (f"{number}.txt", caption.encode()))
    ]
    config = make_config(input=write_shards(a=tar(members)), prompts=PromptConfig("caption"))
    ledger = annotate(config)
    assert [row["prompts_cut"] for row in rows(ledger, "images")] == [0, 1]
    (commit,) = ledger.commits()
    assert (commit.prompts, commit.prompts_cut) == (2, 1)
    assert ledger.summary().prompts_cut == 1
    assert [row["prompt"] for row in rows(ledger, "annotations")] == captions


def test_what_is_absent_is_counted_with_its_score_and_has_no_mask(
    tar: MakeTar, labelled: Labelled, good: bytes, write_shards: Write, make_config: MakeConfig,
    annotate: Annotate,
) -> None:  # fmt: skip
    rejected = tar([*labelled("bad", 0), *labelled("none", [])])
    config = make_config(input=write_shards(a=good, b=rejected))
    plain = annotate(config)
    scores = {(row["key"], row["category"]): row["score"] for row in rows(plain, "annotations")}
    level = sorted(scores.values())[5] + 1e-6  # of twelve
    config = replace(
        config,
        output=config.output + "-filtered",
        max_reject_fraction=1.0,
        prompts=PromptConfig(presence=level),
    )
    ledger = annotate(config, Worker)
    masks, images = rows(ledger, "annotations"), rows(ledger, "images")
    assert {(row["key"], row["category"]): row["score"] for row in masks} == {
        pair: pytest.approx(score, abs=1e-6) for pair, score in scores.items() if score > level
    }
    absent = {(row["key"], each["category"]): each for row in images for each in row["absent"]}
    assert {pair: each["score"] for pair, each in absent.items()} == {
        pair: pytest.approx(score, abs=1e-6) for pair, score in scores.items() if score <= level
    }
    assert {each["prompt_index"] for (_, name), each in absent.items() if name == "cat"} <= {1}
    for row in images[:6]:
        (counted,) = row["without_mask"] or [{"reason": "absent", "count": 0}]
        assert counted == {"reason": "absent", "count": len(row["absent"])}
        assert row["prompts"] == 2 == row["masks"] + len(row["absent"])
        assert row["status"] == ("annotated" if row["masks"] else "empty")
    assert [(row["status"], row["absent"]) for row in images[6:]] == [
        ("rejected", []),
        ("empty", []),
    ]
    assert all("absent" not in row for row in rows(plain, "images"))
    assert ledger.summary().prompts == 12
    assert ledger.fingerprint != plain.fingerprint


def test_captions_may_be_absent(
    tar: MakeTar, picture: Callable[..., bytes], write_shards: Write,
    make_config: MakeConfig, annotate: Annotate,
) -> None:  # fmt: skip
    shard = write_shards(a=tar([("0.jpg", picture()), ("0.txt", b"a dog")]))
    config = make_config(input=shard, prompts=PromptConfig("caption", presence=1.0))
    ledger = annotate(config, Worker)
    (image,) = rows(ledger, "images")
    (absent,) = image["absent"]
    assert (absent["prompt_index"], absent["category"]) == (0, None)
    assert rows(ledger, "annotations") == []
