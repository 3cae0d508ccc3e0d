"""From the members of a tar to samples that can be annotated, or the reason why not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from jaxtyping import UInt8
from torch import Tensor

from pipeline.errors import Reject
from pipeline.inputs.images import decode
from pipeline.inputs.prompts import Prompt, PromptReader
from pipeline.inputs.tars import RawSample

IMAGE_FIELDS = ("jpg", "jpeg", "png", "webp")


@dataclass(frozen=True)
class Sample:
    """An image with its prompts.

    Attributes:
        index: position in the shard, from 0.
        key: WebDataset key.
        height: stored pixels.
        width: stored pixels.
        pixels: RGB, squashed to the model's input size.
        prompts: what to look for; may be empty.
    """

    index: int
    key: str
    height: int
    width: int
    pixels: UInt8[Tensor, "3 size size"]
    prompts: list[Prompt]


@dataclass(frozen=True)
class Rejected:
    """A sample that cannot be annotated; `reason` and `detail` are those of `Reject`."""

    index: int
    key: str
    reason: str
    detail: str


@dataclass
class SampleReader:
    """Makes `Sample` or `Rejected` of the raw samples of one shard.

    Attributes:
        read_prompts: finds the prompts.
        max_pixels: larger images are rejected.
        squash: resizes pixels to the model's input.
    """

    read_prompts: PromptReader
    max_pixels: int
    squash: Callable[[Tensor], Tensor]
    seen: set[str] = field(default_factory=set)

    def admit(self, raw: RawSample) -> Rejected | None:
        """Judge what only the shard as a whole can tell; call it for every sample, in order."""
        if raw.key in self.seen:
            return Rejected(raw.index, raw.key, "duplicate_key", "an earlier sample has this key")
        self.seen.add(raw.key)
        return None

    def __call__(self, raw: RawSample) -> Sample | Rejected:
        """Find the prompts and decode the image. Safe to call from several threads."""
        try:
            if raw.too_large:
                raise Reject("too_large", f"{raw.key}.{raw.too_large} is beyond --max_sample_bytes")
            if raw.repeated:
                raise Reject("duplicate_field", f"{raw.key}.{raw.repeated} is there twice")
            prompts = self.read_prompts(raw.fields)
            pixels = decode(image_bytes(raw), self.max_pixels)
        except Reject as reject:
            return Rejected(raw.index, raw.key, reject.reason, reject.detail)
        height, width = pixels.shape[1:]
        return Sample(raw.index, raw.key, height, width, self.squash(pixels), prompts)


def image_bytes(raw: RawSample) -> bytes:
    """The encoded image of a sample.

    Raises:
        Reject: `missing_field`.
    """
    for name in IMAGE_FIELDS:
        if name in raw.fields:
            return raw.fields[name]
    raise Reject("missing_field", f"no image (.{', .'.join(IMAGE_FIELDS)})")
