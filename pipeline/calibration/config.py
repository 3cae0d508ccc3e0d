"""What a calibration can be told; the text under a field is its help text."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline import storage
from pipeline.config.unused import refuse_given
from pipeline.errors import ConfigError


@dataclass(frozen=True)
class CalibrateConfig:
    """Levels, thresholds and probabilities of a run, from images whose contents are known."""

    predictions: str = ""
    """Output of an annotation run that has looked for more than what is there:
    --prompts.source vocabulary --prompts.presence -1, with --prompts.top_k for all classes."""
    output: str = ""
    """Folder for classes.yaml, calibration.json and calibration.md with its curves."""
    classes: str = ""
    """The class file that the run was made with, if any; ids and prompts are taken over."""
    coco: str = ""
    """What is there, and where: COCO ground truth, a .json."""
    masks: str = ""
    """What is there, and where: a folder of class-index PNGs, KEY.png, with ids of --classes."""
    points: str = ""
    """What is there, and a little of where: points in the CSV layout of OpenImages, with
    --descriptions. A class without a yes point in an image counts as absent."""
    descriptions: str = ""
    """With --points: a CSV with LabelName and DisplayName."""
    input: list[str] | str = ""
    """What is there: the run's own shards, whose samples list their classes in the .json. A class
    that is not in the list counts as absent."""
    input_root: str = ""
    """With --input: that of the run."""
    field: str = "labels"
    """With --input: the json field with the list."""
    precision: float = 0.98
    """Part of the pairs above a level that is to be there, at least."""
    confidence: float = 0.9
    """How sure the run's level has to be of that."""
    shrink: float = 50.0
    """Pairs of a class from which on it counts more than the whole run about its own level and
    threshold."""
    thresholds: bool = True
    """Write thresholds of classes, where they prove better than one for all."""
    folds: int = 5
    """Parts that the images are cut into; each is judged by what the others gave."""
    seed: int = 0
    """Of the cut."""

    def __post_init__(self) -> None:
        if not self.predictions or not self.output:
            raise ConfigError("--predictions and --output are needed: an annotation run, a folder")
        truths = [self.coco, self.masks, self.points, self.input]
        if sum(map(bool, truths)) != 1:
            raise ConfigError("give one of --coco, --masks, --points and --input: what is there")
        if bool(self.points) != bool(self.descriptions):
            raise ConfigError("--points and --descriptions go together")
        if not self.input:
            refuse_given(self, ["field", "input_root"], "without --input")
        if self.masks and not self.classes:
            raise ConfigError("--masks needs --classes, which says what the ids are")
        for name in ("precision", "confidence"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"--{name} {getattr(self, name)}: must lie between 0 and 1")
        if not self.shrink >= 0:
            raise ConfigError(f"--shrink {self.shrink}: must not be negative")
        if self.folds < 2:
            raise ConfigError(f"--folds {self.folds}: must be at least 2")
        if storage.normalise(self.predictions) == storage.normalise(self.output):
            raise ConfigError(
                f"--output {self.output}: is --predictions itself; name another place"
            )
