"""What changes results changes the fingerprint, and what cannot work is refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.config import (
    AnnotateConfig,
    ExecutionConfig,
    MaskConfig,
    ModelConfig,
    PromptConfig,
    ViewsConfig,
)
from pipeline.errors import ConfigError

BASE = AnnotateConfig(input="in", output="out")


@pytest.mark.parametrize(
    "changes",
    [
        {"input": ["a", "b"]},
        {"output": "elsewhere"},
        {"input_root": "/data"},
        {"engine": ExecutionConfig("local", 4, 1, "cpu", 2, 8, 1 << 20, 9, 5.0, 1.0)},
        {"retry_failed": True},
        {"allow_failed": 7},
        {"on_mismatch": "redo"},
        {"dry_run": True},
    ],
)
def test_what_changes_no_result_leaves_the_fingerprint(changes: dict[str, object]) -> None:
    assert replace(BASE, **changes).fingerprint() == BASE.fingerprint()


@pytest.mark.parametrize(
    "changes",
    [
        {"limit_shards": 1},
        {"limit_samples": 1},
        {"max_pixels": 1},
        {"layers": 2},
        {"layers": [0, 1]},
        {"layers": 0.5},
        {"views": ViewsConfig(shifts=2)},
        {"views": ViewsConfig(flip=True)},
        {"views": ViewsConfig(scales=[1.0, 1.5])},
        {"algorithm": "autograd"},
        {"method": "gradcam"},
        {"options": {"relu": False}},
        {"empty_text": ""},
        {"empty_text": "a photo of"},
        {"empty_threshold": 0.9},
        {"model": ModelConfig(precision="bfloat16")},
        {"model": ModelConfig(pretrained="random")},
        {"prompts": PromptConfig("caption")},
        {"prompts": PromptConfig(templates=["{}"])},
        {"mask": MaskConfig(threshold=0.4)},
        {"mask": MaskConfig(rule="mean")},
        {"mask": MaskConfig(heat=False)},
        {"mask": MaskConfig(overlap="winner")},
    ],
)
def test_what_changes_results_changes_the_fingerprint(changes: dict[str, object]) -> None:
    assert replace(BASE, **changes).fingerprint() != BASE.fingerprint()


def test_masks_that_may_overlap_are_no_news_to_the_identity() -> None:
    before = {"rule": "fixed", "threshold": 0.5, "min_area": 0.0, "heat": True}
    assert AnnotateConfig().identity()["mask"] == before


def test_result_settings_are_a_copy() -> None:
    config = AnnotateConfig(options={"relu": False}, layers=[0])
    config.identity()["options"]["relu"] = True
    config.identity()["layers"].append(1)
    assert config.identity()["options"] == {"relu": False}
    assert config.identity()["layers"] == [0]


def test_a_whole_number_is_the_same_setting_as_the_float() -> None:
    whole, same = (AnnotateConfig(method="naclip", options={"std": std}) for std in (5, 5.0))
    assert whole.fingerprint() == same.fingerprint()


def test_a_class_file_counts_by_its_contents(tmp_path: Path) -> None:
    def fingerprint(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        prompts = PromptConfig("vocabulary", classes=str(tmp_path / name))
        return replace(BASE, prompts=prompts).fingerprint()

    first = fingerprint("a.yaml", "- {id: 1, name: dog}")
    assert fingerprint("b.yaml", "- {id: 1, name: dog}") == first
    assert fingerprint("a.yaml", "- {id: 1, name: cat}") != first


def test_a_filter_that_filters_nothing_leaves_the_identity_of_earlier_outputs(
    tmp_path: Path,
) -> None:
    """-1.0 was the default, in every identity."""
    before = {
        **{"source": "labels", "field": "", "classes": "", "templates": ["a photo of a {}."]},
        **{"max_per_image": 1000, "top_k": 5, "presence": -1.0},
    }
    assert PromptConfig().identity() == PromptConfig(presence=-1.0).identity() == before
    (tmp_path / "classes.yaml").write_text("- {id: 1, name: dog, presence: 0.3}")
    levels, none, one = (
        PromptConfig("vocabulary", classes=str(tmp_path / "classes.yaml"), presence=presence)
        for presence in (None, -1.0, 0.3)
    )
    assert (levels.filters, none.filters, one.filters) == (True, False, True)
    assert "absent" not in none.identity()
    assert levels.identity() == none.identity() | {"absent": "stored"}
    assert one.identity() == levels.identity() | {"presence": 0.3}


def test_a_calibration_counts_by_its_contents(tmp_path: Path) -> None:
    def identity(name: str, text: str) -> object:
        (tmp_path / name).write_text(text)
        return PromptConfig(calibration=str(tmp_path / name)).identity()["calibration"]

    assert identity("a", "1") == identity("b", "1") != identity("a", "2")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MaskConfig(threshold=1.0), "--mask.threshold 1.0"),
        (lambda: MaskConfig(threshold=-0.1), "--mask.threshold -0.1"),
        (lambda: MaskConfig(threshold=float("nan")), "--mask.threshold nan"),
        (lambda: MaskConfig(min_area=-1.0), "--mask.min_area -1.0"),
        (lambda: PromptConfig(templates=[]), "--prompts.templates"),
        (lambda: PromptConfig(templates=["a photo"]), "--prompts.templates ['a photo']"),
        (lambda: PromptConfig(templates=["{} or {}"]), "--prompts.templates"),
        (lambda: PromptConfig("cls"), "--prompts.source cls needs a class file"),
        (lambda: PromptConfig("vocabulary"), "--prompts.source vocabulary needs a class file"),
        (lambda: PromptConfig(top_k=0), "--prompts.top_k 0"),
        (lambda: PromptConfig(presence=1.5), "--prompts.presence 1.5: a cosine"),
        (lambda: PromptConfig(presence=float("nan")), "--prompts.presence nan"),
        (lambda: ExecutionConfig(batch_size=0), "--engine.batch_size 0"),
        (lambda: ExecutionConfig(shards_in_flight=0), "--engine.shards_in_flight 0"),
        (lambda: ExecutionConfig(max_attempts=0), "--engine.max_attempts 0"),
        (lambda: ExecutionConfig(workers=-1), "--engine.workers -1: must not be negative"),
        (lambda: ExecutionConfig(threads=-1), "--engine.threads -1: must not be negative"),
        (lambda: ExecutionConfig(stall_seconds=0.0), "--engine.stall_seconds 0.0"),
        (lambda: ModelConfig("ViT-B-16", "demo"), "these weights belong to legrad-demo"),
        (lambda: AnnotateConfig(empty_threshold=1.1), "--empty_threshold 1.1"),
        (
            lambda: AnnotateConfig(method="gradcm"),
            "--method gradcm: unknown method 'gradcm' (did you mean gradcam?); known: legrad, ",
        ),
        (
            lambda: AnnotateConfig(method="gradcam", options={"with_clss": True}),
            "--options: gradcam has no option 'with_clss' (did you mean with_cls?); "
            "known: with_cls",
        ),
        (
            lambda: AnnotateConfig(method="gradcam", options={"layer": 8}),
            "--options: gradcam has no option 'layer' (layers is a setting beside the options); "
            "known: with_cls",
        ),
        (
            lambda: AnnotateConfig(method="lrp", options={"relu": True}),
            "--options: lrp has no option 'relu'; known: none",
        ),
        (
            lambda: AnnotateConfig(options={"relu": "no"}),
            "--options: relu='no': must be of type bool",
        ),
        (
            lambda: AnnotateConfig(method="naclip", options={"std": float("nan")}),
            "--options: std=nan: must be a finite number",
        ),
        (
            lambda: AnnotateConfig(method="naclip", options={"std": float("inf")}),
            "--options: std=inf: must be a finite number",
        ),
        (lambda: AnnotateConfig(empty_text="none"), "--empty_text none: give auto, '' for none"),
        (lambda: AnnotateConfig(empty_text="Auto"), "--empty_text Auto: give auto, '' for none"),
        (lambda: AnnotateConfig(limit_shards=0), "--limit_shards 0"),
        (lambda: AnnotateConfig(limit_samples=0), "--limit_samples 0"),
        (lambda: AnnotateConfig(max_reject_fraction=float("nan")), "--max_reject_fraction nan"),
        (lambda: AnnotateConfig(max_pixels=0), "--max_pixels 0"),
        (lambda: AnnotateConfig(allow_failed=-1), "--allow_failed -1"),
    ],
)
def test_what_cannot_work_is_refused(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ConfigError) as caught:
        make()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
