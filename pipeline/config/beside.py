"""What lies beside weights and says what belongs to them: files of open_clip and Hugging Face."""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

from pipeline import storage
from pipeline.errors import ConfigError

INTERPOLATIONS = ("bicubic", "bilinear")
RESIZE_MODES = ("shortest", "longest", "squash")
OF_PILLOW = {2: "bilinear", 3: "bicubic"}
"""Numbers that `transformers` writes for an interpolation."""
OPEN_CLIP, PROCESSORS, TRANSFORMERS = (
    "open_clip_config.json",
    ("preprocessor_config.json", "processor_config.json"),
    "config.json",
)
CLIP, SIGLIP = "clip", "siglip"
"""What `transformers` calls the models that open_clip has, too."""
ACTIVATIONS = {CLIP: "quick_gelu", SIGLIP: "gelu_pytorch_tanh"}
"""The activation of a tower whose configuration names none."""

OF_PIXELS = ("mean", "std", "interpolation", "resize_mode", "fill_color")

Values = dict[str, Any]


def found_beside(pretrained: str) -> tuple[Values, dict[str, str]]:
    """What the files beside weights say of mean, std, interpolation, resize_mode and quick_gelu.

    Args:
        pretrained: a file, a URI, or a folder of `transformers`.

    Returns:
        The values, and the name of the file that each is from.

    Raises:
        ConfigError: such a file makes no sense.
        OSError: it cannot be read.
    """
    folder = folder_of(pretrained)
    values: Values = {}
    sources: dict[str, str] = {}
    readers: list[tuple[str, Callable[[Mapping[str, Any], str], Values]]] = [
        (OPEN_CLIP, _of_open_clip),
        *((name, _of_processor) for name in PROCESSORS),
        (TRANSFORMERS, _of_transformers),
    ]
    for name, read in readers:
        location = storage.join(folder, name)
        content = read_json(location)
        if content is None:
            continue
        said = {k: v for k, v in read(content, storage.public(location)).items() if k not in values}
        check(said, lambda key, at=location: f"{storage.public(at)}: {key}")  # type: ignore[misc]
        values |= said
        sources |= dict.fromkeys(said, name)
    return values, sources


def folder_of(pretrained: str) -> str:
    """The folder that weights are in, or that they are."""
    is_folder = not storage.is_uri(pretrained) and os.path.isdir(pretrained)
    return pretrained if is_folder else storage.split(pretrained)[0]


def read_json(location: str) -> Values | None:
    """The object in a JSON file that need not be there.

    Raises:
        ConfigError: it is no JSON object.
        OSError: it cannot be read.
    """
    data = _of_uri(location) if storage.is_uri(location) else _bytes(location)
    if data is None:
        return None
    try:
        content = json.loads(data)
        if isinstance(content, dict):
            return content
    except ValueError:
        pass
    if storage.is_http(location):  # there are servers that answer to any name with a page
        return None
    raise ConfigError(f"{storage.public(location)}: is not a JSON object; mend it or take it away")


def check(values: Mapping[str, Any], named: Callable[[str], str]) -> None:
    """See that values can be used.

    Args:
        values: by name.
        named: what to call a value in a message, by its name.

    Raises:
        ConfigError: naming the value.
    """
    for key, value in values.items():
        wanted = ""
        if key in ("mean", "std") and not _is_colour(value, positive=key == "std"):
            wanted = f"give three numbers{' above 0' if key == 'std' else ''}, for values in 0..1"
        elif key == "interpolation" and value not in INTERPOLATIONS:
            wanted = f"give one of {', '.join(INTERPOLATIONS)}"
        elif key == "resize_mode" and value not in RESIZE_MODES:
            wanted = f"give one of {', '.join(RESIZE_MODES)}"
        if wanted:
            raise ConfigError(f"{named(key)} {value}: {wanted}")


def _is_colour(value: Any, positive: bool) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 3
        and all(isinstance(one, int | float) and math.isfinite(one) for one in value)
        and not (positive and min(value) <= 0)
    )


def plain(settings: Mapping[str, Any]) -> Values:
    """Those of open_clip's values that are looked at here, as JSON has them."""
    values = {
        key: [float(one) for one in value] if _is_colour(value, positive=False) else value
        for key, value in settings.items()
        if key in ("mean", "std", "interpolation", "resize_mode", "fill_color")
        and value is not None
    }
    if values.get("interpolation") == "random":  # while training; bicubic at any other time
        values["interpolation"] = "bicubic"
    return values


def _of_open_clip(content: Mapping[str, Any], where: str) -> Values:
    values = plain(_section(content, "preprocess_cfg", where))
    if "model_cfg" in content:  # which names QuickGELU where it is one, and is silent otherwise
        model = _section(content, "model_cfg", where)
        values["quick_gelu"] = bool(model.get("quick_gelu", False))
    return values


def _of_processor(content: Mapping[str, Any], where: str) -> Values:
    """What an image processor of `transformers` does."""
    settings = _section(content, "image_processor", where) or content
    values: Values = {}
    if not settings.get("do_normalize", True):
        values |= {"mean": [0.0] * 3, "std": [1.0] * 3}
    elif "image_mean" in settings and "image_std" in settings:
        values |= {"mean": settings["image_mean"], "std": settings["image_std"]}
    if "resample" in settings:
        number = settings["resample"]
        if number not in OF_PILLOW:
            raise ConfigError(
                f"{where}: resample {number}: neither bilinear (2) nor bicubic (3); "
                "give --model.interpolation and take it out"
            )
        values["interpolation"] = OF_PILLOW[number]
    size = settings.get("size")
    if isinstance(size, int) or (isinstance(size, dict) and "shortest_edge" in size):
        values["resize_mode"] = "shortest"
    elif isinstance(size, dict) and "height" in size:
        values["resize_mode"] = "squash"
    return plain(values)


def _of_transformers(content: Mapping[str, Any], where: str) -> Values:
    """The activation of a CLIP or SigLIP of `transformers`; of anything else, nothing."""
    kind = content.get("model_type")
    if kind not in ACTIVATIONS:
        return {}
    tower = _section(content, "vision_config", where)
    return {"quick_gelu": tower.get("hidden_act", ACTIVATIONS[kind]) == "quick_gelu"}


def _section(content: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    section = content.get(key) or {}
    if not isinstance(section, dict):
        raise ConfigError(f"{where}: {key} is not an object; mend it or take it away")
    return section


@functools.lru_cache(maxsize=64)
def _of_uri(location: str) -> bytes | None:
    """Asked for once: a study of the layers asks for it in each of its evaluations."""
    return _bytes(location)


def _bytes(location: str) -> bytes | None:
    """A file that need not be there."""
    try:
        return storage.read_bytes(location)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        # Who may read weights need not be allowed to ask what lies beside them.
        if not storage.is_uri(location) or storage.is_transient(error):
            raise
        return None
