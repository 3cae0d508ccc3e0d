"""What decoding at the scale that is needed changes in masks: `python -m pipeline.demo.decoding`.

The photographs of --input as they are, and enlarged, are annotated with all of their pixels and
again with fewer; the masks of both are compared, and the scores. So is, for a measure of what a
difference is worth, what changes where nothing is lost: all pixels are resized down the columns
before they are along the rows, the photograph is saved once more, or a little noise is put into
the model's input.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from pycocotools import mask as coco
from torch import Tensor

from pipeline import storage
from pipeline.cli import ExitCode, run_command
from pipeline.config import DECODE_ENOUGH, AnnotateConfig
from pipeline.demo.bundle import write_tar
from pipeline.errors import ConfigError, Reject
from pipeline.inputs.images import Picture, decode
from pipeline.inputs.naming import Naming
from pipeline.inputs.prompts import Prompt, PromptedSample, PromptReader
from pipeline.inputs.reader import Fit, ShardReader, in_batches, least_for
from pipeline.inputs.samples import Guide, Sample, image_bytes
from pipeline.inputs.shards import Shard, find_shards
from pipeline.inputs.tars import read_samples
from pipeline.models.explain import PromptExplainer
from pipeline.outputs.annotations import Annotated, Annotation
from pipeline.outputs.masks import Mask
from pipeline.outputs.refinement.guides import guide_of, least_of
from pipeline.run.annotator import Annotator

JPEG_QUALITY = 90
SAVED_AGAIN = 95
"""Quality of a photograph that is saved once more."""
FEW = 0.95
"""Masks with an IoU below this are counted."""


@dataclass(frozen=True)
class DecodingConfig(AnnotateConfig):
    """Masks of photographs decoded whole against those of the same photographs made smaller."""

    longer: list[int] = field(default_factory=lambda: [0, 4000])
    """Pixels of the longer side that photographs are enlarged to; 0: as they are."""
    factors: list[float] = field(default_factory=lambda: [1.0, 1.5, 2.0, 3.0])
    """Pixels that the shorter side keeps, to one of the model's input."""
    floor: bool = True
    """Compare all pixels with themselves, resized in the other order, and saved once more."""
    noise: list[float] = field(default_factory=lambda: [0.03, 0.1, 0.4])
    """For comparison: parts of the model's input values, of whole pictures, that are moved by one
    grey level at random."""
    json: str = ""
    """File to write all figures to."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.input:
            raise ConfigError("--input is needed: shards with photographs")
        if not self.factors or min(self.factors) <= 0:
            raise ConfigError(f"--factors {self.factors}: give numbers above 0")
        if not all(0 <= share <= 1 for share in self.noise):
            raise ConfigError(f"--noise {self.noise}: give parts from 0 to 1")
        if not self.longer or min(self.longer) < 0:
            raise ConfigError(f"--longer {self.longer}: give pixels, or 0")
        if self.json and not Path(self.json).absolute().parent.is_dir():
            raise ConfigError(f"--json {self.json}: there is no such folder")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(DecodingConfig, "decoding", __doc__, arguments, run, goes_on=False)


def run(config: DecodingConfig) -> ExitCode:
    """Compare, print, and write the figures where --json says."""
    torch.set_num_threads(config.engine.cpu_threads())
    explain, shards = PromptExplainer(config), find_shards(config.patterns, config.input_root)
    rows: list[dict[str, Any]] = []
    for longer in config.longer:
        for row in compare(config, explain, shards[: config.limit_shards], longer):
            rows.append(row)
            print(_line(row), flush=True)
    if config.json:
        found = {"enough": DECODE_ENOUGH, "rows": rows, "settings": config.identity()}
        Path(config.json).write_text(json.dumps(found, indent=2) + "\n")
    return ExitCode.DONE


def compare(
    config: DecodingConfig, explain: PromptExplainer, shards: Sequence[Shard], longer: int
) -> Iterator[dict[str, Any]]:
    """Compare the masks of photographs of one size, factor by factor, then what loses nothing.

    Args:
        config: with the settings of masks.
        explain: makes the maps.
        shards: with the photographs.
        longer: pixels of the longer side that they are enlarged to; 0: as they are.

    Yields:
        `longer`, `factor`, `floor` or `noise`, `images`, and how many of them were `changed`
        (decoded smaller); of these, by how many grey levels the model's `input` differs in the
        mean, `masks` with the `mean_iou`, the `least_iou`, the number of `few` below `FEW`, and the
        largest difference of a `score`. A mask on one side alone counts as an IoU of 0. NaN where
        nothing was changed.
    """
    with tempfile.TemporaryDirectory() as folder:
        if longer:
            shards = _saved(config, shards, Path(folder, "enlarged"), JPEG_QUALITY, longer)
        whole = {one.name: one for one in _annotated(config, explain, shards)}
        about = {"longer": longer, "images": len(whole)}
        for factor in config.factors:
            smaller = [one for one in _annotated(config, explain, shards, factor) if one.scale > 1]
            yield {**about, "factor": factor, **_compared(smaller, whole)}
        if config.floor:
            turned = list(_annotated(config, explain, shards, change=_columns_first))
            yield {**about, "floor": "columns first", **_compared(turned, whole)}
            again = _saved(config, shards, Path(folder, "again"), SAVED_AGAIN)
            saved = list(_annotated(config, explain, again))
            yield {**about, "floor": "saved again", **_compared(saved, whole)}
        for share in config.noise:
            noisy = list(_annotated(config, explain, shards, change=_Noise(share)))
            yield {**about, "noise": share, **_compared(noisy, whole)}


@dataclass(frozen=True)
class _Annotated:
    """What was found in a photograph.

    Attributes:
        name: the number of its shard, and its key.
        scale: what its sides were divided by.
        pixels: the model's input.
        found: in it.
    """

    name: tuple[int, str]
    scale: int
    pixels: UInt8[Tensor, "3 size size"]
    found: Annotated


def _compared(
    changed: Sequence[_Annotated], whole: Mapping[tuple[int, str], _Annotated]
) -> dict[str, Any]:
    ious, scores, inputs = list[float](), [0.0], list[float]()
    for photograph in changed:
        before = whole[photograph.name]
        inputs.append(float((photograph.pixels.float() - before.pixels).abs().mean()))
        mine, theirs = (
            {_prompt_of(annotation): annotation for annotation in each.found.annotations}
            for each in (photograph, before)
        )
        for prompt in mine | theirs:  # one that is present in one of them alone, too
            one, other = mine.get(prompt), theirs.get(prompt)
            if one and other:
                scores.append(abs(one.score - other.score))
            mask, before_it = (each.mask if each else None for each in (one, other))
            if mask or before_it:
                ious.append(_iou(mask, before_it))
    return {
        "changed": len(changed),
        "input": float(np.mean(inputs)) if inputs else float("nan"),
        "masks": len(ious),
        "mean_iou": float(np.mean(ious)) if ious else float("nan"),
        "least_iou": min(ious, default=float("nan")),
        "few": sum(iou < FEW for iou in ious),
        "score": max(scores),
    }


def _prompt_of(annotation: Annotation) -> tuple[int, int | None, tuple[str, ...]]:
    """What tells a prompt from the others of its photograph."""
    prompt = annotation.prompt
    return prompt.index, prompt.category_id, prompt.wordings


def _as_it_is(squash: Fit, pixels: UInt8[Tensor, "3 height width"]) -> UInt8[Tensor, "3 size size"]:
    return squash(pixels)


def _columns_first(
    squash: Fit, pixels: UInt8[Tensor, "3 height width"]
) -> UInt8[Tensor, "3 size size"]:
    """The same resizing, which rounds to grey levels between its two steps, in the other order."""
    return squash(pixels.mT).mT


@dataclass(frozen=True)
class _Noise:
    """A share of the values one grey level up or down, at random: the same ones for an image."""

    share: float

    def __call__(
        self, squash: Fit, pixels: UInt8[Tensor, "3 height width"]
    ) -> UInt8[Tensor, "3 size size"]:
        fitted = squash(pixels)
        draw = torch.Generator().manual_seed(int(fitted.sum()))
        chance = torch.rand(fitted.shape, generator=draw)
        change = (chance < self.share / 2).int() - (chance > 1 - self.share / 2).int()
        return (fitted + change).clamp(0, 255).to(torch.uint8)


def _annotated(
    config: DecodingConfig,
    explain: PromptExplainer,
    shards: Sequence[Shard],
    factor: float | None = None,
    change: Callable[[Fit, Tensor], Tensor] = _as_it_is,
) -> Iterator[_Annotated]:
    """All photographs, decoded for a factor or whole, the model's input changed or as it is."""
    prompts_of, scales = PromptReader(config.prompts), dict[str, int]()
    least = least_for(explain.squash, factor)

    def guide(sample: PromptedSample, picture: Picture) -> Guide | None:
        scales[sample.key] = picture.scale(least)
        if config.mask.refine == "none" or not explain.has_prompts(sample):
            return None
        return guide_of(picture, config.mask, least_of(config.mask, factor))

    read: ShardReader[list[Prompt]] = ShardReader.of(
        config,
        lambda raw: prompts_of(raw.fields),
        lambda pixels: change(explain.squash, pixels),
        guide,
    )
    annotator = Annotator(explain, config.mask)
    for number, shard in enumerate(shards):
        for batch in in_batches(replace(read, least=least)(shard), config.engine.batch_size):
            samples = [sample for sample in batch if isinstance(sample, Sample)]
            for sample, found in zip(samples, annotator.annotate(samples), strict=True):
                name = (number, sample.key)
                yield _Annotated(name, scales[sample.key], sample.pixels, found)


def _saved(
    config: DecodingConfig, shards: Sequence[Shard], folder: Path, quality: int, longer: int = 0
) -> list[Shard]:
    """The shards with photographs that are JPEGs of a quality, and larger where `longer` says."""
    folder.mkdir()
    for number, shard in enumerate(shards):
        members = _saved_members(config, shard, quality, longer)
        write_tar(folder / f"{number:05}.tar", members)
    return find_shards([str(folder)])


def _saved_members(
    config: DecodingConfig, shard: Shard, quality: int, longer: int
) -> Iterator[tuple[str, bytes]]:
    naming = Naming(config.key_end, config.image_field)
    with storage.open_read(shard.location) as stream:
        samples = read_samples(stream, config.max_sample_bytes, naming)
        for raw in islice(samples, config.limit_samples):
            if (field_of_image := naming.image_field(raw.fields)) is None:
                continue  # nor has it masks where it is read as it is
            try:
                pixels = decode(image_bytes(raw), config.max_pixels)
            except Reject:
                continue  # likewise
            picture, encoded = Image.fromarray(pixels.permute(1, 2, 0).numpy()), BytesIO()
            if longer:
                largest = max(picture.size)
                picture = picture.resize([round(side * longer / largest) for side in picture.size])
            picture.save(encoded, "JPEG", quality=quality)
            for name, data in {**raw.fields, field_of_image: encoded.getvalue()}.items():
                yield f"{raw.key}.{name}", data


def _iou(one: Mask | None, other: Mask | None) -> float:
    if one is None or other is None:
        return 0.0
    mine: Any = [one.segmentation]  # the stubs want bytes
    theirs: Any = [other.segmentation]
    return float(coco.iou(mine, theirs, [0])[0][0])


def _line(row: dict[str, Any]) -> str:
    size = f"longer side {row['longer']}" if row["longer"] else "as they are"
    how = _how(row)
    return (
        f"{size}, {how}: {row['changed']} of {row['images']} changed, input by {row['input']:.2f}; "
        f"{row['masks']} masks, mean IoU {row['mean_iou']:.4f}, least {row['least_iou']:.3f}, "
        f"{row['few']} below {FEW:g}; scores apart by {row['score']:.4f} at the most"
    )


def _how(row: dict[str, Any]) -> str:
    if "factor" in row:
        return f"factor {row['factor']:g}"
    return f"floor, {row['floor']}" if "floor" in row else f"floor, noise in {row['noise']:g}"


if __name__ == "__main__":
    sys.exit(main())
