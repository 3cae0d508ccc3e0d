"""What every explainer is: images and text embeddings in, one patch-grid map per pair out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

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

    heat_order: HeatOrder = HeatOrder.UPSAMPLE_NORMALISE
    """The method's steps from raw maps to heat, for `heatmap(raw, size, order=...)`."""

    @property
    def normalise_before_upsampling(self) -> bool:
        """Whether `heat_order` is `NORMALISE_UPSAMPLE`."""
        return self.heat_order is HeatOrder.NORMALISE_UPSAMPLE

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

        Raises:
            TypeError: `encoding` was made by another kind of explainer.
            ValueError: `text` has another width than the embedding, or `image_index` does not
                hold one valid image for each text.
        """
        if not isinstance(encoding, self.encoding):
            raise TypeError(
                f"{type(self).__name__} takes {self.encoding.__name__}, not "
                f"{type(encoding).__name__}: encode the images with the same explainer"
            )
        pairs = checked_pairs(encoding.embedding.shape, text, image_index)
        return self._maps(encoding, text, pairs)

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
        ValueError: says which of the three does not fit.
    """
    images, width = embedding_shape
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


def select_layers(layers: int | Sequence[int] | None, depth: int) -> tuple[int, ...]:
    """The 0-based blocks to average over, ascending: all, the last k, or the ones listed.

    Raises:
        ValueError: k outside 1..depth; an empty, duplicate or out-of-range list (negative indices
            are out of range: `layers=-2` would be read as "the last two" by half its readers).
    """
    if layers is None:
        return tuple(range(depth))
    if isinstance(layers, int):
        if not 1 <= layers <= depth:
            raise ValueError(f"layers={layers}: the last k blocks need k in 1..{depth}")
        return tuple(range(depth - layers, depth))
    chosen = tuple(sorted(layers))
    if not chosen:
        raise ValueError("layers=[]: name at least one block, or None for all")
    if len(set(chosen)) != len(chosen):
        raise ValueError(f"layers={list(layers)}: a block is listed twice")
    if chosen[0] < 0 or chosen[-1] >= depth:
        raise ValueError(f"layers={list(layers)}: 0-based indices must lie in 0..{depth - 1}")
    return chosen
