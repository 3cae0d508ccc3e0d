"""What is said about models that are not explained."""

import pytest
import timm
from open_clip.model import CLIP
from open_clip.transformer import VisionTransformer
from torch import nn

import legrad
from tests.legrad.conftest import EMBED_DIM, TEXT, VISION, in_open_clip
from tests.legrad.towers.examples import eva, rotary, vit


def clip(**vision: object) -> CLIP:
    return CLIP(EMBED_DIM, {**VISION, **vision}, TEXT)


def pooled(kind: object) -> CLIP:
    return clip(attentional_pool=kind, attn_pooler_heads=4)


def relu_tower() -> VisionTransformer:
    return VisionTransformer(16, 4, 16, 1, 2, 4.0, act_layer=nn.ReLU)


def two_norms() -> nn.Module:
    model = vit(fc_norm=True)
    model.norm = nn.LayerNorm(24)
    return model


OPEN_CLIP = {
    "contrastive pooling": (lambda: pooled("parallel"), "attention pooling"),
    "average pooling": (lambda: clip(pool_type="avg"), "pool_type='avg'"),
    "no pooling": (lambda: clip(pool_type="none"), "pool_type='none'"),
    "custom block": (lambda: clip(qk_norm=True), "block 0 is a CustomResidualAttentionBlock"),
    "resnet": (lambda: clip(layers=(1, 1, 1, 1), width=8, image_size=32), "ModifiedResNet"),
    "timm": (
        lambda: clip(timm_model_name="resnet18", timm_pool="avg", image_size=32),
        "TimmModel with a ResNet",
    ),
    "activation": (relu_tower, "block 0 has activation ReLU"),
    "not a clip": (lambda: nn.Linear(2, 2), "Linear: it is not a transformer"),
}


TIMM = {
    "rotary mrope": (
        lambda: rotary(rope_type="mrope", rope_mrope_section=(1, 1, 1)),
        "Eva with rotary positions RotaryEmbeddingMRope: known are RotaryEmbeddingCat, ",
    ),
    "eva02": (lambda: rotary(swiglu_mlp=True, scale_mlp=True), "block 0 has a SwiGLU: its MLP"),
    "rotary qk norm": (lambda: rotary(qk_norm=True), "block 0 with AttentionRope and Mlp"),
    "rotary without fused weights": (
        lambda: rotary(qkv_fused=False, num_kv_heads=1),
        "block 0 with AttentionRope and Mlp",
    ),
    "swiglu": (lambda: eva(swiglu_mlp=True, use_abs_pos_emb=True), "block 0 has a"),
    "inner norm": (lambda: eva(scale_mlp=True), "block 0 with EvaAttention and Mlp"),
    "qk norm": (lambda: vit(qk_norm=True), "block 0 with Attention and Mlp"),
    "parallel block": (
        lambda: vit(block_fn=timm.models.vision_transformer.ParallelThingsBlock),
        "block 0 is a ParallelThingsBlock",
    ),
    "max pooling": (lambda: vit(global_pool="max"), "global_pool='max'"),
    "norm before average": (lambda: vit(global_pool="avg", fc_norm=False), "around its avg"),
    "two norms": (two_norms, "with norms"),
    "two layers": (lambda: in_open_clip(vit(), nn.Linear(5, 5)), r"\(Linear, Linear\)"),
    "convnext": (
        lambda: in_open_clip(timm.create_model("convnext_atto")),
        "TimmModel with a ConvNeXt: it is not a plain transformer",
    ),
}

REFUSED = OPEN_CLIP | TIMM


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_a_reason(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(legrad.UnsupportedModelError, match=message) as refusal:
        legrad.build("legrad", make())
    assert isinstance(refusal.value, ValueError)
    assert "supported: transformers over patch tokens" in str(refusal.value)
    assert "\n" not in str(refusal.value)
