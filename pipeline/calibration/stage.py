"""A calibration, from its settings to its files."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline import storage
from pipeline.calibration import write
from pipeline.calibration.config import CalibrateConfig
from pipeline.calibration.found import cross_validate, find
from pipeline.calibration.sample import read_sample
from pipeline.calibration.truth import find_truth
from pipeline.errors import ConfigError, naming
from pipeline.inputs.classes import Category, load_classes
from pipeline.inputs.naming import Naming
from pipeline.outputs.predictions import Predictions
from pipeline.storage import digests


def calibrate(config: CalibrateConfig) -> tuple[dict[str, Any], list[str]]:
    """Choose levels, thresholds and a curve, judge them on images left out, write all down.

    Returns:
        What calibration.json says, and the same for people, a line each.

    Raises:
        ConfigError: a setting cannot work, the sample does not do, or a file cannot be read or
            written.
    """
    _check_output(config)
    predictions = Predictions(config.predictions)
    categories = _categories(config, predictions)
    sample = read_sample(config, predictions, find_truth(config, Naming.of(predictions.identity)))
    judged = cross_validate(config, sample)
    found = find(config, sample, np.ones(sample.images, dtype=bool))
    numbers = write.numbers_of(config, predictions.identity, sample, found, judged)
    lines = write.summary(sample, numbers)
    entries = numbers["classes"]
    levels = {name: (entry["presence"], entry["precision"]) for name, entry in entries.items()}
    thresholds = {
        name: entry["threshold"]
        for name, entry in entries.items()
        if entry["threshold"] is not None
    }
    with naming(f"--output {storage.public(config.output)}"):
        write.write_classes(config.output, categories, levels, thresholds, config.classes)
        write.write_numbers(config.output, numbers)
        write.write_page(config.output, sample, judged, numbers, lines)
    return numbers, lines


def _check_output(config: CalibrateConfig) -> None:
    """Refuse to write the class file over the one that is given."""
    written = storage.join(config.output, write.CLASSES)
    if config.classes and storage.normalise(config.classes) == storage.normalise(written):
        raise ConfigError(
            f"--output {storage.public(config.output)}: its {write.CLASSES} would take the place "
            "of --classes, which later runs of the same settings need; name another folder"
        )


def _categories(config: CalibrateConfig, predictions: Predictions) -> list[Category]:
    """The classes of the class file that is to be written.

    Raises:
        ConfigError: --classes is not the file that the run was made with, or is needed.
    """
    made_with = predictions.identity["prompts"]["classes"]
    if not config.classes:
        if made_with:
            raise ConfigError(
                f"{predictions}: was made with a class file; give it as --classes, for its prompts"
            )
        known = sorted(predictions.categories.items(), key=lambda item: item[1])
        return [Category(number, name, (name,), None) for number, name in known]
    shown = f"--classes {storage.public(config.classes)}"
    with naming(shown):
        if made_with and digests.of_bytes(storage.read_bytes(config.classes)) != made_with:
            raise ConfigError(f"{shown}: is not the class file that {predictions} was made with")
        return load_classes(config.classes, "--classes")
