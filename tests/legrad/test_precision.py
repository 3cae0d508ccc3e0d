"""Half precision against float32: what is found stays where it was, or the method refuses.

Without units for it half precision is slow: `make test` tries everything on one scene of the demo,
and LeGrad on two blocks of ViT-B/16, which sees images of 64² here; the rest is `long`.
"""

import copy
from dataclasses import dataclass, field

import pytest
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from torch import Tensor

import legrad
from pipeline.demo.quality import bundled_scenes
from pipeline.models.demo import TEMPLATE, create, normalise, tokenize

LEAST_IOU = 0.95
HALF = {torch.bfloat16: "bfloat16", torch.float16: "float16"}
NEEDS_FLOAT32 = {
    "lrp": "Lrp",
    "partial_lrp": "PartialLrp",
    "transformer_attribution": "TransformerAttribution",
}
VARIANTS = {
    "legrad by autograd": {"engine": "autograd"},
    "legrad signed": {"relu": False},
    "attention_cam te": {"form": "te"},
    "gradcam without cls": {"with_cls": False},
}
NAMES = [*legrad.METHODS, *VARIANTS]


@dataclass
class Case:
    """A model in float32 with images and texts, and the size of the masks."""

    model: CLIP
    arguments: tuple[Tensor, Tensor, Tensor]
    size: tuple[int, int]
    in_float32: dict[str, Tensor] = field(default_factory=dict)  # masks by name, made once

    def expected(self, name: str) -> Tensor:
        if name not in self.in_float32:
            self.in_float32[name] = self.masks(name, torch.float32)
        return self.in_float32[name]

    def masks(self, name: str, dtype: torch.dtype) -> Tensor:
        model = copy.deepcopy(self.model).to(dtype)
        explainer = legrad.build(name.partition(" ")[0], model, **VARIANTS.get(name, {}))
        raw = explainer(*self.arguments)
        assert raw.dtype == torch.float32
        return legrad.heatmap(raw, self.size, order=explainer.heat_order) > 0.5


def vit_b_16(layers: int, side: int) -> Case:
    """ViT-B/16 with random weights, or some of its blocks, for small images."""
    torch.manual_seed(0)
    vision = {"layers": layers, "width": 768, "patch_size": 16, "image_size": side}
    text = {"context_length": 4, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1}
    model = CLIP(512, vision, text).eval()
    texts = F.normalize(torch.randn(2, 512), dim=-1)
    return Case(model, (torch.randn(1, 3, side, side), texts, torch.tensor([0, 0])), (224, 224))


@torch.no_grad()
def demo(count: int) -> Case:
    model, scenes = create(), bundled_scenes()[:count]
    names = [(index, name) for index, scene in enumerate(scenes) for name in scene.masks]
    pixels = torch.stack([torch.from_numpy(scene.image) for scene in scenes]).permute(0, 3, 1, 2)
    side = model.visual.image_size
    images = normalise(F.interpolate(pixels.float(), side, mode="bicubic", antialias=True))
    texts = tokenize([TEMPLATE.format(name) for _, name in names])
    arguments = (
        images,
        model.encode_text(texts, normalize=True),
        torch.tensor([index for index, _ in names]),
    )
    return Case(model, arguments, (pixels.shape[2], pixels.shape[3]))


@pytest.fixture(scope="module")
def few_blocks() -> Case:
    return vit_b_16(layers=2, side=64)


@pytest.fixture(scope="module")
def all_blocks() -> Case:
    return vit_b_16(layers=12, side=64)


@pytest.fixture(scope="module")
def scenes() -> Case:
    return demo(count=1)


def iou(a: Tensor, b: Tensor) -> float:
    """Mean over the masks; of two empty ones 1."""
    union = (a | b).sum(dim=(1, 2))
    shared = (a & b).sum(dim=(1, 2)) / union.clamp(min=1)
    return float(torch.where(union == 0, 1.0, shared).mean())


def check(case: Case, name: str, dtype: torch.dtype) -> None:
    if name in NEEDS_FLOAT32:
        message = f"{NEEDS_FLOAT32[name]} of a {HALF[dtype]} model: .* in float32$"
        with pytest.raises(ValueError, match=message):
            case.masks(name, dtype)
    else:
        expected = case.expected(name)
        assert expected.any()
        assert iou(case.masks(name, dtype), expected) >= LEAST_IOU


REST_IS_LONG = [n if n == "legrad" else pytest.param(n, marks=pytest.mark.long) for n in NAMES]


@pytest.mark.parametrize("dtype", HALF, ids=HALF.values())
@pytest.mark.parametrize("name", REST_IS_LONG)
def test_masks_of_some_blocks_of_vit_b_16(few_blocks: Case, name: str, dtype: torch.dtype) -> None:
    check(few_blocks, name, dtype)


@pytest.mark.parametrize("dtype", HALF, ids=HALF.values())
@pytest.mark.parametrize("name", NAMES)
def test_masks_of_the_demo(scenes: Case, name: str, dtype: torch.dtype) -> None:
    check(scenes, name, dtype)


@pytest.mark.long
@pytest.mark.parametrize("name", legrad.METHODS)
def test_masks_of_all_blocks_of_vit_b_16(all_blocks: Case, name: str) -> None:
    check(all_blocks, name, torch.bfloat16)
