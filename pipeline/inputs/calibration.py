"""What jobs/calibrate.py found: how likely it is at a score that the thing is there."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline import storage
from pipeline.errors import ConfigError, one_line

FLAG = "--prompts.calibration"
FORMAT = 2
"""Of calibration.json."""
OF_PIXELS = ("mean", "std", "interpolation", "quick_gelu")
"""Settings of the weights that a score depends on; images become squares in one way only."""
OF_NAMES = ("labels", "cls", "vocabulary")
"""Sources of prompts that are class names in templates."""


@dataclass(frozen=True)
class Calibration:
    """Probability of presence by score: 1 / (1 + exp(−(slope · score + intercept)))."""

    slope: float
    intercept: float

    def probability(self, score: float) -> float:
        """That what has this score is there, 0..1; NaN of no number."""
        logit = self.slope * score + self.intercept
        if logit >= 0:
            return 1 / (1 + math.exp(-logit))
        odds = math.exp(logit)  # for large negative logits exp(−logit) is no float
        return odds / (1 + odds)


def made_for(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a run's identity that its scores depend on more than a little.

    Number format, and what maps alone depend on, are no part of it. Nor is the class file: a
    calibration serves classes that it has not seen, and a class file that levels were written to.
    Shifts and flips leave the score alone, which is of the plain view; before a larger scale, that
    too is made of an image that has been resized.
    """
    model, prompts = identity["model"], identity["prompts"]
    source = prompts["source"]
    return {
        "model": model["name"],
        "pretrained": model["pretrained"],
        "image_size": model.get("image_size"),
        "weight_settings": {name: model[name] for name in OF_PIXELS if name in model},
        "largest_scale": max(identity.get("views", {}).get("scales", [1.0])),
        "source": "names" if source in OF_NAMES else source,
        "templates": prompts["templates"],
    }


def load_calibration(location: str, identity: Mapping[str, Any]) -> Calibration | None:
    """The calibration in a file; None where none is named.

    Args:
        location: of calibration.json; may be empty.
        identity: of the run that it is for.

    Raises:
        ConfigError: it is no such file, or was made of another model's scores.
        OSError: it cannot be read.
    """
    if not location:
        return None
    shown = f"{FLAG} {storage.public(location)}"
    try:
        content = json.loads(storage.read_bytes(location))
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}, and this release reads {FORMAT}")
        values = content["probability"]
        found = Calibration(float(values["slope"]), float(values["intercept"]))
        if not math.isfinite(found.slope) or not math.isfinite(found.intercept):
            raise ValueError("a slope or intercept that is no number")
        scores_of = content["made_for"]
        if not isinstance(scores_of, dict):
            raise ValueError("made_for is no object")
    except (ValueError, KeyError, TypeError) as error:
        cause = one_line(error, kind=True)
        raise ConfigError(f"{shown}: not what jobs/calibrate.py writes ({cause})") from error
    differing = [name for name, value in made_for(identity).items() if value != scores_of.get(name)]
    if differing:
        raise ConfigError(
            f"{shown}: was made for another {', another '.join(differing)}, whose scores mean "
            "something else; make one of a run with these settings"
        )
    return found
