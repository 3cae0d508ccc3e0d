"""Folders of `transformers`: the same embeddings as `transformers` itself computes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip import factory
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer

from pipeline.config import ModelConfig
from pipeline.errors import ModelError
from pipeline.models.clip import load_model

transformers = pytest.importorskip(
    "transformers", reason="what transformers computes needs the extra `clients`"
)

CPU = torch.device("cpu")
WIDTH, SIZE, PATCH, CONTEXT, TOKENS, HEADS = 128, 48, 16, 12, 49408, 2
TEXT = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": HEADS,
        "intermediate_size": 4 * WIDTH, "max_position_embeddings": CONTEXT, "vocab_size": TOKENS,
        "projection_size": WIDTH}  # fmt: skip
VISION = {"hidden_size": WIDTH, "num_hidden_layers": 3, "num_attention_heads": HEADS,
          "intermediate_size": 4 * WIDTH, "image_size": SIZE, "patch_size": PATCH}  # fmt: skip


def _tiny(**settings: Any) -> VisionTransformer:
    return VisionTransformer(SIZE, PATCH, embed_dim=WIDTH, depth=3, num_heads=HEADS,
                             class_token=False, global_pool="map", num_classes=0)  # fmt: skip


@pytest.fixture(autouse=True)
def tiny_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Names for small models in open_clip, as long as a test runs."""
    monkeypatch.setattr(factory, "_MODEL_CONFIGS", dict(factory._MODEL_CONFIGS))
    monkeypatch.setattr(factory, "_MODEL_CONFIG_PATHS", list(factory._MODEL_CONFIG_PATHS))
    monkeypatch.setattr("open_clip.timm_model.timm.create_model", lambda *_, **kwargs: _tiny())
    text = {"context_length": CONTEXT, "vocab_size": TOKENS, "width": WIDTH, "heads": HEADS,
            "layers": 2}  # fmt: skip
    clip = {"embed_dim": 32, "text_cfg": text,
            "vision_cfg": {"image_size": SIZE, "layers": 3, "width": WIDTH,
                           "patch_size": PATCH}}  # fmt: skip
    siglip = {
        "embed_dim": WIDTH,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {"image_size": SIZE, "timm_model_name": "vit_tiny_patch16_siglip",
                       "timm_pool": "map", "timm_proj": "none"},
        "text_cfg": text | {"no_causal_mask": True, "proj_bias": True, "pool_type": "last",
                            "norm_kwargs": {"eps": 1e-6}},
    }  # fmt: skip
    for name, config in (("tiny-clip", clip), ("tiny-siglip", siglip)):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(config))
        open_clip.add_model_config(path)
    yield


def _saved(kind: str, folder: Path, activation: str, **options: Any) -> Any:
    """A random model of `transformers` whose every tensor is random, saved as it saves them."""
    configs = {"clip": transformers.CLIPConfig, "siglip": transformers.SiglipConfig}
    models = {"clip": transformers.CLIPModel, "siglip": transformers.SiglipModel}
    act = {"hidden_act": activation}
    config = configs[kind](text_config=TEXT | act, vision_config=VISION | act)
    config.projection_dim = 32
    torch.manual_seed(3)
    model = models[kind](config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    model.save_pretrained(folder, **options)
    return model


def _embeddings(output: Any) -> torch.Tensor:
    return output if isinstance(output, torch.Tensor) else output.pooler_output


@pytest.mark.parametrize(
    ("kind", "activation"),
    [
        ("clip", "quick_gelu"),
        ("clip", "gelu"),
        ("siglip", "gelu_pytorch_tanh"),
        ("siglip", "gelu"),
    ],
)
def test_embeddings_are_those_of_transformers(kind: str, activation: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    theirs = _saved(kind, folder, activation)
    ours = load_model(ModelConfig(f"tiny-{kind}", str(folder)), CPU, torch.float32)
    images = torch.randn(2, 3, SIZE, SIZE)
    tokens = torch.randint(1, TOKENS - 2, (3, CONTEXT))
    tokens[:, -3] = TOKENS - 1  # the end of the text, which CLIP reads
    with torch.no_grad():
        for found, expected in (
            (ours.encode_image(images), theirs.get_image_features(pixel_values=images)),
            (ours.encode_text(tokens), theirs.get_text_features(input_ids=tokens)),
        ):
            torch.testing.assert_close(found, _embeddings(expected), atol=1e-5, rtol=1e-5)


def test_weights_in_several_parts_are_one_model(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    _saved("clip", whole, "quick_gelu")
    _saved("clip", parts, "quick_gelu", max_shard_size="1MB")
    assert (parts / "model.safetensors.index.json").is_file()
    one, other = (
        load_model(ModelConfig("tiny-clip", str(folder)), CPU, torch.float32).state_dict()
        for folder in (whole, parts)
    )
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_another_models_folder_says_which_names_fit(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    _saved("clip", folder, "gelu")
    with pytest.raises(ModelError, match=r"is not ViT-S-32 .*that fit its sizes: tiny-clip$"):
        load_model(ModelConfig("ViT-S-32", str(folder)), CPU, torch.float32)


@pytest.mark.parametrize(
    ("section", "changes", "says"),
    [
        (
            "vision_config",
            {"num_attention_heads": 4},
            "4 heads, and open_clip's has 2",
        ),
        ("text_config", {"layer_norm_eps": 1e-3}, "text_config: layer_norm_eps 0.001"),
        ("text_config", {"eos_token_id": 7}, "eos_token_id 7, and open_clip reads a text at"),
        (
            "text_config",
            {"hidden_act": "relu"},
            "hidden_act gelu, relu: open_clip has no such",
        ),
    ],
)
def test_what_no_shape_tells_is_compared(
    section: str, changes: dict[str, Any], says: str, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    _saved("clip", folder, "gelu")
    config = json.loads((folder / "config.json").read_text())
    config[section] |= changes
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=says):
        load_model(ModelConfig("tiny-clip", str(folder)), CPU, torch.float32)


def test_other_tokens_are_refused_and_the_same_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    _saved("clip", folder, "gelu")
    config = ModelConfig("tiny-clip", str(folder))
    renamed = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    tokens = {renamed.get(k, k): v for k, v in open_clip.get_tokenizer("tiny-clip").encoder.items()}
    (folder / "vocab.json").write_text(json.dumps(tokens))
    load_model(config, CPU, torch.float32)
    tokens["cat</w>"], tokens["dog</w>"] = tokens["dog</w>"], tokens["cat</w>"]
    (folder / "vocab.json").write_text(json.dumps(tokens))
    with pytest.raises(ModelError, match="not those of open_clip's tokenizer"):
        load_model(config, CPU, torch.float32)


def test_a_file_of_such_a_folder_asks_for_the_folder(tmp_path: Path) -> None:
    _saved("clip", tmp_path / "model", "gelu")
    file = tmp_path / "model" / "model.safetensors"
    with pytest.raises(ModelError, match="names of transformers: give the folder"):
        load_model(ModelConfig("tiny-clip", str(file)), CPU, torch.float32)


def test_a_folder_of_anything_else_says_what_to_give(tmp_path: Path) -> None:
    config = ModelConfig("tiny-clip", str(tmp_path))
    for content, says in (
        (None, "it has no config.json that says so"),
        ({"model_type": "blip"}, "its config.json is of 'blip'"),
    ):
        if content is not None:
            (tmp_path / "config.json").write_text(json.dumps(content))
        with pytest.raises(ModelError, match=says):
            load_model(config, CPU, torch.float32)
    (tmp_path / "open_clip_config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"give --model.name local-dir:"):
        load_model(config, CPU, torch.float32)


def test_a_folder_counts_by_its_contents(tmp_path: Path) -> None:
    _saved("clip", tmp_path / "one", "gelu")
    first = ModelConfig("tiny-clip", str(tmp_path / "one"))
    identity = first.identity()
    (tmp_path / "one").rename(tmp_path / "other")
    moved = replace(first, pretrained=str(tmp_path / "other"))
    assert moved.identity() == identity
    weights = load_file(tmp_path / "other" / "model.safetensors")
    weights["logit_scale"] += 1
    save_file(weights, tmp_path / "other" / "model.safetensors")
    assert moved.identity() != identity
