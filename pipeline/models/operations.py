"""How many floating-point operations the matrix products of a tower are. A multiply-add is two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from open_clip.model import CLIPVisionCfg


@dataclass(frozen=True)
class Shape:
    """The sizes of a CLS tower that its arithmetic depends on, for one image of its own size."""

    width: int
    hidden: int
    layers: int
    patch: int
    image: int

    @classmethod
    def of(cls, config: dict[str, Any]) -> Shape:
        """From an open_clip model config."""
        vision = CLIPVisionCfg(**config["vision_cfg"])
        assert isinstance(vision.layers, int) and isinstance(vision.image_size, int)
        hidden = int(vision.width * vision.mlp_ratio)
        return cls(vision.width, hidden, vision.layers, vision.patch_size, vision.image_size)

    @property
    def tokens(self) -> int:
        """CLS and the patches."""
        return self._patches + 1

    @property
    def _patches(self) -> int:
        return (self.image // self.patch) ** 2

    def forward(self) -> int:
        """The bare forward pass."""
        n, d, m = self.tokens, self.width, self.hidden
        layer = n * (8 * d * d + 4 * d * m) + 4 * n * n * d
        return 2 * self._patches * 3 * self.patch**2 * d + self.layers * layer

    def closed_form(self, prompts: int) -> int:
        """LeGrad over all layers, as `legrad.engines.folded` has it: one forward pass for all."""
        n, d, m = self.tokens, self.width, self.hidden
        shared = 2 * n * d * d  # (λ1 ⊙ ĥ) W_o
        each = 2 * n * m * d + 2 * n * n * d  # by F, then with V
        return self.forward() + self.layers * (shared + prompts * each)

    def published(self, prompts: int) -> int:
        """LeGrad over all layers by the authors' package.

        Every prompt has a forward pass, and in each block a backward pass through the MLP and the
        output projection to the attention.
        """
        n, d, m = self.tokens, self.width, self.hidden
        backward = n * (4 * d * m + 2 * d * d) + 2 * n * n * d
        return prompts * (self.forward() + self.layers * backward)
