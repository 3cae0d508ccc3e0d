"""What maps are refined by: an image at the working size, with its colour regions if they vote."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

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
    config: MaskConfig,
    has_prompts: Callable[[Sample[Wanted]], bool],
    scaled: bool = False,
    *,
    later: bool = False,
) -> MakeGuide[Wanted] | None:
    """What makes the guide of an image, for `ShardReader`; None where maps are not refined.

    Args:
        config: with the refinement and its size.
        has_prompts: whether there is anything to look for in a sample: others need no guide.
        scaled: whether JPEGs are decoded at the scale that is needed.
        later: leave out the regions, which cost most, until `completed` is asked for them: what is
            looked for may turn out to be absent.
    """
    if config.refine == "none":
        return None

    def make(sample: Sample[Wanted], picture: Picture) -> Guide | None:
        if not has_prompts(sample):
            return None
        guide = _shrunk_of(picture, config, scaled)
        return guide if later else completed(guide, config)

    return make


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
    return completed(_shrunk_of(picture, config, scaled), config)


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
    return completed(_shrunk(pixels, config, stored), config)


def completed(guide: Guide, config: MaskConfig) -> Guide:
    """The guide with the regions that the refinement needs, on the CPU, if it has none yet."""
    if "regions" not in config.refine or guide.regions is not None:
        return guide
    return replace(guide, regions=regions(guide.pixels))


def _shrunk_of(picture: Picture, config: MaskConfig, scaled: bool) -> Guide:
    pixels = picture.pixels(least_of(config, scaled))
    return _shrunk(pixels, config, (picture.height, picture.width))


def _shrunk(
    pixels: UInt8[Tensor, "3 rows columns"], config: MaskConfig, stored: tuple[int, int] | None
) -> Guide:
    height, width = stored or pixels.shape[1:]
    size = working_size(height, width, config.refine_size)
    if size != pixels.shape[1:]:
        pixels = transforms.resize(pixels, list(size), InterpolationMode.BILINEAR, antialias=True)
    return Guide(pixels.contiguous())


def working_size(height: int, width: int, longest: int) -> tuple[int, int]:
    """(height, width) of an image at which its maps are refined, in its own proportions.

    A smaller image is not enlarged: that would blur the very edges that guide, and cost more.
    """
    scale = min(1.0, longest / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))
