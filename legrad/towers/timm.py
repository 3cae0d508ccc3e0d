"""Reading timm's transformers: SigLIP's map pooling, classifiers, registers, EVA, PE, DINOv3.

A bare timm model is a classifier: its score is a logit, a text is a row of its head, and nothing is
L2-normalised. Inside open_clip's `TimmModel` the same trunk ends in a joint embedding.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from open_clip.timm_model import TimmModel
from timm.layers.attention import Attention, AttentionRope
from timm.layers.attention_pool import AttentionPoolLatent
from timm.layers.layer_scale import LayerScale
from timm.layers.mlp import GluMlp, Mlp, SwiGLU
from timm.layers.patch_embed import PatchEmbed
from timm.models.eva import Eva, EvaAttention, EvaBlock
from timm.models.vision_transformer import Block as TimmBlock
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from legrad.errors import UnsupportedModelError
from legrad.towers import rotary
from legrad.towers.activations import activation_gradient
from legrad.towers.block import Block, Tail
from legrad.towers.head import Pooler, ScoreHead
from legrad.towers.linear import Linear
from legrad.towers.tower import Tower


def read(visual: nn.Module) -> Tower | None:
    """The tower of open_clip's `TimmModel` or of a bare timm transformer; None for anything else.

    Raises:
        UnsupportedModelError: another kind of trunk, or blocks and pooling not treated here.
    """
    if isinstance(visual, TimmModel):
        return _tower(visual.trunk, visual.head)
    if isinstance(visual, VisionTransformer | Eva):
        return _tower(visual, None)
    return None


def _tower(trunk: Any, projection: nn.Sequential | None) -> Tower:
    name = type(trunk).__name__
    if type(trunk) not in (VisionTransformer, Eva):
        where = "" if projection is None else "image tower TimmModel with a "
        raise UnsupportedModelError(
            f"{where}{name}", "it is not a plain transformer over patch tokens"
        )
    _check_embedding(trunk, name)
    norm = _final_norm(trunk, name)
    pooler = None if trunk.attn_pool is None else _pooler(trunk, name)
    prefix = [getattr(trunk, token, None) for token in ("cls_token", "reg_token")]
    positions = trunk.pos_embed
    blocks = tuple(_open(block, i) for i, block in enumerate(trunk.blocks))
    rotations = rotary.read(trunk, name)
    if rotations is not None:
        blocks = tuple(replace(block, rotation=rotary.unplaced) for block in blocks)
    return Tower(
        conv=trunk.patch_embed.proj,
        prefix=tuple(token for token in prefix if token is not None),
        positions=None if positions is None else positions.flatten(0, -2),
        native=tuple(trunk.patch_embed.grid_size),
        norm_pre=trunk.norm_pre if hasattr(trunk, "norm_pre") else nn.Identity(),
        blocks=blocks,
        pooler=pooler,
        average=trunk.global_pool == "avg",
        head=_head(trunk, projection, None if pooler is not None else norm),
        rotations=rotations,
    )


def _check_embedding(trunk: Any, name: str) -> None:
    patch = trunk.patch_embed
    if type(patch) is not PatchEmbed or not isinstance(patch.norm, nn.Identity):
        raise UnsupportedModelError(
            f"{name} with patch embedding {type(patch).__name__}",
            "it does more than one convolution of each patch",
        )
    if trunk.global_pool not in ("token", "avg", "map"):
        raise UnsupportedModelError(
            f"{name} with global_pool={trunk.global_pool!r}", "known are token, avg and map"
        )
    if trunk.global_pool == "avg" and getattr(trunk, "pool_include_prefix", False):
        raise UnsupportedModelError(f"{name}", "its average pooling includes the prefix tokens")


def _final_norm(trunk: Any, name: str) -> nn.LayerNorm | None:
    """The one LayerNorm between the last block and the head; the pooler's `before` for map pooling.

    It has to act on single tokens: where it stands before an average, it does not commute with it.
    """
    norms = [norm for norm in (trunk.norm, trunk.fc_norm) if not isinstance(norm, nn.Identity)]
    before_average = trunk.global_pool == "avg" and not isinstance(trunk.norm, nn.Identity)
    after_pooler = trunk.global_pool == "map" and not isinstance(trunk.fc_norm, nn.Identity)
    if len(norms) > 1 or before_average or after_pooler:
        raise UnsupportedModelError(
            f"{name} with norms {[type(n).__name__ for n in (trunk.norm, trunk.fc_norm)]} around "
            f"its {trunk.global_pool} pooling",
            "its head does not see one LayerNorm of one pooled token",
        )
    if norms and not isinstance(norms[0], nn.LayerNorm):
        raise UnsupportedModelError(
            f"{name} with final {type(norms[0]).__name__}", "known is LayerNorm"
        )
    return norms[0] if norms else None


def _head(trunk: Any, projection: nn.Sequential | None, norm: nn.LayerNorm | None) -> ScoreHead:
    """The projection into the joint space, or none for a classifier, whose rows are the texts."""
    if projection is None:
        return ScoreHead(trunk.num_features, norm, None, unit=False)
    linears = [trunk.head, *projection.children()]
    linears = [m for m in linears if not isinstance(m, nn.Identity | nn.Dropout)]
    if not linears:
        return ScoreHead(trunk.num_features, norm, None)
    if len(linears) > 1 or not isinstance(linears[0], nn.Linear):
        found = ", ".join(type(m).__name__ for m in linears)
        raise UnsupportedModelError(
            f"image tower TimmModel with projection ({found})", "known is one linear layer"
        )
    linear = linears[0]
    return ScoreHead(linear.out_features, norm, linear.weight.T, linear.bias)


def _pooler(trunk: Any, name: str) -> Pooler:
    pool: Any = trunk.attn_pool
    kind: Any = type(pool)
    standard = (
        kind is AttentionPoolLatent
        and pool.pos_embed is None
        and pool.pool == "token"
        and pool.mlp is not None
        and isinstance(pool.q_norm, nn.Identity)
        and isinstance(pool.q, nn.Linear)
        and isinstance(pool.norm, nn.LayerNorm)
        # Eva's poolers have no choice: they see every token.
        and (trunk.num_prefix_tokens == 0 or getattr(trunk, "pool_include_prefix", True))
    )
    if not standard:
        raise UnsupportedModelError(
            f"{name} with pooling {type(pool).__name__}",
            "its attention pooler has other parts than SigLIP's, or leaves out the prefix tokens",
        )
    key, value = (
        Linear(w.detach(), None if b is None else b.detach())
        for w, b in zip(pool.kv.weight.chunk(2), _halves(pool.kv.bias), strict=True)
    )
    return Pooler(
        heads=pool.num_heads,
        query=pool.latent.detach()[0, :1],
        before=trunk.norm,
        norm=nn.Identity(),
        to_query=Linear.of(pool.q),
        to_key=key,
        to_value=value,
        out=Linear.of(pool.proj),
        tail=Tail(
            heads=pool.num_heads,
            out=Linear.of(pool.proj),
            scale1=None,
            norm2=pool.norm,
            expand=Linear.of(pool.mlp.fc1),
            activation=pool.mlp.act,
            activation_gradient=activation_gradient(pool.mlp.act, "the pooler"),
            contract=Linear.of(pool.mlp.fc2),
            scale2=None,
        ),
    )


def _halves(bias: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    if bias is None:
        return None, None
    first, second = bias.chunk(2)
    return first, second


def _open(block: Any, index: int) -> Block:
    """The parts of one block; refuses what `Block` would compute differently."""
    if type(block) not in (TimmBlock, EvaBlock):
        raise UnsupportedModelError(
            f"block {index} is a {type(block).__name__}",
            "it is not two pre-norm residual branches, attention and then an MLP",
        )
    attention: Any = block.attn
    mlp: Any = block.mlp
    if isinstance(mlp, GluMlp | SwiGLU):
        raise UnsupportedModelError(f"block {index} has a {type(mlp).__name__}", "its MLP is gated")
    plain = (
        type(attention) in (Attention, AttentionRope, EvaAttention)
        and type(mlp) is Mlp
        and getattr(attention, "gate", None) is None
        and attention.qkv is not None
        and attention.proj.in_features == attention.proj.out_features
        and all(isinstance(n, nn.Identity) for n in (attention.q_norm, attention.k_norm))
        and all(isinstance(n, nn.Identity) for n in (attention.norm, mlp.norm))
        and isinstance(block.norm2, nn.LayerNorm)
    )
    if not plain:
        raise UnsupportedModelError(
            f"block {index} with {type(attention).__name__} and {type(mlp).__name__}",
            "its attention or MLP has extra normalisation, gates or widths of its own",
        )
    eva = isinstance(block, EvaBlock)
    return Block(
        heads=attention.num_heads,
        norm1=block.norm1,
        qkv=Linear(attention.qkv.weight, _joint_bias(attention)),
        out=Linear.of(attention.proj),
        scale1=block.gamma_1 if eva else _layer_scale(block.ls1),
        norm2=block.norm2,
        expand=Linear.of(mlp.fc1),
        activation=mlp.act,
        activation_gradient=activation_gradient(mlp.act, f"block {index}"),
        contract=Linear.of(mlp.fc2),
        scale2=block.gamma_2 if eva else _layer_scale(block.ls2),
    )


def _layer_scale(module: nn.Module) -> Tensor | None:
    return module.gamma if isinstance(module, LayerScale) else None


@torch.no_grad()
def _joint_bias(attention: Any) -> Tensor | None:
    """Of queries, keys and values; the keys of `EvaAttention` have none, which is kept as zeros."""
    if not hasattr(attention, "k_bias"):
        bias: Tensor | None = attention.qkv.bias
        return bias
    if attention.q_bias is None:
        return None
    return torch.cat([attention.q_bias, attention.k_bias, attention.v_bias])
