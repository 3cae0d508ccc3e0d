"""Columns of counts: names as numbers, and images that are there twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
from jaxtyping import Int64


def sorted_codes(column: pa.ChunkedArray) -> tuple[list[str], Int64[np.ndarray, " row"]]:
    """The distinct values in alphabetical order, and the position of every row's among them."""
    array = column.dictionary_encode().unify_dictionaries().combine_chunks()
    array = array.chunk(0) if isinstance(array, pa.ChunkedArray) else array
    names = array.dictionary.to_pylist()
    order = sorted(range(len(names)), key=names.__getitem__)
    rank = np.empty(len(names), dtype=np.int64)
    rank[order] = np.arange(len(names))
    return [names[i] for i in order], rank[array.indices.to_numpy()]


def repeated_images(images: Iterable[str], labels: Iterable[str]) -> list[str]:
    """Images that more than one sample claims to be: their points would count twice."""
    counts = Counter(zip(images, labels, strict=True))
    return sorted({image for (image, _), n in counts.items() if n > 1})
