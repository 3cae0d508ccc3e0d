"""Maps refined by colour: regions that vote, guides, and masks of what comes out."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import legrad
from legrad import HeatOrder
from pipeline.config import MaskConfig
from pipeline.config.identity import identity_of
from pipeline.errors import ConfigError
from pipeline.inputs.images import Picture
from pipeline.inputs.samples import Guide, Sample
from pipeline.outputs import raster
from pipeline.outputs.masks import decode, encode_masks
from pipeline.outputs.refinement import refine as module
from pipeline.outputs.refinement.guides import guide_maker, working_size
from pipeline.outputs.refinement.pamr import pamr
from pipeline.outputs.refinement.refine import refine, refined_heat
from pipeline.outputs.refinement.regions import region_means, regions
from pipeline.outputs.thresholding import threshold_maps
from tests.pipeline.stand_ins import guide_from

KINDS = ("pamr", "regions", "regions_pamr")


def halves(height: int = 40, width: int = 48, at: int = 20) -> torch.Tensor:
    """Two colours, side by side, the second from column `at` on."""
    pixels = torch.zeros(3, height, width, dtype=torch.uint8)
    pixels[0, :, :at], pixels[2, :, at:] = 220, 180
    return pixels


def blurred(height: int, width: int, at: int) -> torch.Tensor:
    """Heat that falls off around column `at`, 0..1."""
    columns = torch.linspace(0, width - 1, width)
    return torch.sigmoid((at - columns) / 4).expand(1, height, width).contiguous()


def masks(raw: torch.Tensor, pixels: torch.Tensor, config: MaskConfig) -> list[np.ndarray | str]:
    height, width = pixels.shape[1:]
    guides = [guide_from(pixels, config)] if config.refine != "none" else None
    parts = threshold_maps(raw, height, width, [None] * len(raw), config, guides=guides)
    made = [mask for part in parts for mask in encode_masks(part, config.min_area)]
    return [mask if isinstance(mask, str) else decode(mask.segmentation) for mask in made]


def test_regions_are_those_of_colour() -> None:
    labels = regions(halves())

    assert labels.shape == (40, 48)
    (left,), (right,) = labels[:, :18].unique().tolist(), labels[:, 22:].unique().tolist()
    assert left != right
    assert labels.min() == 0
    assert torch.equal(labels, regions(halves()))


def test_a_region_has_its_mean_everywhere() -> None:
    generator = torch.Generator().manual_seed(3)
    maps = torch.rand(4, 9, 11, generator=generator)
    labels = torch.randint(0, 6, (9, 11), generator=generator)
    labels[labels == 4] = 5  # a number that no pixel has

    means = region_means(maps, labels)

    for number in range(6):
        inside = labels == number
        for heat, mean in zip(maps, means, strict=True):
            if inside.any():
                expected = float(np.mean(heat[inside].double().numpy()))
                assert mean[inside].tolist() == pytest.approx([expected] * int(inside.sum()))


def test_means_do_not_depend_on_the_order_of_pixels() -> None:
    maps = torch.rand(1, 1, 5000, generator=torch.Generator().manual_seed(4))
    labels = torch.zeros(1, 5000, dtype=torch.long)
    assert torch.equal(region_means(maps, labels), region_means(maps.flip(2), labels))


@pytest.mark.parametrize(
    ("size", "longest", "expected"),
    [
        ((480, 640), 224, (168, 224)),
        ((640, 427), 224, (224, 149)),
        ((160, 160), 224, (160, 160)),
        ((224, 100), 224, (224, 100)),
        ((3, 5000), 224, (1, 224)),
        ((1, 1), 224, (1, 1)),
    ],
)
def test_the_working_size_keeps_proportions_and_never_enlarges(
    size: tuple[int, int], longest: int, expected: tuple[int, int]
) -> None:
    assert working_size(*size, longest) == expected


def test_a_guide_is_the_image_made_smaller_with_regions_where_they_vote() -> None:
    pixels = halves(80, 96, 48)
    config = MaskConfig(refine="regions_pamr", refine_size=48)

    guide = guide_from(pixels, config)

    picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    smaller = np.array(picture.resize((48, 40), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(guide.pixels.permute(1, 2, 0).numpy().astype(int) - smaller).max() <= 1
    assert torch.equal(guide.regions, regions(guide.pixels))
    assert guide_from(pixels, replace(config, refine="pamr")).regions is None
    assert torch.equal(guide_from(pixels, MaskConfig(refine="pamr")).pixels, pixels)
    sample = Sample(0, "k", 80, 96, pixels, ["dog"])
    assert guide_maker(MaskConfig(), lambda _: True) is None
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    encoded = Picture(stream.getvalue(), 1 << 20)
    made = guide_maker(config, lambda s: s.wanted)(sample, encoded)
    assert torch.equal(made.pixels, guide.pixels)
    assert guide_maker(config, lambda s: not s.wanted)(sample, encoded) is None


def test_refinements_are_put_together_as_their_names_say() -> None:
    pixels = halves()
    maps = torch.rand(2, 40, 48, generator=torch.Generator().manual_seed(5))
    guide = guide_from(pixels, MaskConfig(refine="regions"))
    assert guide.regions is not None
    voted = (maps + region_means(maps, guide.regions)) / 2

    found = {kind: refine(maps, guide, MaskConfig(refine=kind)) for kind in ("none", *KINDS)}

    assert torch.equal(found["none"], maps)
    torch.testing.assert_close(found["pamr"], pamr(maps, pixels))
    torch.testing.assert_close(found["regions"], voted)
    torch.testing.assert_close(found["regions_pamr"], pamr(voted, pixels))
    with pytest.raises(ValueError, match="no regions"):
        refine(maps, Guide(pixels), MaskConfig(refine="regions"))
    for kind in KINDS:
        assert refine(maps[:0], guide, MaskConfig(refine=kind)).shape == (0, 40, 48)


@pytest.mark.parametrize("kind", KINDS)
def test_masks_end_where_the_colour_does(kind: str) -> None:
    pixels, raw = halves(), blurred(40, 48, 24)  # the map ends four columns too far
    truth = np.zeros((40, 48), dtype=bool)
    truth[:, :20] = True

    def iou(config: MaskConfig) -> float:
        (mask,) = masks(raw, pixels, config)
        return float((mask & truth).sum() / (mask | truth).sum())

    assert iou(MaskConfig()) == pytest.approx(20 / 24)
    assert iou(MaskConfig(refine=kind)) > 20 / 24 + 0.03


def test_the_steps_come_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Upsampled and stretched; refined; stretched again; then the maps compete."""
    raw = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(6)) * 7 - 3
    pixels = halves()
    seen = []

    def half(maps, guide, config):
        seen.append(maps)
        return maps / 2

    monkeypatch.setattr(module, "refine", half)
    config = MaskConfig(refine="pamr", overlap="winner")
    found = refined_heat(raw, Guide(pixels), config, HeatOrder.UPSAMPLE_NORMALISE)

    heat = legrad.heatmap(raw, (40, 48))
    assert torch.equal(seen[0], heat)
    torch.testing.assert_close(found, heat)
    owned = np.stack(masks(raw, pixels, replace(config, threshold=0.3)))
    first = heat.numpy().argmax(0) == np.arange(3)[:, None, None]
    assert np.array_equal(owned, first & (heat.numpy() > 0.3))


def test_maps_without_a_mask_say_why_as_ever() -> None:
    pixels = halves()
    generator = torch.Generator().manual_seed(7)
    raw = torch.stack(
        [
            torch.rand(4, 5, generator=generator),
            torch.full((4, 5), 2.0),
            torch.full((4, 5), torch.nan),
        ]
    )
    raw = torch.cat([raw, raw[:1]])  # at a tie the first wins: the last one has nothing left
    for overlap, last in (("winner", "overlapped"), ("keep", None)):
        mask, flat, nan, again = masks(
            raw, pixels, MaskConfig(refine="regions_pamr", overlap=overlap)
        )
        assert isinstance(mask, np.ndarray)
        assert (flat, nan) == ("flat_map", "not_finite")
        assert again == last if last else np.array_equal(again, mask)


def test_reasons_stay_with_their_maps_in_however_many_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pixels = halves()
    good = torch.rand(1, 4, 5, generator=torch.Generator().manual_seed(9))
    bad, flat = torch.full_like(good, torch.nan), torch.zeros_like(good)
    monkeypatch.setattr(raster, "CHUNK_PIXELS", 2 * pixels[0].numel())
    made = masks(torch.cat([good, bad, flat, bad, bad, good]), pixels, MaskConfig(refine="pamr"))
    assert made[1:5] == ["not_finite", "flat_map", "not_finite", "not_finite"]
    assert np.array_equal(made[0], made[5])


@pytest.mark.parametrize("height", [40, 400])
def test_large_and_small_images_take_the_ways_that_suit_them(height: int) -> None:
    """Rasters for fine grids, the closed form for coarse ones: the same masks."""
    pixels = halves(height, height * 6 // 5, height // 2)
    raw = torch.rand(2, 6, 7, generator=torch.Generator().manual_seed(8))
    config = MaskConfig(refine="pamr", refine_size=48)
    guide = guide_from(pixels, config)
    heat = legrad.heatmap(
        refined_heat(raw, guide, config, HeatOrder.UPSAMPLE_NORMALISE), tuple(pixels.shape[1:])
    )
    for mask, of_map in zip(masks(raw, pixels, config), heat, strict=True):
        differ = torch.from_numpy(mask) != (of_map > 0.5)
        assert (of_map[differ] - 0.5).abs().max(initial=0) < 1e-5 if differ.any() else True


def test_an_image_without_a_guide_is_an_error() -> None:
    parts = threshold_maps(torch.rand(1, 4, 4), 9, 9, [None], MaskConfig(refine="pamr"))
    with pytest.raises(ValueError, match="needs the guide"):
        next(parts)


@pytest.mark.parametrize("size", [0, 15, 5000])
def test_a_working_size_has_bounds(size: int) -> None:
    with pytest.raises(ConfigError, match=f"--mask.refine_size {size}: give pixels from 16"):
        MaskConfig(refine="pamr", refine_size=size)


def test_settings_as_they_were_make_the_identity_that_was() -> None:
    assert identity_of(MaskConfig()).keys() == {"rule", "threshold", "min_area", "heat"}
    refined = identity_of(MaskConfig(refine="pamr"))
    assert refined["refine"] == "pamr"
