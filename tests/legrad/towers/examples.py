"""Small towers of every kind that is explained, with random weights in float64, and pairs."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from open_clip.timm_model import TimmModel
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from legrad.towers.open import open_tower
from tests.legrad.conftest import EMBED_DIM, TEXT, VISION, in_open_clip

SMALL = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 3}


def randomised(model: nn.Module) -> nn.Module:
    """Every bias, LayerNorm and LayerScale must matter, so none keeps its neutral start."""
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.15 * torch.randn_like(parameter) + (parameter.ndim == 1))
            if parameter.ndim > 1:
                parameter.mul_(2)
    return model.eval().double()


def coca() -> CLIP:
    vision = {**VISION, "attentional_pool": True, "attn_pooler_heads": 4}
    return CLIP(EMBED_DIM, {**vision, "attn_pooler_queries": 3}, TEXT)


def siglip(**kwargs: object) -> TimmModel:
    trunk = VisionTransformer(
        **SMALL, num_classes=0, class_token=False, global_pool="map", **kwargs
    )
    return in_open_clip(trunk)


def vit(**kwargs: object) -> VisionTransformer:
    return VisionTransformer(**{**SMALL, "num_classes": 5, **kwargs})


def eva(**kwargs: object) -> Eva:
    return Eva(**{**SMALL, "num_classes": 5, "global_pool": "token", **kwargs})


def rotary(**kwargs: object) -> Eva:
    return eva(**{"attn_type": "rope", "use_rot_pos_emb": True, **kwargs})


PE = {
    "global_pool": "map", "attn_pool_num_heads": 4, "use_pre_transformer_norm": True,
    "ref_feat_shape": (4, 4), "rope_grid_indexing": "xy",
}  # fmt: skip
DINOV3 = {
    "rope_type": "dinov3", "attn_type": "eva", "rope_rotate_half": True, "rope_temperature": 100,
    "use_abs_pos_emb": False, "num_reg_tokens": 4, "init_values": 0.1, "qkv_bias": False,
    "dynamic_img_size": True,
}  # fmt: skip
ROTARY: dict[str, Callable[[], nn.Module]] = {
    "pe": lambda: in_open_clip(rotary(**PE, rope_grid_offset=1.0, num_classes=9)),
    "pe without cls": lambda: in_open_clip(rotary(**PE, class_token=False, num_classes=9)),
    "rotary": rotary,
    "rotary by average": lambda: rotary(global_pool="avg", attn_type="eva"),
    "rotary mixed": lambda: rotary(rope_type="mixed", no_embed_class=True, num_reg_tokens=2),
    "dinov3": lambda: rotary(**DINOV3),
    "dinov3 of one size": lambda: rotary(**{**DINOV3, "dynamic_img_size": False}),
}
TOWERS: dict[str, Callable[[], nn.Module]] = {
    "siglip": siglip,
    "siglip gelu tanh": lambda: siglip(act_layer="gelu_tanh"),
    "siglip with head": lambda: in_open_clip(
        VisionTransformer(**SMALL, num_classes=7, class_token=False, global_pool="map")
    ),
    "coca": lambda: coca().visual,
    "coca same width": lambda: (
        CLIP(24, {**VISION, "attentional_pool": True, "attn_pooler_heads": 4}, TEXT).visual
    ),
    "clipa": lambda: (
        CLIP(EMBED_DIM, {**VISION, "pool_type": "avg", "final_ln_after_pool": True}, TEXT).visual
    ),
    "classifier": vit,
    "classifier by average": lambda: vit(global_pool="avg"),
    "classifier without cls": lambda: vit(global_pool="avg", class_token=False),
    "deit3": lambda: vit(no_embed_class=True, init_values=1e-2),
    "registers": lambda: vit(reg_tokens=3, init_values=1e-2),
    "registers without position": lambda: vit(reg_tokens=3, no_embed_class=True, num_classes=0),
    "no qkv bias": lambda: vit(qkv_bias=False),
    "pre norm": lambda: vit(pre_norm=True),
    "clip in timm": lambda: in_open_clip(vit(num_classes=0), nn.Linear(24, 9, bias=True)),
    "eva": eva,
    "eva by average": lambda: eva(global_pool="avg", init_values=0.1),
    "eva in open_clip": lambda: in_open_clip(eva(num_classes=9)),
    **ROTARY,
}


@dataclass
class Example:
    """A tower with ragged pairs; image 1 has no text."""

    model: nn.Module
    images: Tensor
    text: Tensor
    image_index: Tensor

    @property
    def arguments(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.images, self.text, self.image_index


def example(name: str, size: tuple[int, int] = (16, 16)) -> Example:
    model = randomised(TOWERS[name]())
    images = torch.randn(3, 3, *size, dtype=torch.float64)
    text = torch.randn(5, open_tower(model).head.width, dtype=torch.float64)
    return Example(model, images, F.normalize(text, dim=1), torch.tensor([2, 0, 2, 2, 0]))


@torch.no_grad()
def own_embedding(model: nn.Module, images: Tensor) -> Tensor:
    """What the model itself makes of images."""
    if isinstance(model, VisionTransformer | Eva):  # a classifier: logits without the bias
        return model.forward_head(model.forward_features(images), pre_logits=True)
    return F.normalize(model(images), dim=1)
