"""Files that are no weights as they are wanted: what is said, and that nothing is unpickled."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import tarfile
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.push_to_hf_hub import save_for_hf
from safetensors.torch import load_file
from torch import nn

from legrad.towers.open import open_tower
from pipeline.config import DEMO_MODEL, ModelConfig, RunConfig
from pipeline.errors import ConfigError, ModelError
from pipeline.models.classifier import load_classifier
from pipeline.models.clip import load_model
from pipeline.models.demo import CONFIG, WEIGHTS
from pipeline.models.loading import LoadedClip

CPU = torch.device("cpu")


class Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def _state() -> dict[str, torch.Tensor]:
    return load_file(WEIGHTS)


def _gzip(path: Path) -> None:
    path.write_bytes(gzip.compress(WEIGHTS.read_bytes()[:1000]))


def _tar(path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        tar.add(WEIGHTS)


def _script(path: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), path)


def _namespace(path: Path) -> None:
    torch.save({"args": argparse.Namespace(lr=1), "state_dict": _state()}, path)


def _lightning(path: Path) -> None:
    weights = {f"model.{name}": tensor for name, tensor in _state().items()}
    content = {"pytorch-lightning_version": "2.5", "epoch": 3, "state_dict": weights}
    torch.save(content | {"callbacks": {}, "hyper_parameters": {"lr": 0.1}}, path)


def _touching(path: Path) -> None:
    torch.save({"state_dict": _state(), "x": Touch(path.parent / "touched")}, path)


FILES = [
    ("w.pt.gz", _gzip, r"compressed \(gzip\): unpack it first"),
    ("w.pt", _tar, "a tar archive: unpack it"),
    ("w.pt", lambda p: p.write_text("\n<!DOCTYPE html><html>"), "a web page, not weights"),
    ("w.safetensors", lambda p: p.write_text("<html><body>"), "a web page, not weights"),
    ("w.pt", lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\n"), "Git LFS"),
    ("w-00001-of-00003.safetensors", lambda p: p.write_bytes(WEIGHTS.read_bytes()),
     "part 1 of 3: give one file"),
    ("w.safetensors.index.json", lambda p: p.write_text("{}"), "a list of parts: give its folder"),
    ("w.pt", lambda p: p.write_bytes(b"\x93 nothing known"), "neither safetensors nor"),
]  # fmt: skip
PICKLED = [
    ("w.pt", _script, r"a TorchScript archive, a program.*torch\.jit\.load\('w\.pt'"),
    ("w.pt", _namespace, r"Python objects \(argparse\.Namespace\).*weights_only=False\)\['state_d"),
    ("w.ckpt", _touching, r"Python objects \(\w+\.mkdir\) beside its tensors, and nothing is unpi"),
]


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
@pytest.mark.parametrize("name", [DEMO_MODEL, "timm/vit_tiny_patch16_224"])
@pytest.mark.parametrize(("file", "write", "says"), FILES + PICKLED)
def test_what_is_no_weights_is_said_in_a_line(
    name: str, file: str, write: Any, says: str, tmp_path: Path
) -> None:
    path = tmp_path / file
    write(path)
    if name.startswith("timm/") and write is _namespace:
        says = "has no head.weight"  # timm knows this one class of Python objects, and reads it
    config = ModelConfig(name, str(path))
    load = load_classifier if name.startswith("timm/") else load_model
    with pytest.raises(ModelError, match=f"--model.pretrained .*{file}: does .*{says}") as e:
        load(config, CPU, torch.float32)
    message = str(e.value)
    assert "\n" not in message and "\x1b" not in message and "two options" not in message
    assert not (tmp_path / "touched").exists()


def test_a_checkpoint_of_lightning_says_how_to_take_its_prefix_off(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    _lightning(path)
    with pytest.raises(ModelError, match=r"begin with model\., as a training loop") as error:
        load_model(ModelConfig(DEMO_MODEL, str(path)), CPU, torch.float32)
    # What it says, done.
    advice = re.search(r"torch\.save\((\{.*\}), 'weights\.pt'\)", str(error.value))
    content = torch.load(path, weights_only=True)["state_dict"]
    torch.save(eval(advice[1], {"state_dict": content}), tmp_path / "weights.pt")
    load_model(ModelConfig(DEMO_MODEL, str(tmp_path / "weights.pt")), CPU, torch.float32)


def test_a_checkpoint_of_open_clips_training_loads(tmp_path: Path) -> None:
    path = tmp_path / "epoch_1.pt"
    weights = {f"module.{name}": tensor for name, tensor in _state().items()}
    torch.save({"epoch": 1, "name": "run", "state_dict": weights, "optimizer": {}}, path)
    load_model(ModelConfig(DEMO_MODEL, str(path)), CPU, torch.float32)


def _saved(folder: Path) -> None:
    """The demo's CLIP, as open_clip saves a model for the hub; its tokenizer is open_clip's own."""
    model = load_model(ModelConfig(), CPU, torch.float32)
    model.visual.preprocess_cfg |= {"interpolation": "bilinear", "resize_mode": "squash"}
    model.visual.image_mean = (0.5, 0.4, 0.3)

    class Nothing:
        def save_pretrained(self, _: object) -> None: ...

    save_for_hf(model, Nothing(), json.loads(CONFIG.read_text()), folder, safe_serialization=True)


def test_a_folder_of_open_clip_is_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _saved(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    relative = ModelConfig("local-dir:model")
    config = relative.absolute()
    assert config.name == f"local-dir:{tmp_path}/model"
    loaded, demo = LoadedClip(RunConfig(model=config)), LoadedClip(RunConfig())
    assert torch.equal(loaded.caption("a cat"), demo.caption("a cat"))
    pixels = torch.randint(0, 256, (1, 3, 96, 96), dtype=torch.uint8)
    mean, std = loaded._preprocess.mean, loaded._preprocess.std
    assert mean.flatten().tolist() == pytest.approx([0.5, 0.4, 0.3])
    torch.testing.assert_close(loaded.images(pixels)[0], (pixels[0] / 255 - mean) / std)
    assert loaded._preprocess.interpolation.value == "bilinear"
    assert len(open_tower(loaded.model).blocks) == loaded.depth

    identity = relative.identity()
    assert identity == config.identity()
    (tmp_path / "model").rename(tmp_path / "moved")
    moved = ModelConfig(f"local-dir:{tmp_path}/moved")
    assert moved.identity() == identity
    file = tmp_path / "moved" / "open_clip_config.json"
    file.write_text(file.read_text().replace("0.4", "0.45"))
    assert moved.identity() != identity

    given = ModelConfig(moved.name, mean=[0.1, 0.2, 0.3])
    assert LoadedClip(RunConfig(model=given))._preprocess.mean.flatten().tolist() == pytest.approx(
        [0.1, 0.2, 0.3]
    )


def test_a_folder_without_weights_is_not_taken_for_random_ones(tmp_path: Path) -> None:
    _saved(tmp_path / "model")
    (tmp_path / "model" / "open_clip_model.safetensors").unlink()
    config = ModelConfig(f"local-dir:{tmp_path}/model")
    with pytest.raises(ModelError, match=f"^--model.name {config.name}: does not load: .*weights"):
        load_model(config, CPU, torch.float32)
    load_model(ModelConfig(config.name, "random"), CPU, torch.float32)
    with pytest.raises(ConfigError, match=r"--model.name local-dir:/nowhere: not usable"):
        ModelConfig("local-dir:/nowhere").identity()
    with pytest.raises(ModelError, match=f"for a folder of open_clip, give local-dir:{tmp_path}"):
        load_model(ModelConfig(str(tmp_path), "random"), CPU, torch.float32)


def test_what_was_settled_is_what_the_model_has(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(WEIGHTS.read_bytes())
    config = {"model_cfg": {"quick_gelu": True}, "preprocess_cfg": {"mean": [0.3, 0.2, 0.1]}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    beside = LoadedClip(RunConfig(model=ModelConfig(DEMO_MODEL, str(path))))
    assert beside._preprocess.mean.flatten().tolist() == pytest.approx([0.3, 0.2, 0.1])
    quick = open_clip.transformer.QuickGELU
    assert any(isinstance(module, quick) for module in beside.model.modules())
    settings = ModelConfig(DEMO_MODEL, str(path), quick_gelu=False, interpolation="bilinear")
    given = LoadedClip(RunConfig(model=settings))
    assert not any(isinstance(module, quick) for module in given.model.modules())
    assert given._preprocess.interpolation.value == "bilinear"
