"""What was found in a sample, whoever found it."""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxtyping import UInt8
from torch import Tensor

from pipeline.inputs.prompts import Absent, Prompt
from pipeline.outputs.masks import Mask


@dataclass(frozen=True)
class Annotation:
    """What was found for one prompt in one image.

    Attributes:
        prompt: what was looked for.
        text: the text of the prompt that fits the image best, as it was encoded.
        score: cosine of the image's embedding with that of `text`.
        raw_min: lowest value of the raw map.
        raw_max: highest value of the raw map, in units of the method: no sign of presence.
        heat: the min-max-normalised patch grid in 0..255.
        mask: the foreground; None where there is none to write.
        dropped: why there is none.
    """

    prompt: Prompt
    text: str
    score: float
    raw_min: float
    raw_max: float
    heat: UInt8[Tensor, "rows columns"]
    mask: Mask | None
    dropped: str | None


@dataclass(frozen=True)
class Annotated:
    """The annotations of one sample.

    Attributes:
        annotations: one per prompt that is present, in their order.
        cut: prompts that were longer than the model's context.
        degraded: the batch had to be made smaller for want of memory, so that another run may give
            other last digits.
        absent: prompts whose score is too low, in their order.
    """

    annotations: list[Annotation]
    cut: int = 0
    degraded: bool = False
    absent: list[Absent] = field(default_factory=list)
