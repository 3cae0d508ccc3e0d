"""What every explainer is: images and text embeddings in, one patch-grid map per pair out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from legrad.arguments import check_floats, check_indices, whole
from legrad.heatmap import HeatOrder


@dataclass(frozen=True)
class Encoding:
    """One forward pass of a batch of images, as far as `Explainer.maps` needs it later.

    Each engine adds the tensors it keeps; only these two fields are for everyone.

    Attributes:
        embedding: the model's own image embedding, float32: L2-normalised, or for a classifier
            what its head is applied to.
        grid: patch rows and columns (gh, gw).
    """

    embedding: Float[Tensor, "B E"]
    grid: tuple[int, int]


class Explainer(ABC):
    """Explains, for Q (image, text) pairs, which patches of the image the text is found in.

    `text[q]` is the L2-normalised text embedding to explain in image `image_index[q]`, or the row
    of a classifier's head. Any number of pairs may name an image, none included, in any order. Maps
    are raw: mean over the layers, not normalised, row-major patches [gh, gw] without prefix tokens
    (CLS, registers), on the device of the model. LeGrad's are ≥ 0; some methods' are signed, and
    those of full LRP have a cell per pixel.

    Every float32 in these contracts is float64 for a float64 model.
    """

    encoding: type[Encoding]
    """What `encode` makes, and all that `maps` takes."""

    pixel_maps: bool = False
    """Whether raw maps have a cell per pixel instead of one per patch."""

    heat_order: HeatOrder = HeatOrder.UPSAMPLE_NORMALISE
    """The method's steps from raw maps to heat, for `heatmap(raw, size, order=...)`."""

    @abstractmethod
    def encode(self, images: Float[Tensor, "B 3 H W"]) -> Encoding:
        """Run the image encoder once on preprocessed images and keep what `maps` needs.

        Raises:
            ValueError: not a batch of RGB images, or H or W is not a multiple of the patch size.
        """

    def maps(
        self, encoding: Encoding, text: Float[Tensor, "Q E"], image_index: Int[Tensor, " Q"]
    ) -> Float[Tensor, "Q gh gw"]:
        """Raw maps of Q pairs, float32, from a forward pass that has been made.

        An image or a text that is not finite gives maps that are not finite, where they depend on
        it, to itself alone; `heatmap` clears and `degenerate` counts them.

        Raises:
            TypeError: `encoding` was made by another kind of explainer, or is none; `text` or
                `image_index` is no tensor of floats, or of integers.
            ValueError: `text` has another width than the embedding, or `image_index` does not
                hold one valid image for each text.
        """
        if not isinstance(encoding, self.encoding):
            raise TypeError(
                f"{type(self).__name__} takes {self.encoding.__name__}, not "
                f"{type(encoding).__name__}: encode the images with the same explainer"
            )
        pairs = checked_pairs(encoding.embedding.shape, text, image_index)
        return self._maps(encoding, text.to(encoding.embedding.device), pairs)

    @abstractmethod
    def _maps(
        self, encoding: Encoding, text: Float[Tensor, "Q E"], pairs: list[int]
    ) -> Float[Tensor, "Q gh gw"]:
        """`maps` after its arguments were checked; `pairs[q]` is the image of text q."""

    def explain(
        self,
        images: Float[Tensor, "B 3 H W"],
        text: Float[Tensor, "Q E"],
        image_index: Int[Tensor, " Q"],
    ) -> tuple[Float[Tensor, "B E"], Float[Tensor, "Q gh gw"]]:
        """Image embeddings and raw maps from one forward pass, keeping no more than it must.

        Raises:
            ValueError: as `encode` and `maps`.
        """
        encoding = self.encode(images)
        return encoding.embedding, self.maps(encoding, text, image_index)

    def __call__(
        self,
        images: Float[Tensor, "B 3 H W"],
        text: Float[Tensor, "Q E"],
        image_index: Int[Tensor, " Q"],
    ) -> Float[Tensor, "Q gh gw"]:
        """The raw maps of `explain`."""
        return self.explain(images, text, image_index)[1]


def checked_pairs(
    embedding_shape: Sequence[int], text: Float[Tensor, "Q E"], image_index: Int[Tensor, " Q"]
) -> list[int]:
    """`image_index` as a list, once it is known to fit `embedding_shape` [B, E] and `text`.

    Raises:
        TypeError: `text` is not a tensor of floats, or `image_index` not one of integers.
        ValueError: says which of the three does not fit.
    """
    images, width = embedding_shape
    check_floats("text", text, f"embeddings [Q, {width}] as a tensor of floats, not token ids")
    check_indices("image_index", image_index, "the image of each text, a tensor [Q] of integers")
    if text.ndim != 2 or text.shape[1] != width:
        raise ValueError(f"text has shape {tuple(text.shape)}, expected [Q, {width}]")
    if image_index.shape != text.shape[:1]:
        raise ValueError(
            f"image_index has shape {tuple(image_index.shape)} for {len(text)} text embeddings"
        )
    pairs: list[int] = image_index.tolist()
    if pairs and not 0 <= min(pairs) <= max(pairs) < images:
        raise ValueError(
            f"image_index spans {min(pairs)}..{max(pairs)}, but the batch has {images} images"
        )
    return pairs


def checked_part(layers: float) -> float:
    """A part of the blocks, above 0 and below 1.

    Raises:
        ValueError: it is not; 1.0 could mean the last one or all, so that neither is guessed.
    """
    if not 0 < layers < 1:
        raise ValueError(
            f"layers={layers}: a part of the blocks lies between 0 and 1, such as 0.67 for the "
            "last two thirds; give a whole number k for the last k, or None for all"
        )
    return float(layers)


def select_layers(layers: int | float | Sequence[int] | None, depth: int) -> tuple[int, ...]:
    """The 0-based blocks to average over, ascending: all, the last k, or the ones listed.

    A float is the part of the blocks that are taken, the last ones: round(part · depth) of them,
    but at least one. Arrays and tensors of whole numbers are as good as lists.

    Raises:
        TypeError: something else than numbers, or a list of others than whole ones.
        ValueError: k outside 1..depth, a float not between 0 and 1; an empty, duplicate or
            out-of-range list (negative indices are out of range: `layers=-2` would be read as "the
            last two" by half its readers).
    """
    if layers is None:
        return tuple(range(depth))
    given: Any = layers.tolist() if hasattr(layers, "tolist") else layers
    wanted = (
        "None for all blocks, a whole number k for the last k, a part below 1 of them, or a list "
        "of 0-based indices"
    )
    if isinstance(given, Real) and not isinstance(given, Integral):
        count = max(1, round(checked_part(float(given)) * depth))
        return tuple(range(depth - count, depth))
    if isinstance(given, str) or not isinstance(given, Iterable):
        count = whole("layers", given, wanted)
        if not 1 <= count <= depth:
            raise ValueError(f"layers={count}: the last k blocks need k in 1..{depth}")
        return tuple(range(depth - count, depth))
    chosen = sorted(whole("a block in layers", layer, wanted) for layer in given)
    if not chosen:
        raise ValueError("layers=[]: name at least one block, or None for all")
    if len(set(chosen)) != len(chosen):
        raise ValueError(f"layers={chosen}: a block is listed twice")
    if chosen[0] < 0 or chosen[-1] >= depth:
        raise ValueError(f"layers={chosen}: 0-based indices must lie in 0..{depth - 1}")
    return tuple(chosen)
