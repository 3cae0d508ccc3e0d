"""One map from several views of an image: moved by half a patch, mirrored, at other sizes.

A grid of patches samples an image coarsely. On the image moved by half a patch, the same model
samples it in between; the mean of both maps, each cell put where it was seen, shows details that
neither has. A view costs a forward pass; the texts are embedded once for all.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from legrad.arguments import check_floats, check_kind, number, whole
from legrad.explainer import Encoding, Explainer

SHIFTS: dict[int, tuple[tuple[int, int], ...]] = {
    1: ((0, 0),),
    2: ((0, 0), (1, 1)),
    4: ((0, 0), (0, 1), (1, 0), (1, 1)),
}
"""Half patches by which an image is moved down and to the right, for a number of shifts."""


@dataclass(frozen=True)
class ViewsEncoding(Encoding):
    """The plain view, encoded, and the images that the others are made of.

    Attributes:
        grid: rows and columns of the maps, which may be finer than the patches.
        plain: the encoding of the plain view.
        images: as they were given.
    """

    plain: Encoding
    images: Float[Tensor, "B 3 H W"]


class Views(Explainer):
    """The mean of an explainer's raw maps over views of each image: shifts × flip × scales.

    The embedding, and with it every score, is that of the plain view: unmoved, at scale 1.

    The maps have the grid of the largest scale, with twice its rows and columns where there are
    shifts. In the middle of each of its cells, a view's own map is read off, bilinear between the
    middles of its patches and constant beyond the outermost. A cell that was moved out of a view is
    the mean of the others.

    Within a scale raw maps are averaged as they are. From one scale to another they are not
    comparable (LeGrad's fall with the square of the number of patches): each is divided by its mean
    magnitude, and their mean has that of scale 1. A map that is 0 at scale 1 stays 0.

    One view is worked on at a time, for the images that have texts. `encode` makes the plain one
    alone, and `maps` all others, each time that it is called.
    """

    encoding = ViewsEncoding

    def __init__(
        self,
        explainer: Explainer,
        shifts: int = 1,
        *,
        flip: bool = False,
        scales: Sequence[int | float] = (1.0,),
        size: tuple[int, int] | None = None,
    ) -> None:
        """Explain views with `explainer`.

        Args:
            explainer: whose maps have a cell per patch.
            shifts: 1: none; 2: also half a patch down and to the right; 4: also each of the two
                alone. Edges are repeated into what becomes empty; of a patch with an odd side, half
                is rounded down to whole pixels.
            flip: mirror every view from left to right too, and its map back.
            scales: sides of views over those of the plain one, each rounded to whole patches. 1 is
                among them. Positions are interpolated, as for any image of that size.
            size: rows and columns of the plain view, in pixels. Images of another size are resized
                to each view (bicubic, antialiased), so that larger ones bring details for scales
                above 1. None: that of the images.

        Raises:
            TypeError: an argument of another kind.
            ValueError: an impossible number, or an explainer whose maps have a cell per pixel.
        """
        check_kind("explainer", explainer, Explainer, "what `build` returns")
        check_kind("flip", flip, bool, "True or False")
        if explainer.pixel_maps:
            raise ValueError("this method's maps have a cell per pixel: it cannot have views")
        if size is not None:
            rows, columns = (whole("a side in size", side, "whole pixels") for side in size)
            size = rows, columns
        self._explainer, self._size = explainer, size
        self._moves = SHIFTS[checked_shifts(shifts)]
        self._flips = (False, True) if flip else (False,)
        # The plain view comes first.
        self._scales = sorted(checked_scales(scales), key=lambda scale: (scale != 1, scale))
        self.heat_order = explainer.heat_order

    def encode(self, images: Float[Tensor, "B 3 H W"]) -> ViewsEncoding:
        """Run the image encoder on the plain view, and keep the images for the others.

        Raises:
            ValueError: as `Explainer.encode`, or half a patch is less than a pixel.
        """
        view = self._plain(images)
        plain = self._explainer.encode(view)
        layout = self._layout(_sides(view), plain.grid)
        return ViewsEncoding(plain.embedding, layout.target, plain, images)

    def explain(
        self,
        images: Float[Tensor, "B 3 H W"],
        text: Float[Tensor, "Q E"],
        image_index: Int[Tensor, " Q"],
    ) -> tuple[Float[Tensor, "B E"], Float[Tensor, "Q gh gw"]]:
        """Embeddings of the plain view, and the mean of the maps: a forward pass for each view.

        Raises:
            ValueError: as `encode` and `maps`.
        """
        view = self._plain(images)
        embedding, raw = self._explainer.explain(view, text, image_index)
        layout = self._layout(_sides(view), _sides(raw))
        pairs: list[int] = image_index.tolist()
        return embedding, self._averaged(images, raw, layout, text.to(raw.device), pairs)

    def _maps(
        self, encoding: Encoding, text: Float[Tensor, "Q E"], pairs: list[int]
    ) -> Float[Tensor, "Q gh gw"]:
        assert isinstance(encoding, ViewsEncoding)
        index = torch.tensor(pairs, device=text.device, dtype=torch.long)
        raw = self._explainer.maps(encoding.plain, text, index)
        layout = self._layout(_sides(self._plain(encoding.images)), _sides(raw))
        return self._averaged(encoding.images, raw, layout, text, pairs)

    def _averaged(
        self,
        images: Float[Tensor, "B 3 H W"],
        plain: Float[Tensor, "Q rows columns"],
        layout: _Layout,
        text: Float[Tensor, "Q E"],
        pairs: list[int],
    ) -> Float[Tensor, "Q gh gw"]:
        """The mean over all views, of which the plain one has been explained."""
        if not pairs:
            return plain.new_zeros(0, *layout.target)
        own = sorted(set(pairs))
        place = {image: row for row, image in enumerate(own)}
        index = torch.tensor([place[image] for image in pairs], device=images.device)
        wanted = images[own] if len(own) < len(images) else images
        means = []
        for number_of_scale, sides in enumerate(layout.sides):
            scaled = _resized(wanted, sides)
            mean = _Mean(plain, layout.target)
            for (down, right), flip in itertools.product(self._moves, self._flips):
                moved = down * layout.half[0], right * layout.half[1]
                if number_of_scale == 0 and not (down or right or flip):
                    raw = plain
                else:
                    view = _moved(scaled, moved)
                    raw = self._explainer(view.flip(3) if flip else view, text, index)
                mean.add(raw.flip(2) if flip else raw, sides, moved)
            means.append(mean.value())
        return means[0] if len(means) == 1 else _of_scales(means)

    def _plain(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 h w"]:
        """The images at scale 1; those that cannot be resized are for the explainer to refuse."""
        if self._size is None:
            return images
        check_floats("images", images, "them preprocessed for the model, as a tensor of floats")
        return _resized(images, self._size) if images.ndim == 4 and images.numel() else images

    def _layout(self, sides: tuple[int, int], grid: tuple[int, int]) -> _Layout:
        """Of views of which the plain one has these sides and this grid of patches.

        Raises:
            ValueError: half a patch is less than a pixel.
        """
        patch = sides[0] // grid[0], sides[1] // grid[1]
        shifted = len(self._moves) > 1
        if shifted and min(patch) < 2:
            raise ValueError(
                f"shifts={len(self._moves)}: half a patch of {patch[0]}x{patch[1]} pixels is less "
                "than a pixel"
            )
        grids = [
            (max(1, round(scale * grid[0])), max(1, round(scale * grid[1])))
            for scale in self._scales
        ]
        finer = 2 if shifted else 1
        return _Layout(
            sides=[(rows * patch[0], columns * patch[1]) for rows, columns in grids],
            half=(patch[0] // 2, patch[1] // 2),
            target=(
                finer * max(rows for rows, _ in grids),
                finer * max(columns for _, columns in grids),
            ),
        )


@dataclass(frozen=True)
class _Layout:
    """What the sizes of views are; each of (rows, columns).

    Attributes:
        sides: of the images of each scale, in pixels.
        half: of a patch, in pixels.
        target: the grid of the mean.
    """

    sides: list[tuple[int, int]]
    half: tuple[int, int]
    target: tuple[int, int]


class _Mean:
    """The mean of maps of moved images, each where it was seen."""

    def __init__(self, like: Float[Tensor, "Q rows columns"], target: tuple[int, int]) -> None:
        self._total = like.new_zeros(len(like), *target)
        self._count = like.new_zeros(target)

    def add(
        self,
        raw: Float[Tensor, "Q rows columns"],
        sides: tuple[int, int],
        moved: tuple[int, int],
    ) -> None:
        """Add maps of images of some sides that were moved down and to the right, in pixels."""
        axes = []
        for fine, side, by in zip(self._count.shape, sides, moved, strict=True):
            seen = (2 * fine * (side - by) + side) // (2 * side)  # middles that were not moved out
            middles = (torch.arange(seen, device=raw.device, dtype=raw.dtype) + 0.5) / fine
            axes.append(2 * (middles + by / side) - 1)  # -1 and 1 are the edges of the view
        rows, columns = torch.meshgrid(*axes, indexing="ij")
        there = F.grid_sample(
            raw[None],
            torch.stack([columns, rows], dim=2)[None],
            mode="bilinear",
            padding_mode="border",
            align_corners=False,
        )[0]
        self._total[:, : len(rows), : rows.shape[1]] += there
        self._count[: len(rows), : rows.shape[1]] += 1

    def value(self) -> Float[Tensor, "Q gh gw"]:
        """The mean."""
        return self._total / self._count


def _of_scales(means: Sequence[Float[Tensor, "Q gh gw"]]) -> Float[Tensor, "Q gh gw"]:
    """The mean over scales, the plain one first, each brought to its mean magnitude."""
    levels = [maps.abs().mean((1, 2), keepdim=True) for maps in means]
    units = [
        maps / level.masked_fill(level == 0, 1) for maps, level in zip(means, levels, strict=True)
    ]
    return levels[0] * torch.stack(units).mean(0)


def _sides(values: Tensor) -> tuple[int, int]:
    return values.shape[-2], values.shape[-1]


def _resized(images: Float[Tensor, "B 3 H W"], sides: tuple[int, int]) -> Float[Tensor, "B 3 h w"]:
    if _sides(images) == sides:
        return images
    # In float32: not every device has this in half precision.
    wide = images if images.dtype == torch.float64 else images.float()
    resized = F.interpolate(wide, sides, mode="bicubic", antialias=True, align_corners=False)
    return resized.to(images.dtype)


def _moved(images: Float[Tensor, "B 3 H W"], by: tuple[int, int]) -> Float[Tensor, "B 3 H W"]:
    """The images moved down and to the right, their first row and column repeated."""
    for dim, pixels in zip((2, 3), by, strict=True):
        if pixels:
            source = torch.arange(images.shape[dim], device=images.device) - pixels
            images = images.index_select(dim, source.clamp(min=0))
    return images


def checked_shifts(shifts: int) -> int:
    """A number of shifts that there is.

    Raises:
        TypeError: no whole number.
        ValueError: another one.
    """
    count = whole("shifts", shifts, "1, 2 or 4")
    if count not in SHIFTS:
        raise ValueError(f"shifts={count}: give 1 (none), 2 or 4")
    return count


def checked_scales(scales: Sequence[int | float]) -> list[float]:
    """Scales as floats, 1 among them.

    Raises:
        TypeError: something that is no number.
        ValueError: none, not finite, not positive, one twice, or 1 is missing.
    """
    checked = [number("a scale in scales", scale, "a number such as 1.5") for scale in scales]
    if not all(math.isfinite(scale) and scale > 0 for scale in checked):
        raise ValueError(f"scales={checked}: each must be a number above 0")
    if len(set(checked)) != len(checked):
        raise ValueError(f"scales={checked}: one is listed twice")
    if 1 not in checked:
        raise ValueError(f"scales={checked}: 1 must be among them; the score is that of scale 1")
    return checked
