"""The bundled levels on the bundled scenes, which had no part in them."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.config import AnnotateConfig, PromptConfig
from pipeline.demo.presence import (
    ONLY_SCORES,
    TUNE_SEED,
    measure,
    semantic_miou,
    vocabulary,
)
from pipeline.demo.run import SHARDS
from pipeline.demo.scenes import HELD_OUT_SEED, TRAIN_SEED
from pipeline.models.demo import ASSETS
from pipeline.run.annotation import annotate
from tests.pipeline.conftest import ENGINE

CLASSES = str(ASSETS / "classes.yaml")


def run(output: Path, prompts: PromptConfig) -> str:
    engine = replace(ENGINE, batch_size=16)
    config = AnnotateConfig(input=str(SHARDS), output=str(output), prompts=prompts, engine=engine)
    annotate(config)
    return str(output)


def test_the_bundled_levels_find_what_is_there(tmp_path: Path) -> None:
    assert TUNE_SEED not in (TRAIN_SEED, HELD_OUT_SEED)
    worth = measure(run(tmp_path / "scores", vocabulary(CLASSES, ONLY_SCORES)))
    assert worth.precision >= 0.98
    assert worth.recall >= 0.95
    assert worth.calibration_error <= 0.01


@pytest.mark.long
def test_a_vocabulary_labels_pixels_as_true_names_do(tmp_path: Path) -> None:
    found = semantic_miou(run(tmp_path / "found", vocabulary(CLASSES)))
    assert found >= 0.98 * semantic_miou(run(tmp_path / "named", PromptConfig(classes=CLASSES)))
