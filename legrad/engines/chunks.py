"""Which (image, text) pairs are explained together: chunks that fit a memory budget.

Pairs are ragged, tensors are not. Images with the same number of texts go into one chunk, so that
every product of the engine is a plain broadcast over [images, texts]. A plan depends on the pairs
and on sizes only, never on free memory: the same call always multiplies the same matrices.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int, Shaped
from torch import Tensor


@dataclass(frozen=True)
class Chunk:
    """Some images of a batch, each with the same number of texts.

    Attributes:
        images: indices into the batch; a slice when they are consecutive, which spares a copy.
        queries: for each image the positions of its texts among the Q pairs.
    """

    images: slice | Int[Tensor, " G"]
    queries: Int[Tensor, "G P"]

    def of_images(self, values: Shaped[Tensor, "B ..."]) -> Shaped[Tensor, "G ..."]:
        """The rows of `values` that belong to this chunk's images."""
        return values[self.images]


def plan(
    pairs: Sequence[int], image_bytes: int, pair_bytes: int, budget: int, device: torch.device
) -> list[Chunk]:
    """Chunks that together hold every pair once, each within `budget` bytes where that is possible.

    Args:
        pairs: `pairs[q]` is the image of text q.
        image_bytes: temporaries per image, shared by its texts.
        pair_bytes: temporaries per pair.
        budget: bytes for one chunk; a single pair is explained even if it needs more.
        device: where the index tensors are wanted.
    """
    most = max(1, (budget - image_bytes) // pair_bytes)
    by_count: dict[int, list[tuple[int, list[int]]]] = defaultdict(list)
    for image, queries in _by_image(pairs).items():
        for piece in _split(queries, most):
            by_count[len(piece)].append((image, piece))
    chunks = []
    for count, members in sorted(by_count.items()):
        group = max(1, budget // (image_bytes + count * pair_bytes))
        for start in range(0, len(members), group):
            chunks.append(_chunk(members[start : start + group], device))
    return chunks


def _by_image(pairs: Sequence[int]) -> dict[int, list[int]]:
    queries: dict[int, list[int]] = {image: [] for image in sorted(set(pairs))}
    for query, image in enumerate(pairs):
        queries[image].append(query)
    return queries


def _split(queries: list[int], most: int) -> Iterator[list[int]]:
    """Near-equal pieces of at most `most`, so that no piece is a wasteful remainder."""
    pieces = -(-len(queries) // most)
    size = -(-len(queries) // pieces)
    for start in range(0, len(queries), size):
        yield queries[start : start + size]


def _chunk(members: list[tuple[int, list[int]]], device: torch.device) -> Chunk:
    images = [image for image, _ in members]
    first, last = images[0], images[-1]
    consecutive = images == list(range(first, last + 1))
    return Chunk(
        images=slice(first, last + 1) if consecutive else torch.tensor(images, device=device),
        queries=torch.tensor([queries for _, queries in members], device=device),
    )
