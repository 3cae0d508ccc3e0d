"""What maps are refined by: an image at the working size, with its colour regions if they vote."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from pipeline.config import MaskConfig
from pipeline.inputs.images import Picture
from pipeline.inputs.reader import MakeGuide
from pipeline.inputs.samples import Guide, Sample, Wanted
from pipeline.outputs.refinement.regions import regions


def guide_maker(
    config: MaskConfig, has_prompts: Callable[[Sample[Wanted]], bool], enough: float | None = None
) -> MakeGuide[Wanted] | None:
    """What makes the guide of an image, for `ShardReader`; None where maps are not refined.

    Regions, which cost most, are left to `completed`: what is looked for may prove to be absent.

    Args:
        config: with the refinement and its size.
        has_prompts: whether there is anything to look for in a sample: others need no guide.
        enough: pixels of a decoded JPEG to one of the working size, at least; None for all.
    """
    if config.refine == "none":
        return None

    def make(sample: Sample[Wanted], picture: Picture) -> Guide | None:
        return guide_of(picture, config, least_of(config, enough)) if has_prompts(sample) else None

    return make


def guide_of(picture: Picture, config: MaskConfig, least: int | None = None) -> Guide:
    """The guide for maps of an encoded image, without regions, on the CPU.

    Its size follows from the image's own, whatever the model takes, so that the images of a run
    give the same guides again.

    Args:
        picture: the image.
        config: with the refinement and its size.
        least: pixels that the shorter side of a JPEG keeps when it is decoded; None for all.

    Raises:
        Reject: the image cannot be decoded.
    """
    pixels = picture.pixels(least)
    size = working_size(picture.height, picture.width, config.refine_size)
    if size != pixels.shape[1:]:
        pixels = transforms.resize(pixels, list(size), InterpolationMode.BILINEAR, antialias=True)
    return Guide(pixels.contiguous())


def least_of(config: MaskConfig, enough: float | None) -> int | None:
    """Pixels that the shorter side of an image keeps when it is decoded for its guide."""
    return None if enough is None else round(enough * config.refine_size)


def completed(guide: Guide, config: MaskConfig) -> Guide:
    """The guide with the regions that the refinement needs, on the CPU, if it has none yet."""
    if "regions" not in config.refine or guide.regions is not None:
        return guide
    return replace(guide, regions=regions(guide.pixels))


def working_size(height: int, width: int, longest: int) -> tuple[int, int]:
    """(height, width) of an image at which its maps are refined, in its own proportions.

    A smaller image is not enlarged: that would blur the very edges that guide, and cost more.
    """
    scale = min(1.0, longest / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))
