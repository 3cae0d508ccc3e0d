"""Loading a supervised classifier: a vision transformer of timm, called timm/NAME."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import load_state_dict
from torch import nn

from pipeline import storage
from pipeline.config import ModelConfig
from pipeline.config.weights import CLASSIFIERS
from pipeline.errors import ModelError
from pipeline.models.checkpoints import check_file
from pipeline.models.clip import downloaded, loading, near_models

OWN = "timm"
"""`--model.pretrained` for the weights that timm lists under the name."""
SOURCES = f"{OWN}, random, a file or an s3://, gs:// or http(s):// URI"


def is_classifier(name: str) -> bool:
    """Whether a model name is that of a timm classifier."""
    return name.startswith(CLASSIFIERS)


def load_classifier(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """A timm model with a linear head, on `device` in evaluation mode.

    Its `pretrained_cfg` has the mean, deviation and size that its weights were made with. Random
    weights are the same in every process.

    Raises:
        ModelError: with the cause, in one line.
    """
    name = _name_in_timm(config.name)
    weights = _file(config)
    settings: dict[str, Any] = {"pretrained": config.pretrained != "random"}
    if config.image_size is not None:
        settings["img_size"] = config.image_size
    with loading(config, "timm", weights):
        if weights is not None:
            check_file(weights)
            settings |= _of_file(weights)
        model: nn.Module = timm.create_model(name, **settings)
    class_layer(model, config.name)
    return model.eval().requires_grad_(False).to(device=device, dtype=dtype)


def classifier_skeleton(name: str) -> nn.Module:
    """A timm model without weights, to look at: its parameters take no memory.

    Raises:
        ModelError: timm has no such model.
    """
    with torch.device("meta"):
        model: nn.Module = timm.create_model(_name_in_timm(name))
    return model


def _name_in_timm(name: str) -> str:
    found = name.removeprefix(CLASSIFIERS)
    if not timm.is_model(found):
        hint = near_models(found, timm.list_models())
        raise ModelError(f"--model.name {name}: timm has no such model{hint}")
    return found


def class_layer(model: Any, name: str) -> nn.Linear:
    """The layer whose rows are the classes of a timm model.

    Raises:
        ModelError: it has no such layer.
    """
    layer = model.get_classifier()
    if not isinstance(layer, nn.Linear):
        raise ModelError(f"--model.name {name}: these weights have no linear classifier")
    return layer


def _file(config: ModelConfig) -> Path | None:
    """Where the weights are, unless timm has them, or there are none."""
    if config.pretrained in (OWN, "random"):
        return None
    if storage.is_uri(config.pretrained):
        return downloaded(config.pretrained)
    path = Path(config.pretrained)
    if not path.is_file():
        raise ModelError(
            f"--model.pretrained {config.pretrained}: not a file; for {config.name} give {SOURCES}"
        )
    return path


def _of_file(path: Path) -> dict[str, Any]:
    """Arguments of `timm.create_model` for weights in a file, with as many classes as they have."""
    weights = load_state_dict(str(path), weights_only=True)
    if "head.weight" not in weights:
        raise ValueError("the file has no head.weight, the rows of the classes")
    classes = len(weights["head.weight"])
    source = {"state_dict": weights, "num_classes": classes, "custom_load": False}
    return {"pretrained_cfg_overlay": source, "num_classes": classes}
