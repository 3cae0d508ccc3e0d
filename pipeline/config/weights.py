"""What belongs to weights themselves: how pixels are resized and normalised, and an activation.

Weights that come as a file do not say it themselves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import open_clip
import timm
from open_clip.transform import PreprocessCfg, merge_preprocess_dict

from pipeline import storage
from pipeline.config.beside import Values, found_beside, plain

CLASSIFIERS = "timm/"
"""How the names of classifiers begin; see `pipeline.models.classifier`."""
IMAGEBIND = "imagebind_"
"""How the names of models begin that hear; see `pipeline.models.imagebind`."""
LICENCE = (
    "The weights of ImageBind are under CC-BY-NC-SA 4.0: not for commercial use, and what is made "
    "of them is passed on under the same licence."
)
HUB, FOLDER = "hf-hub:", "local-dir:"
"""How names begin that say where open_clip finds a model's configuration and weights."""


@dataclass(frozen=True)
class WeightSettings:
    """What is done with pixels, and inside of MLPs, for some weights.

    Attributes:
        values: mean, std, interpolation, resize_mode, fill_color and quick_gelu; of a model that
            brings its own, those only that the settings change.
        before: what would be done if nobody looked beyond the name and the tag.
        sources: where each value is from.
        lines: what to say of it in a log, a licence too; none where the tag says all.
    """

    values: Values
    before: Values
    sources: dict[str, str]
    lines: tuple[str, ...] = ()

    @property
    def changed(self) -> Values:
        """The values that differ from those before: all that a run's identity needs of them."""
        return {key: value for key, value in self.values.items() if self.before.get(key) != value}


def settle(name: str, pretrained: str, given: Mapping[str, Any]) -> WeightSettings:
    """What belongs to some weights: as given, as said beside the file, or as all tags agree.

    Args:
        name: of the model.
        pretrained: a tag, a file, a folder, a URI, random or demo.
        given: settings that somebody wrote down; they come first.

    Raises:
        ConfigError: a file beside the weights makes no sense.
        OSError: it cannot be read.
    """
    given, said = dict(given), dict.fromkeys(given, "the settings")
    if name.startswith(CLASSIFIERS):
        return WeightSettings(given, _of_classifier(name), said)
    if name.startswith((HUB, FOLDER)):  # open_clip reads their own file, which has it all
        return WeightSettings(given, {}, said)
    before = open_clips_own(name, pretrained)
    sources = dict.fromkeys(before, "open_clip's defaults")
    if tag := open_clip.get_pretrained_cfg(name, pretrained):
        sources |= dict.fromkeys(before, f"the tag {pretrained}") | said
        values = before | given
        warning = _wrong_activation(name, pretrained, tag, values)
        return WeightSettings(values, before, sources, (warning,) if warning else ())
    if pretrained in ("random", "demo"):
        return WeightSettings(before | given, before, sources | said)
    agreed, differing = of_tags(name)
    found, beside = found_beside(pretrained)
    values = before | agreed | found | given
    sources |= dict.fromkeys(agreed, f"the tags of {name}") | beside | said
    guessed = [key for key in differing if key not in found and key not in given]
    lines = [_described(pretrained, values, sources)]
    if terms := licence(name, pretrained):
        lines.append(terms)
    if guessed:
        lines.append(_guess(name, pretrained, guessed, values))
    return WeightSettings(values, before, sources, tuple(lines))


def licence(name: str, pretrained: str) -> str:
    """What the licence of some weights says of what is made with them; empty where it says nothing.

    Args:
        name: of the model.
        pretrained: its weights, as `settle` has them.
    """
    return LICENCE if name.startswith(IMAGEBIND) and pretrained != "random" else ""


def open_clips_own(name: str, pretrained: str) -> Values:
    """What `open_clip.create_model` does by itself: what a tag says, or else CLIP's values."""
    tag = open_clip.get_pretrained_cfg(name, pretrained)
    settings = merge_preprocess_dict(asdict(PreprocessCfg()), tag)
    activation = (open_clip.get_model_config(name) or {}).get("quick_gelu", False)
    return plain(settings) | {"quick_gelu": activation}


def _of_classifier(name: str) -> Values:
    """What timm says of the name; the interpolation is that of `Preprocess.of_classifier`."""
    known = timm.get_pretrained_cfg(name.removeprefix(CLASSIFIERS))
    own = {} if known is None else {"mean": list(known.mean), "std": list(known.std)}
    return own | {"interpolation": "bilinear"}


def of_tags(name: str) -> tuple[Values, dict[str, set[str]]]:
    """What all tags of a name say; and of what they do not agree on, the tags of each value."""
    agreed: Values = {}
    differing: dict[str, set[str]] = {}
    tags = [
        open_clip.get_pretrained_cfg(name, t) for t in open_clip.list_pretrained_tags_by_model(name)
    ]
    every = [plain(merge_preprocess_dict(PreprocessCfg(), tag)) for tag in tags]
    for key in every[0] if every else ():
        kinds = {json.dumps(one[key]) for one in every}
        if len(kinds) == 1:
            agreed[key] = every[0][key]
        else:
            differing[key] = kinds
    quick = {bool(tag.get("quick_gelu")) for tag in tags}
    if quick == {True}:  # that a tag does not say so need not mean anything
        agreed["quick_gelu"] = True
    elif len(quick) == 2:
        differing["quick_gelu"] = {"true", "false"}
    return agreed, differing


def _wrong_activation(name: str, tag: str, own: Mapping[str, Any], values: Values) -> str:
    if not own.get("quick_gelu") or values["quick_gelu"]:
        return ""
    return (
        f"WARNING: --model.name {name} --model.pretrained {tag}: these weights were trained with "
        f"QuickGELU, and {name} has GELU; give --model.name {name}-quickgelu"
    )


def _guess(name: str, pretrained: str, guessed: list[str], values: Values) -> str:
    taken = ", ".join(f"{key} {json.dumps(values[key])}" for key in guessed)
    flags = ", ".join(f"--model.{key}" for key in guessed)
    return (
        f"WARNING: --model.pretrained {storage.public(pretrained)}: weights of {name} differ in "
        f"{', '.join(guessed)}, and nothing beside the file says which these are; taken: {taken}. "
        f"Give {flags}, or open_clip_config.json beside the file"
    )


def _described(pretrained: str, values: Values, sources: Mapping[str, str]) -> str:
    """All values in a line, by where they are from."""
    parts = []
    for source in dict.fromkeys(sources.values()):
        of_it = [f"{k} {json.dumps(values[k])}" for k, from_ in sources.items() if from_ == source]
        parts.append(f"{', '.join(of_it)} (from {source})")
    return f"weights {storage.public(pretrained)}: {'; '.join(parts)}"
