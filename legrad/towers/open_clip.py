"""Reading open_clip's own image transformer: CLIP by CLS or by average, and CoCa's pooler."""

from __future__ import annotations

from typing import Any

import torch
from open_clip.transformer import (
    AttentionalPooler,
    LayerScale,
    ResidualAttentionBlock,
    VisionTransformer,
)
from torch import Tensor, nn

from legrad.errors import UnsupportedModelError
from legrad.towers.activations import activation_gradient
from legrad.towers.block import Block
from legrad.towers.head import Pooler, ScoreHead
from legrad.towers.linear import Linear
from legrad.towers.tower import Tower


def read(visual: nn.Module) -> Tower | None:
    """The tower of a `VisionTransformer`; None for anything else.

    Raises:
        UnsupportedModelError: no pooling, two-stage pooling, or custom blocks.
    """
    if not isinstance(visual, VisionTransformer):
        return None
    pooler = _pooler(visual)
    average = visual.pool_type == "avg" and visual.final_ln_after_pool  # CLIPA
    if pooler is None and not average and visual.pool_type != "tok":
        raise UnsupportedModelError(
            f"VisionTransformer with pool_type={visual.pool_type!r}",
            "its embedding is neither LN_post of CLS nor LN_post of the mean patch",
        )
    norm, proj = visual.ln_post, visual.proj
    return Tower(
        conv=visual.conv1,
        prefix=(visual.class_embedding,),
        positions=visual.positional_embedding,
        native=tuple(visual.grid_size),
        norm_pre=visual.ln_pre,
        blocks=tuple(_open(block, i) for i, block in enumerate(visual.transformer.resblocks)),
        pooler=pooler,
        average=average,
        # LN_post acts on each token alone, so selecting CLS before or after it is the same.
        head=ScoreHead(len(norm.weight) if proj is None else proj.shape[1], norm, proj),
    )


def _pooler(visual: VisionTransformer) -> Pooler | None:
    """CoCa's pooler: its first query is the contrastive one."""
    pooler: AttentionalPooler | None = visual.attn_pool
    if pooler is None:
        return None
    if visual.attn_pool_contrastive is not None or visual.pool_type != "tok":
        kind = visual.attn_pool_type or visual.pool_type
        raise UnsupportedModelError(
            f"VisionTransformer with attention pooling ({kind})",
            "its embedding is not the first query of one attention pooler",
        )
    attention = pooler.attn
    if attention.in_proj_weight is None:
        weights = [attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight]
    else:
        weights = list(attention.in_proj_weight.chunk(3))
    query, key, value = (
        Linear(w.detach(), b.detach())
        for w, b in zip(weights, attention.in_proj_bias.chunk(3), strict=True)
    )
    with torch.no_grad():
        first = pooler.ln_q(pooler.query[:1])
    return Pooler(
        heads=attention.num_heads,
        query=first,
        before=nn.Identity(),
        norm=pooler.ln_k,
        to_query=query,
        to_key=key,
        to_value=value,
        out=Linear.of(attention.out_proj),
        tail=None,
    )


def _open(block: Any, index: int) -> Block:
    """The parts of one block; refuses what `Block` would compute differently."""
    if type(block) is not ResidualAttentionBlock:
        raise UnsupportedModelError(
            f"block {index} is a {type(block).__name__}",
            "its attention or MLP has extra normalisation or scaling that the closed form lacks",
        )
    return Block(
        heads=block.attn.num_heads,
        norm1=block.ln_1,
        qkv=Linear(block.attn.in_proj_weight, block.attn.in_proj_bias),
        out=Linear.of(block.attn.out_proj),
        scale1=_layer_scale(block.ls_1),
        norm2=block.ln_2,
        expand=Linear.of(block.mlp.c_fc),
        activation=block.mlp.gelu,
        activation_gradient=activation_gradient(block.mlp.gelu, f"block {index}"),
        contract=Linear.of(block.mlp.c_proj),
        scale2=_layer_scale(block.ls_2),
    )


def _layer_scale(module: nn.Module) -> Tensor | None:
    return module.gamma if isinstance(module, LayerScale) else None
