"""What a run has written, for comparison; and the types of the fixtures."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from jaxtyping import UInt8
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

from pipeline.config import AnnotateConfig, MaskConfig
from pipeline.inputs.images import Picture
from pipeline.inputs.samples import Guide
from pipeline.outputs.ledger import Ledger
from pipeline.outputs.refinement.guides import completed, guide_of

Rows = list[dict[str, Any]]
Annotate = Callable[..., Ledger]
MakeConfig = Callable[..., AnnotateConfig]
Tree = Callable[[str], dict[str, bytes]]
Write = Callable[..., str]
Labelled = Callable[..., list[tuple[str, bytes]]]
MakeTar = Callable[..., bytes]


def rows(ledger: Ledger, table: str) -> Rows:
    """All rows of `annotations` or `images`, shard by shard."""
    files = sorted(Path(ledger.output, table).glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def results(tree: dict[str, bytes]) -> dict[str, bytes]:
    """What must be the same in every run of the same configuration."""
    return {path: data for path, data in tree.items() if path.startswith(("annotations", "images"))}


def guide_from(pixels: UInt8[Tensor, "3 height width"], config: MaskConfig) -> Guide:
    """The guide of an image that has these pixels, with the regions that it needs."""
    encoded = io.BytesIO()
    to_pil_image(pixels).save(encoded, "PNG")
    picture = Picture(encoded.getvalue(), pixels[0].numel())
    return completed(guide_of(picture, config), config)
