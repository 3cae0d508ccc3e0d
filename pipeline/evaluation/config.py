"""What all evaluations can be told beside any run; the text under a field is its help text."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from pipeline import storage
from pipeline.config import DEFAULT_TEMPLATES, MethodConfig, RunConfig, check_templates
from pipeline.config.unused import refuse_given
from pipeline.errors import ConfigError, naming
from pipeline.evaluation.digests import digests_of
from pipeline.outputs.ledger import Ledger

Scoring = TypeVar("Scoring", bound="ScoringConfig")

SCORED_AS_WRITTEN = (
    "beside --predictions, whose masks are scored as they were written; leave it out, or give "
    "--input instead"
)


@dataclass(frozen=True)
class EvaluationConfig(RunConfig):
    """One evaluation: shards in, counts out, metrics from the sum of the counts."""

    templates: list[str] = field(default_factory=lambda: list(DEFAULT_TEMPLATES))
    """Sentences that a class name is put into; several are averaged as embeddings."""

    NO_RESULT: ClassVar[tuple[str, ...]] = (*RunConfig.NO_RESULT, "limit_shards")
    BY_CONTENTS: ClassVar[tuple[str, ...]] = ()
    """Settings that name files or folders: what these hold decides about counts, wherever it is."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_templates("--templates", self.templates)

    @property
    def name_templates(self) -> Sequence[str]:
        """Sentences that a class name is put into."""
        return self.templates

    def identity(self) -> dict[str, Any]:
        """The settings that decide about counts, as JSON values; files by their digests.

        Raises:
            ConfigError: a file or folder is not there.
        """
        settings = super().identity()
        others = {name: value for name, value in settings.items() if name not in self.BY_CONTENTS}
        return others | digests_of(self, *self.BY_CONTENTS)


@dataclass(frozen=True)
class ScoringConfig(EvaluationConfig):
    """An evaluation of the masks that a run has written, or of the maps of a method."""

    predictions: str = ""
    """Output of an annotation run: its masks are scored. Without it, the images of --input are
    explained by --method on --model (squashed to 448 x 448 for points, to 224 x 224 for
    segmentation, unless --model.image_size says)."""

    READ_BY_WORKERS: ClassVar[tuple[str, ...]] = (*EvaluationConfig.READ_BY_WORKERS, "predictions")
    # Of --predictions, what made them is in the identity.
    NO_RESULT: ClassVar[tuple[str, ...]] = (*EvaluationConfig.NO_RESULT, "predictions")
    IMAGE_SETTINGS: ClassVar[tuple[str, ...]] = (
        *("max_pixels", "max_sample_bytes", "key_end", "image_field"),
    )
    """Settings about reading images: of written masks, no count depends on them."""
    OF_INPUT: ClassVar[tuple[str, ...]] = ("input_root", "key_end", "image_field")
    """Settings that name what is in --input: beside --predictions they would be ignored."""
    MAP_SETTINGS: ClassVar[tuple[str, ...]] = (
        *(field.name for field in dataclasses.fields(MethodConfig)),
        *("model", "templates"),
    )
    """Settings that make maps: beside --predictions they would be ignored."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.predictions and self.output and _same(self.predictions, self.output):
            raise ConfigError(
                f"--output {self.output}: is --predictions itself; name another place"
            )

    def absolute(self: Scoring) -> Scoring:
        """The same settings with absolute paths; see `RunConfig.absolute`.

        Raises:
            ConfigError: as there, or settings have no effect.
        """
        if self.predictions:
            refuse_given(self, self.unused(), SCORED_AS_WRITTEN)
        return super().absolute()

    def unused(self) -> Sequence[str]:
        """Settings that would count for nothing beside --predictions."""
        return (*self.MAP_SETTINGS, *self.OF_INPUT)

    def identity(self) -> dict[str, Any]:
        """The settings that decide about counts; of written masks, those that made them.

        Raises:
            ConfigError: a file or folder is not there, or the predictions cannot be read.
        """
        settings = super().identity()
        if not self.predictions:
            return settings
        idle = {*self.MAP_SETTINGS, *self.IMAGE_SETTINGS}
        with naming(f"--predictions {storage.public(self.predictions)}"):
            made_with = Ledger(self.predictions).identity()
        own = {name: value for name, value in settings.items() if name not in idle}
        return own | {"predictions": made_with}


def _same(first: str, second: str) -> bool:
    return storage.normalise(first) == storage.normalise(second)
