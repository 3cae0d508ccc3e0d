"""Runs with sounds, from shards and class files to tables, with a small random ImageBind."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from jobs.annotate import main
from pipeline.config import AnnotateConfig, ModelConfig, PromptConfig
from pipeline.models.explain import PromptExplainer
from pipeline.run.worker import Worker
from tests.pipeline.conftest import ENGINE, labelled, picture, tar
from tests.pipeline.stand_ins import Annotate, MakeConfig, Write, rows

MODEL = ModelConfig("imagebind_small", "random", image_size=56)


def tone(hertz: float) -> bytes:
    file = io.BytesIO()
    samples = 0.5 * np.sin(2 * np.pi * hertz * np.arange(8000) / 16_000)
    soundfile.write(file, samples, 16_000, format="OGG")
    return file.getvalue()


@pytest.fixture(scope="module")
def run_explainer(tmp_path_factory: pytest.TempPathFactory) -> Callable:
    """Explainers of one configuration are made once."""
    made: dict[PromptConfig, PromptExplainer] = {}

    def make(config: AnnotateConfig) -> PromptExplainer:
        return made.setdefault(config.output, PromptExplainer(config))

    return make


def test_sounds_of_samples_get_masks_and_bad_ones_a_reason(
    write_shards: Write, annotate: Annotate, make_config: MakeConfig, run_explainer: Callable
) -> None:
    shard = tar(
        [
            ("a.jpg", picture(0)),
            ("a.dog.ogg", tone(300)),
            ("a.cat.ogg", tone(700)),
            ("b.jpg", picture(1)),
            ("b.dog.ogg", tone(300)),
            ("c.jpg", picture(2)),
            ("c.ogg", b"no sound"),
            ("d.jpg", picture(3)),
        ]
    )
    config = make_config(
        input=write_shards(s=shard),
        model=MODEL,
        prompts=PromptConfig(source="audio"),
        max_reject_fraction=1.0,
    )
    ledger = annotate(config, lambda c: Worker(c, run_explainer))
    found = rows(ledger, "annotations")
    assert [(row["key"], row["category"]) for row in found] == [
        ("a", "dog"),
        ("a", "cat"),
        ("b", "dog"),
    ]
    assert {row["prompt"] for row in found} == {"dog", "cat"}
    scores = [row["score"] for row in found]
    assert all(-1 <= score <= 1 for score in scores) and scores[0] != scores[1]
    reasons = {row["key"]: row["reason"] for row in rows(ledger, "images")}
    assert (reasons["c"], reasons["d"]) == ("bad_sound", "missing_field")


def test_a_vocabulary_is_heard(
    write_shards: Write,
    annotate: Annotate,
    make_config: MakeConfig,
    run_explainer: Callable,
    tmp_path: Path,
) -> None:
    (tmp_path / "bark.ogg").write_bytes(tone(300))
    classes = tmp_path / "classes.yaml"
    classes.write_text(
        "- {id: 1, name: dog, prompts: [], sounds: [bark.ogg]}\n- {id: 2, name: cat}\n"
    )
    prompts = PromptConfig(source="vocabulary", classes=str(classes), presence=-1.0)
    config = make_config(
        input=write_shards(s=tar(labelled("a", []))), model=MODEL, prompts=prompts, engine=ENGINE
    )
    found = rows(annotate(config, lambda c: Worker(c, run_explainer)), "annotations")
    assert {(row["category"], row["prompt"]) for row in found} == {
        ("dog", "bark.ogg"),
        ("cat", "a photo of a cat."),
    }


@pytest.mark.parametrize("dry", [(), ("--dry_run",)])
def test_a_class_file_with_sounds_needs_a_model_that_hears(
    write_shards: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str], dry: tuple[str, ...]
) -> None:
    (tmp_path / "bark.ogg").write_bytes(tone(300))
    classes = tmp_path / "classes.yaml"
    classes.write_text("- {id: 1, name: dog, sounds: [bark.ogg]}\n")
    shards, output = write_shards(s=tar(labelled("a", ["dog"]))), tmp_path / "out"
    run = ["--input", shards, "--output", str(output), "--prompts.classes", str(classes)]
    run += ["--model.name", "ViT-B-32", "--model.pretrained", "random"]
    assert main([*run, *dry]) == 2
    said = capsys.readouterr()
    assert "classes.yaml: it names sounds, and ViT-B-32 has no audio tower" in said.err
    assert said.err.count("\n") == 1 and "to do" not in said.out and not output.exists()
