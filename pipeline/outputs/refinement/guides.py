"""What maps are refined by: an image at the working size, with its colour regions if they vote."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import UInt8
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from pipeline.config import MaskConfig
from pipeline.inputs.images import ENOUGH, Picture
from pipeline.inputs.reader import MakeGuide
from pipeline.inputs.samples import Guide, Sample, Wanted
from pipeline.outputs.refinement.regions import regions


def guide_maker(
    config: MaskConfig, has_prompts: Callable[[Sample[Wanted]], bool], scaled: bool = False
) -> MakeGuide[Wanted] | None:
    """What makes the guide of an image, for `ShardReader`; None where maps are not refined.

    Args:
        config: with the refinement and its size.
        has_prompts: whether there is anything to look for in a sample: others need no guide.
        scaled: whether JPEGs are decoded at the scale that is needed.
    """
    if config.refine == "none":
        return None
    return lambda s, picture: guide_of(picture, config, scaled) if has_prompts(s) else None


def guide_of(picture: Picture, config: MaskConfig, scaled: bool) -> Guide:
    """The guide for maps of an encoded image.

    Its scale follows from its own size, whatever the model takes, so that the images of a run give
    the same guides again.

    Args:
        picture: the image.
        config: with the refinement and its size.
        scaled: whether a JPEG is decoded at the scale that is needed.

    Raises:
        Reject: the image cannot be decoded.
    """
    pixels = picture.pixels(least_of(config, scaled))
    return make_guide(pixels, config, (picture.height, picture.width))


def least_of(config: MaskConfig, scaled: bool) -> int | None:
    """Pixels that the shorter side of an image keeps when it is decoded for its guide."""
    return ENOUGH * config.refine_size if scaled else None


def make_guide(
    pixels: UInt8[Tensor, "3 rows columns"],
    config: MaskConfig,
    stored: tuple[int, int] | None = None,
) -> Guide:
    """The guide for maps of an image, made on the CPU.

    Args:
        pixels: RGB.
        config: with the refinement and its size.
        stored: (height, width) of the image, where these are not all of its pixels.
    """
    size = working_size(*(stored or pixels.shape[1:]), config.refine_size)
    if size != pixels.shape[1:]:
        pixels = transforms.resize(pixels, list(size), InterpolationMode.BILINEAR, antialias=True)
    pixels = pixels.contiguous()
    return Guide(pixels, regions(pixels) if "regions" in config.refine else None)


def working_size(height: int, width: int, longest: int) -> tuple[int, int]:
    """(height, width) of an image at which its maps are refined, in its own proportions.

    A smaller image is not enlarged: that would blur the very edges that guide, and cost more.
    """
    scale = min(1.0, longest / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))
