"""What belongs to weights, for all of open_clip's: by tag, from a file, and with a file beside."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip.push_to_hf_hub import save_config_for_hf
from open_clip.transform import (
    PreprocessCfg,
    image_transform_v2,
    merge_preprocess_dict,
)
from PIL import Image

from pipeline.config import AnnotateConfig, ModelConfig
from pipeline.config.weights import settle
from pipeline.errors import ConfigError
from pipeline.models.demo import create
from pipeline.models.preprocess import Preprocess

PAIRS = open_clip.list_pretrained()
KEYS = ("mean", "std", "interpolation", "resize_mode")
BASE = AnnotateConfig(input="in", output="out")


def _theirs(name: str, tag: str) -> dict[str, Any]:
    """What open_clip merges for a tag, in `create_model`."""
    return merge_preprocess_dict(asdict(PreprocessCfg()), open_clip.get_pretrained_cfg(name, tag))


def _loaded_as(values: Mapping[str, Any]) -> Preprocess:
    """The preprocessing of a model that was loaded with such values, which is the demo's."""
    given = {key: value for key, value in values.items() if key != "quick_gelu"}
    settings = merge_preprocess_dict(asdict(PreprocessCfg()), given)
    model = create(None)
    model.visual.preprocess_cfg = settings
    return Preprocess.of_clip(model)


def _same(found: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    return all(
        list(found[k]) == list(expected[k]) if k in ("mean", "std") else found[k] == expected[k]
        for k in KEYS
    )


def _unanimous(name: str) -> bool:
    tags = [_theirs(name, tag) for tag in open_clip.list_pretrained_tags_by_model(name)]
    return all(_same(tag, tags[0]) for tag in tags)


@pytest.mark.parametrize(("name", "tag"), PAIRS)
def test_every_tag_has_open_clips_own_values_by_name_and_from_a_file(
    name: str, tag: str, tmp_path: Path
) -> None:
    theirs = _theirs(name, tag)
    by_tag = settle(name, tag, {})
    assert _same(by_tag.values, theirs) and not by_tag.changed

    file = tmp_path / "weights.pt"
    file.touch()
    if _unanimous(name):
        from_file = settle(name, str(file), {})
        assert _same(from_file.values, theirs)

    # Beside it, as open_clip itself writes it.
    model_config = open_clip.get_model_config(name)
    visual = SimpleNamespace(
        image_mean=theirs["mean"], image_std=theirs["std"], preprocess_cfg=theirs
    )
    config = tmp_path / "open_clip_config.json"
    save_config_for_hf(SimpleNamespace(visual=visual), config, model_config)
    beside = settle(name, str(file), {})
    assert _same(beside.values, theirs)
    assert beside.values["quick_gelu"] == model_config.get("quick_gelu", False)
    assert "WARNING" not in "".join(beside.lines)


def test_pixels_are_those_of_open_clips_transform_for_every_distinct_setting() -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((180, 260), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)
    distinct = {json.dumps(_theirs(name, tag), sort_keys=True): (name, tag) for name, tag in PAIRS}
    assert len(distinct) >= 6
    for text, (name, tag) in distinct.items():
        theirs = json.loads(text)
        ours = _loaded_as(settle(name, tag, {}).values)
        # The same squash: open_clip's transform of an image that already has the model's shape
        # changes no pixel of it, so that the resize is theirs where they squash, too.
        for found, cfg, tolerance in (
            (ours.squash(pixels), theirs | {"resize_mode": "squash"}, 0.01),
            (ours.fit(pixels), theirs, 0.01),
        ):
            model_input = ours.normalise(found[None], torch.device("cpu"), torch.float32)[0]
            expected = image_transform_v2(PreprocessCfg(**cfg), is_train=False)(image)
            assert (model_input - expected).abs().mean() < tolerance, (name, tag)


@pytest.mark.parametrize(
    ("name", "quick_gelu", "warns"),
    [
        ("ViT-L-14-336", True, False),  # all its tags are OpenAI's
        ("ViT-H-14-378", True, False),
        ("ViT-B-16-quickgelu", True, False),
        ("ViT-B-16-SigLIP", False, False),
        ("ViT-B-16", False, True),
        ("ViT-B-32", False, True),
        ("ViT-L-14", False, True),
        ("ViT-S-16", False, False),  # no tags
    ],
)
def test_the_activation_is_that_of_all_tags_or_a_warning(
    name: str, quick_gelu: bool, warns: bool, tmp_path: Path
) -> None:
    settled = settle(name, str(tmp_path / "weights.pt"), {})
    assert settled.values["quick_gelu"] is quick_gelu
    warnings = [line for line in settled.lines if line.startswith("WARNING")]
    assert len(warnings) == warns
    if warns:
        assert "differ in" in warnings[0] and "--model.quick_gelu" in warnings[0]
        given = settle(name, str(tmp_path / "weights.pt"), {"quick_gelu": True})
        assert given.values["quick_gelu"] is True
        assert "--model.quick_gelu" not in "".join(given.lines)


def test_a_tag_with_another_activation_than_the_names_is_said_aloud() -> None:
    (line,) = settle("ViT-B-16", "openai", {}).lines
    assert "give --model.name ViT-B-16-quickgelu" in line
    assert not settle("ViT-B-16-quickgelu", "openai", {}).lines
    assert not settle("ViT-B-16", "laion2b_s34b_b88k", {}).lines


def test_a_guess_names_what_tags_disagree_about(tmp_path: Path) -> None:
    described, warning = settle("ViT-L-14", str(tmp_path / "w.pt"), {}).lines
    assert "differ in mean, std, quick_gelu" in warning
    assert 'interpolation "bicubic"' in described and "(from the tags of ViT-L-14)" in described


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("preprocessor_config.json",
         {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4], "resample": 2,
          "size": {"height": 8, "width": 8}},
         {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "interpolation": "bilinear",
          "resize_mode": "squash"}),
        ("preprocessor_config.json",
         {"do_normalize": False, "resample": 3, "size": {"shortest_edge": 8}},
         {"mean": [0, 0, 0], "std": [1, 1, 1], "interpolation": "bicubic",
          "resize_mode": "shortest"}),
        ("processor_config.json",
         {"image_processor": {"image_mean": [0.1] * 3, "image_std": [0.2] * 3, "size": 8}},
         {"mean": [0.1] * 3, "std": [0.2] * 3, "resize_mode": "shortest"}),
        ("config.json", {"model_type": "clip", "vision_config": {}}, {"quick_gelu": True}),
        ("config.json", {"model_type": "clip", "vision_config": {"hidden_act": "gelu"}},
         {"quick_gelu": False}),
        ("config.json", {"model_type": "bert"}, {}),
    ],
)  # fmt: skip
def test_files_of_hugging_face_beside_weights_are_read(
    file: str, content: dict[str, Any], expected: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / file).write_text(json.dumps(content))
    settled = settle("ViT-L-14", str(tmp_path / "w.pt"), {})
    assert {key: settled.values[key] for key in expected} == expected
    assert all(settled.sources[key] == file for key in expected)
    given = settle("ViT-L-14", str(tmp_path / "w.pt"), {"mean": [0.9] * 3})
    assert given.values["mean"] == [0.9] * 3  # settings come first


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("open_clip_config.json", "<html>", "is not a JSON object"),
        ("open_clip_config.json", "[]", "is not a JSON object"),
        ("open_clip_config.json", '{"preprocess_cfg": 3}', "preprocess_cfg is not an object"),
        ("open_clip_config.json", '{"preprocess_cfg": {"mean": 3}}', "mean 3: give three numbers"),
        ("open_clip_config.json", '{"preprocess_cfg": {"std": [1, 1, 0]}}', "std .*above 0"),
        ("open_clip_config.json", '{"preprocess_cfg": {"interpolation": "x"}}', "give one of bicu"),
        ("preprocessor_config.json", '{"resample": 0}', "resample 0: neither bilinear"),
    ],
)
def test_a_file_beside_that_makes_no_sense_is_named(
    file: str, content: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / file).write_text(content)
    with pytest.raises(ConfigError, match=f"{file}.*{says}"):
        settle("ViT-L-14", str(tmp_path / "w.pt"), {})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"mean": [0.5, 0.5]}, "--model.mean"),
        ({"mean": [0.5, 0.5, float("nan")]}, "--model.mean"),
        ({"std": [0.5, 0.5, 0.0]}, "--model.std .*above 0"),
        ({"name": "timm/vit_tiny_patch16_224", "quick_gelu": True}, "--model.quick_gelu: timm/"),
        ({"name": "local-dir:x", "pretrained": "openai"}, "--model.pretrained openai: .*leave it"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ModelConfig(**{"name": "ViT-B-16", "pretrained": "openai"} | changes)


def test_beside_a_uri_it_is_read_from_there(bucket: Any) -> None:
    bucket.put_object(Bucket="data", Key="beside/w.pt", Body=b"weights")
    body = json.dumps({"preprocess_cfg": {"mean": [0.1, 0.2, 0.3]}}).encode()
    bucket.put_object(Bucket="data", Key="beside/open_clip_config.json", Body=body)
    settled = settle("ViT-L-14", "s3://data/beside/w.pt", {})
    assert settled.values["mean"] == [0.1, 0.2, 0.3]
    assert settle("ViT-L-14", "s3://data/alone/w.pt", {}).values["std"] == list(PreprocessCfg().std)


def test_a_web_server_that_answers_with_pages_has_no_file_beside(web: tuple[str, Path]) -> None:
    address, folder = web
    (folder / "w.pt").write_bytes(b"weights")
    (folder / "config.json").write_text("<!doctype html>")
    (folder / "open_clip_config.json").write_text('{"preprocess_cfg": {"mean": [0.1, 0.2, 0.3]}}')
    assert settle("ViT-L-14", f"{address}/w.pt", {}).values["mean"] == [0.1, 0.2, 0.3]


def test_the_identity_has_what_is_done_and_not_who_says_it(tmp_path: Path) -> None:
    """Those of runs that did the same before any of this was looked at keep theirs."""

    def identity(**changes: Any) -> dict[str, Any]:
        return replace(model, **changes).identity()

    (tmp_path / "a").mkdir()
    file = tmp_path / "a" / "w.pt"
    file.write_bytes(b"weights")
    model = ModelConfig("ViT-B-16", str(file))
    before = {"name": "ViT-B-16", "precision": "float32", "image_size": None}
    assert model.identity() == before | {"pretrained": identity()["pretrained"]}
    own = PreprocessCfg()
    same = {"mean": list(own.mean), "std": list(own.std), "quick_gelu": False}
    assert identity(**same, interpolation="bicubic", resize_mode="shortest") == model.identity()
    given = identity(mean=[0.5] * 3)
    assert given == model.identity() | {"mean": [0.5] * 3}
    (tmp_path / "a" / "open_clip_config.json").write_text(
        json.dumps({"preprocess_cfg": {"mean": [0.5] * 3}})
    )
    assert identity() == given
    assert identity(mean=list(own.mean)) != given
    by_tag = ModelConfig("ViT-B-16-SigLIP", "webli")
    assert by_tag.identity() == before | {"name": "ViT-B-16-SigLIP", "pretrained": "webli"}
    assert replace(by_tag, mean=[0.5] * 3).identity() == by_tag.identity()
    assert ModelConfig("ViT-B-16-SigLIP", "random").identity()["pretrained"] == "random"
    siglip = replace(model, name="ViT-B-16-SigLIP", pretrained=str(tmp_path / "w.pt")).identity()
    assert siglip["mean"] == [0.5] * 3  # was CLIP's, so that such an output is done again


def test_all_that_is_used_is_in_the_runs_record(tmp_path: Path) -> None:
    model = ModelConfig("ViT-B-16-SigLIP", str(tmp_path / "w.pt"))
    used = replace(BASE, model=model).recorded()["model"]["weight_settings"]
    assert used["mean"] == [0.5] * 3 and used["quick_gelu"] is False
