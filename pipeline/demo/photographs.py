"""Photographs with simulated maps: what refinement is worth where no emoji flatters it.

A map as a model might give it is made of each true mask: the share of every patch that is covered,
blurred, times noise that is in part the same for neighbours, plus a floor. It says nothing about
how well a model finds things, and all about what becomes of its maps next to real colours.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, UInt8
from PIL import Image
from scipy import ndimage
from torch import Tensor

import legrad
from pipeline import storage
from pipeline.config import AnnotateConfig, PromptConfig
from pipeline.demo.bench import Bench, coverage
from pipeline.demo.mask_scores import Truth, overlap_scores, paired
from pipeline.errors import ConfigError, naming
from pipeline.evaluation.segmentation.boundary import iou
from pipeline.inputs.prompts import Prompt, PromptedSample, PromptReader
from pipeline.inputs.shards import find_shards
from pipeline.inputs.tars import RawSample
from pipeline.models.explain import Maps

SEED = 0
"""Of the noise, together with the key of the image and the id of the class."""
SIZE, GRID = 224, 14
"""Pixels and patches of the model's square input along a side."""
LEAST, MOST = 0.02, 0.6
"""Parts of the image that a class covers to be looked for."""
UNLABELLED = 0
"""An id that is no class, as are those that the folder does not name."""
KERNEL = np.array([[1, 2, 1], [2, 6, 2], [1, 2, 1]]) / 18
NOISE = 0.3
"""Standard deviation of a cell's logarithm, nearly."""
SHARE = 0.7
"""Part in it of noise that is the cell's own, and of that of its neighbourhood."""
SMOOTH = 5
"""Cells along a side of the square over which the neighbourhood's noise is averaged."""
FLOOR = 0.1
TUNED = 25
"""The first photographs, on which thresholds are chosen; the others report."""


@dataclass
class Photographs:
    """A folder of shards with `masks/KEY.png` of class ids and `categories.json`, id → name.

    Attributes:
        folder: where they are.
        truths: by key, of the photographs that were read.
    """

    folder: str
    truths: dict[str, Truth] = field(default_factory=dict)

    def __post_init__(self) -> None:
        location = storage.join(self.folder, "categories.json")
        with naming(f"--photographs {self.folder}"):
            content = storage.read_bytes(location)
        try:
            self._names = {int(number): str(name) for number, name in json.loads(content).items()}
        except (ValueError, AttributeError) as error:
            raise ConfigError(f"--photographs: {location}: not ids and names: {error}") from error
        self._prompts = PromptReader(PromptConfig())

    def prompts_of(self, raw: RawSample) -> list[Prompt]:
        """Prompts for the classes of a photograph that are neither small nor nearly everything."""
        location = storage.join(self.folder, "masks", f"{raw.key}.png")
        with naming(f"--photographs {self.folder}"):
            content = storage.read_bytes(location)
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            index = np.array(image)
        masks = {
            self._names[number]: index == number
            for number in np.unique(index).tolist()
            if number != UNLABELLED and number in self._names
        }
        masks = {name: mask for name, mask in masks.items() if LEAST <= mask.mean() <= MOST}
        self.truths[raw.key] = Truth(masks)
        return [self._prompts.named(index, name) for index, name in enumerate(masks)]


class SimulatedMaps:
    """A stand-in for a model: its maps are made of the true masks."""

    def __init__(self, photographs: Photographs) -> None:
        """Take the photographs whose masks they are made of."""
        self._photographs = photographs

    @property
    def device(self) -> torch.device:
        """Where the maps are."""
        return torch.device("cpu")

    @property
    def embed_width(self) -> int:
        """Of no vectors."""
        return 0

    @property
    def heat_order(self) -> legrad.HeatOrder:
        """LeGrad's."""
        return legrad.HeatOrder.UPSAMPLE_NORMALISE

    def squash(self, pixels: UInt8[Tensor, "3 height width"]) -> UInt8[Tensor, "3 size size"]:
        """The size of a model's input, black: nothing looks at it."""
        return torch.zeros((3, SIZE, SIZE), dtype=torch.uint8)

    def has_prompts(self, sample: PromptedSample) -> bool:
        """Whether there is anything to look for in the sample."""
        return bool(sample.wanted)

    def __call__(self, samples: Sequence[PromptedSample]) -> list[Maps]:
        """Maps of every prompt of every sample; all scores are 1."""
        results = []
        for sample in samples:
            masks = self._photographs.truths[sample.key].masks
            names = [prompt.category or "" for prompt in sample.wanted]
            raw = np.stack([simulated(masks[name], f"{sample.key} {name}") for name in names])
            results.append(Maps(sample.wanted, torch.from_numpy(raw), [1.0] * len(names), names, 0))
        return results


def simulated(
    mask: Bool[np.ndarray, "height width"], name: str
) -> Float32[np.ndarray, "rows columns"]:
    """A map of a mask, as `SimulatedMaps` gives it.

    Args:
        mask: at the size of its photograph, which is squashed to a square.
        name: of the pair: with `SEED`, the same one has the same noise.
    """
    rng = np.random.default_rng([SEED, *name.encode()])
    blurred = ndimage.convolve(coverage(mask, GRID), KERNEL, mode="nearest")
    own, wide = rng.standard_normal((2, GRID, GRID))
    smooth = ndimage.uniform_filter(wide, SMOOTH, mode="nearest")
    noise = SHARE * own + SHARE * smooth / smooth.std()
    made: np.ndarray = blurred * np.exp(NOISE * noise) + FLOOR * rng.random((GRID, GRID))
    return made.astype(np.float32)


def compare(config: AnnotateConfig, folder: str, thresholds: Sequence[float]) -> dict[str, Any]:
    """Masks of some settings on photographs, next to those of plain maps.

    Plain is what the paper does: every map for itself, with no refinement. Its threshold is always
    chosen among `thresholds`, and that of the settings without their refinement; that of the
    settings is their own, and, as another row, chosen too.

    Args:
        config: with the settings of masks; those of the model have no part in this.
        folder: of the photographs.
        thresholds: to choose from, on the first photographs.

    Returns:
        `plain`, `unrefined`, `recipe` and `tuned`, each with its threshold, scores over the other
        photographs and, but for plain, `gain` with `error`: the mean difference of IoU to plain,
        and its standard error. Also how many images and objects there are.

    Raises:
        ConfigError: there are no more photographs than are for choosing.
    """
    photographs = Photographs(folder)
    bench = Bench(
        config,
        SimulatedMaps(photographs),
        find_shards([folder], flag="--photographs"),
        photographs.prompts_of,
        lambda key: photographs.truths[key],
    )
    if len(bench.truths) <= TUNED:
        raise ConfigError(
            f"--photographs {folder}: {len(bench.truths)} photographs; the first {TUNED} choose "
            "thresholds, and the others report"
        )
    changes: dict[str, dict[str, Any]] = {
        "plain": {"overlap": "keep", "refine": "none"},
        "unrefined": {"refine": "none"},
        "recipe": {},
        "tuned": {},
    }
    rows = {name: _tuned(bench, thresholds, change) for name, change in changes.items()}
    rows["recipe"] = config.mask.threshold
    runs = {name: bench.annotate(**changes[name], threshold=level) for name, level in rows.items()}
    reporting = {
        name: [pair for pair in run.pairs if pair.image >= TUNED] for name, run in runs.items()
    }
    images = np.array([pair.image for pair in reporting["plain"]])
    before = np.array([iou(pair.found, pair.truth) for pair in reporting["plain"]])
    found: dict[str, Any] = {"images": len(bench.truths) - TUNED, "objects": len(images)}
    for name, pairs in reporting.items():
        found[name] = {"threshold": rows[name], **overlap_scores(pairs)}
        found[name]["seconds_per_image"] = runs[name].seconds
        if name != "plain":
            after = np.array([iou(pair.found, pair.truth) for pair in pairs])
            found[name]["gain"], found[name]["error"] = paired(after - before, images)
    return found


def _tuned(bench: Bench, thresholds: Sequence[float], mask: dict[str, Any]) -> float:
    """The threshold with the best mIoU on the photographs that are for choosing."""

    def miou(level: float) -> float:
        return overlap_scores(bench.annotate(TUNED, **mask, threshold=level).pairs)["mask_miou"]

    return max(thresholds, key=miou)
