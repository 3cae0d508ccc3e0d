"""What maps are refined by: an image at the working size, with its colour regions if they vote."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from jaxtyping import UInt8
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from pipeline.config import MaskConfig
from pipeline.inputs.reader import MakeGuide
from pipeline.inputs.samples import Guide, Sample, Wanted
from pipeline.outputs.refinement.regions import regions


def guide_maker(
    config: MaskConfig, has_prompts: Callable[[Sample[Wanted]], bool], *, later: bool = False
) -> MakeGuide[Wanted] | None:
    """What makes the guide of an image, for `ShardReader`; None where maps are not refined.

    Args:
        config: with the refinement and its size.
        has_prompts: whether there is anything to look for in a sample: others need no guide.
        later: leave out the regions, which cost most, until `completed` is asked for them: what is
            looked for may turn out to be absent.
    """
    if config.refine == "none":
        return None
    make = _shrunk if later else make_guide
    return lambda sample, pixels: make(pixels, config) if has_prompts(sample) else None


def make_guide(pixels: UInt8[Tensor, "3 height width"], config: MaskConfig) -> Guide:
    """The guide for maps of an image, made on the CPU.

    Args:
        pixels: RGB, as stored.
        config: with the refinement and its size.
    """
    return completed(_shrunk(pixels, config), config)


def completed(guide: Guide, config: MaskConfig) -> Guide:
    """The guide with the regions that the refinement needs, on the CPU, if it has none yet."""
    if "regions" not in config.refine or guide.regions is not None:
        return guide
    return replace(guide, regions=regions(guide.pixels))


def _shrunk(pixels: UInt8[Tensor, "3 height width"], config: MaskConfig) -> Guide:
    height, width = pixels.shape[1:]
    size = working_size(height, width, config.refine_size)
    if size != (height, width):
        pixels = transforms.resize(pixels, list(size), InterpolationMode.BILINEAR, antialias=True)
    return Guide(pixels.contiguous())


def working_size(height: int, width: int, longest: int) -> tuple[int, int]:
    """(height, width) of an image at which its maps are refined, in its own proportions.

    A smaller image is not enlarged: that would blur the very edges that guide, and cost more.
    """
    scale = min(1.0, longest / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))
