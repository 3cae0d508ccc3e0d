"""How maps are made; the text under a field is its help text."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import legrad
from legrad.explainer import checked_part
from pipeline.config.identity import identity_of, since
from pipeline.config.views import ONE_VIEW, ViewsConfig
from pipeline.errors import ConfigError

BACKGROUND = "background"
"""The option that says which other texts a method contrasts a text with."""
NO_TEXTS = ("null", "none", "auto")
"""Words that --empty_text does not take for a text, however they are spelled."""


@dataclass(frozen=True, kw_only=True)  # so that they come last in --help
class MethodConfig:
    """How maps are made."""

    method: str = "legrad"
    """Explainability method (a name in legrad.METHODS)."""
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Options of the method, as docs/methods.md lists them: '{relu: false}'. Where one takes texts,
    say imagenet (its 1000 classes), a class file, or a list of names."""
    layers: int | float | list[int] | None = None
    """Blocks to explain: null for the method's own choice (LeGrad: all), k for the last k, a part
    below 1 for that part of them (0.67: the last two thirds), or a list of 0-based indices."""
    algorithm: Literal["closed_form", "autograd"] = "closed_form"
    """closed_form: LeGrad without autograd; autograd: its slow, literal definition."""
    empty_text: str = "auto"
    """A text without content; what it finds too is taken out of every map. auto: "a photo of a"
    for LeGrad on SigLIP, as its authors do, and none for all else; '' for none."""
    empty_threshold: float = 0.8
    """Level of that text's map, 0 to 1 over each image, above which a cell is taken out."""
    views: ViewsConfig = since(default=ONE_VIEW, before=ONE_VIEW)

    NO_RESULT: ClassVar[tuple[str, ...]] = ()
    """Settings that change nothing in what is written."""

    def __post_init__(self) -> None:
        try:
            legrad.check_options(self.method, {})
        except ValueError as error:
            raise ConfigError(f"--method {self.method}: {error}") from error
        try:
            legrad.check_options(self.method, self._plain_options())
        except ValueError as error:
            raise ConfigError(f"--options: {error}") from error
        if isinstance(self.layers, float):
            try:
                checked_part(self.layers)
            except ValueError as error:
                raise ConfigError("--" + str(error).replace("=", " ", 1)) from error
        if self.empty_text != "auto" and str(self.empty_text).lower() in NO_TEXTS:
            raise ConfigError(
                f"--empty_text {self.empty_text}: give auto, '' for none, or a text to look for"
            )
        if not 0 <= self.empty_threshold <= 1:
            raise ConfigError(f"--empty_threshold {self.empty_threshold}: must lie in 0 to 1")

    def identity(self) -> dict[str, Any]:
        """The settings that change results, as JSON values.

        All but `NO_RESULT`, and but those that came later and stand at what was done without them
        (`pipeline.config.identity.since`).
        """
        identity = identity_of(self, self.NO_RESULT)
        identity["options"] |= legrad.check_options(self.method, self._plain_options())
        return identity

    @property
    def class_file(self) -> str:
        """Class file whose names texts are contrasted with where no option says which."""
        return ""

    def text_options(self) -> set[str]:
        """Which options `legrad` takes as tensors of text embeddings; here, they are names."""
        known = legrad.options_of(self.method)
        return {name for name in self.options if name in known and known[name] is None}

    def _plain_options(self) -> dict[str, Any]:
        texts = self.text_options()
        return {name: value for name, value in self.options.items() if name not in texts}
