"""The part of an image encoder that LeGrad needs: tokens in, blocks, score head out.

`ClipTower` reads an open_clip `VisionTransformer` that pools by its CLS token. Everything it cannot
treat exactly is refused when the explainer is built, with the reason: a wrong map looks as
plausible as a right one.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from open_clip.transformer import (
    LayerScale,
    QuickGELU,
    ResidualAttentionBlock,
    VisionTransformer,
)
from torch import Tensor, nn

from legrad.blocks import (
    ActivationGradient,
    Block,
    gelu_gradient,
    quick_gelu_gradient,
    wide_type,
)

SUPPORTED = "supported: an open_clip VisionTransformer with CLS pooling and standard blocks"


class UnsupportedModelError(ValueError):
    """The model has no exact LeGrad here; the message says what was found, why, and what has."""

    def __init__(self, found: str, reason: str) -> None:
        """Compose the one-line message from what was found and why it is refused."""
        super().__init__(f"{found}: {reason} ({SUPPORTED})")


class ClipTower:
    """The image tower of an open_clip model, as embedding, blocks and two read-outs.

    Accepts `CLIP`, `CustomTextCLIP` or a bare `VisionTransformer` in float32, bfloat16, float16 or
    float64. The model is only ever read; its training flag is ignored (eval semantics always).

    Raises:
        UnsupportedModelError: attention or average pooling, custom blocks, timm towers, ResNets.
    """

    def __init__(self, model: nn.Module) -> None:
        """Check that `model` is supported, and keep references to its parts."""
        visual = _vision_transformer(model)
        self._visual = visual
        self.blocks = [
            _open(block, index) for index, block in enumerate(visual.transformer.resblocks)
        ]
        self.head = ScoreHead(visual.ln_post, visual.proj)

    @property
    def dtype(self) -> torch.dtype:
        """The type of the residual stream and of the large matrices."""
        dtype: torch.dtype = self._visual.conv1.weight.dtype
        return dtype

    @property
    def wide(self) -> torch.dtype:
        """The type for statistics and sums: float32, or float64 for a float64 model."""
        return wide_type(self.dtype)

    def grid(self, images: Float[Tensor, "B 3 H W"]) -> tuple[int, int]:
        """Patch rows and columns of `images`.

        Raises:
            ValueError: not a batch of RGB images, or a side is not a multiple of the patch side.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images have shape {tuple(images.shape)}, expected [B, 3, H, W]")
        size = (images.shape[-2], images.shape[-1])
        patch = self._visual.patch_size
        if min(size) == 0 or size[0] % patch[0] or size[1] % patch[1]:
            raise ValueError(
                f"image size {size[0]}x{size[1]} is not a multiple of the patch size "
                f"{patch[0]}x{patch[1]} in both directions"
            )
        return size[0] // patch[0], size[1] // patch[1]

    def embed(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B N D"]:
        """Tokens before the first block, CLS first, then patches row-major (height outer)."""
        visual = self._visual
        grid = self.grid(images)
        patches = visual.conv1(images.to(self.dtype)).flatten(2).transpose(1, 2)
        cls = visual.class_embedding.to(patches.dtype).expand(len(images), 1, -1)
        tokens = torch.cat([cls, patches], dim=1)
        result: Tensor = visual.ln_pre(tokens + self._positions(grid).to(tokens.dtype))
        return result

    def embedding(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B E"]:
        """The model's own image embedding of the last block's output, L2-normalised.

        LN_post acts on each token alone, so selecting CLS before or after it
        (`final_ln_after_pool`) is the same.
        """
        pooled: Tensor = self._visual.ln_post(tokens[:, 0])
        if self._visual.proj is not None:
            pooled = pooled @ self._visual.proj
        return F.normalize(pooled.to(self.wide), dim=-1)

    def _positions(self, grid: tuple[int, int]) -> Float[Tensor, "N D"]:
        """Positional embedding for `grid`: the stored one, or a resized copy of it.

        The copy is made per call and never written back (EVALUATION §1.1): an explainer that
        overwrites the model's own embedding is wrong from the second image size on.
        """
        stored: Tensor = self._visual.positional_embedding
        native = self._visual.grid_size
        if grid == tuple(native):
            return stored
        cls, patches = stored[:1], stored[1:]
        image = patches.T.reshape(1, -1, *native)
        resized = F.interpolate(
            image.to(self.wide), size=grid, mode="bicubic", antialias=True, align_corners=False
        )
        return torch.cat([cls, resized[0].flatten(1).T.to(stored.dtype)])


class ScoreHead:
    """s = ⟨t, u/‖u‖⟩ with u = proj(LN_post(z̄)), and its gradient (EVALUATION §1.1, steps 2–3)."""

    def __init__(self, norm: nn.LayerNorm, proj: Float[Tensor, "D E"] | None) -> None:
        """Keep references to LN_post and the projection (None: the identity)."""
        self._norm = norm
        self._proj = proj

    @property
    def width(self) -> int:
        """E, the dimension of the joint space."""
        return len(self._norm.weight) if self._proj is None else self._proj.shape[1]

    def score(self, mean: Float[Tensor, "Q D"], text: Float[Tensor, "Q E"]) -> Float[Tensor, " Q"]:
        """Similarity of each mean token to its own text, differentiable."""
        unit = F.normalize(self._project(self._normalise(mean)), dim=-1)
        return (text * unit).sum(dim=-1)

    def gradient(
        self, mean: Float[Tensor, "Q D"], text: Float[Tensor, "Q E"]
    ) -> Float[Tensor, "Q D"]:
        """∂s/∂z̄ of `score` by hand, in the type of `mean`: normalisation, projection, LayerNorm."""
        weight, _ = self._affine(mean.dtype)
        u = self._project(self._normalise(mean))
        length = u.norm(dim=-1, keepdim=True)
        unit = u / length
        du = (text - (text * unit).sum(dim=-1, keepdim=True) * unit) / length
        dy = du if self._proj is None else du @ self._proj.to(mean.dtype).T

        variance, centre = torch.var_mean(mean, dim=-1, correction=0, keepdim=True)
        inverse = torch.rsqrt(variance + self._norm.eps)
        whitened = (mean - centre) * inverse
        dw = dy * weight
        tilt = (dw * whitened).mean(dim=-1, keepdim=True)
        result: Tensor = (dw - dw.mean(dim=-1, keepdim=True) - tilt * whitened) * inverse
        return result

    def _normalise(self, mean: Float[Tensor, "Q D"]) -> Float[Tensor, "Q D"]:
        weight, bias = self._affine(mean.dtype)
        return F.layer_norm(mean, mean.shape[-1:], weight, bias, self._norm.eps)

    def _project(self, y: Float[Tensor, "Q D"]) -> Float[Tensor, "Q E"]:
        return y if self._proj is None else y @ self._proj.to(y.dtype)

    def _affine(self, dtype: torch.dtype) -> tuple[Float[Tensor, " D"], Float[Tensor, " D"]]:
        return self._norm.weight.to(dtype), self._norm.bias.to(dtype)


def _vision_transformer(model: nn.Module) -> VisionTransformer:
    """The supported image tower inside `model`; every refusal is made here or in `_open`."""
    visual = model if isinstance(model, VisionTransformer) else getattr(model, "visual", None)
    if visual is None:
        raise UnsupportedModelError(type(model).__name__, "it has no image tower `.visual`")
    name = type(visual).__name__
    if name == "TimmModel":
        raise UnsupportedModelError(
            f"image tower {name} ({type(visual.trunk).__name__})",
            "its blocks and pooling are timm's, with a score head of their own",
        )
    if not isinstance(visual, VisionTransformer):
        raise UnsupportedModelError(
            f"image tower {name}", "it is not a transformer over patch tokens with a CLS token"
        )
    if visual.attn_pool is not None:
        raise UnsupportedModelError(
            f"{name} with attention pooling (CoCa)",
            "its score reads the tokens through the pooler's attention, not through their mean",
        )
    if visual.pool_type != "tok":
        raise UnsupportedModelError(
            f"{name} with pool_type={visual.pool_type!r}", "its embedding is not read from CLS"
        )
    return visual


def _open(block: Any, index: int) -> Block:
    """The parts of one open_clip block; refuses what `Block` would compute differently."""
    if type(block) is not ResidualAttentionBlock:
        raise UnsupportedModelError(
            f"block {index} is a {type(block).__name__}",
            "its attention or MLP has extra normalisation or scaling that the closed form lacks",
        )
    return Block(
        heads=block.attn.num_heads,
        norm1=block.ln_1,
        qkv_weight=block.attn.in_proj_weight,
        qkv_bias=block.attn.in_proj_bias,
        out=block.attn.out_proj,
        scale1=_layer_scale(block.ls_1),
        norm2=block.ln_2,
        expand=block.mlp.c_fc,
        activation=block.mlp.gelu,
        activation_gradient=_activation_gradient(block.mlp.gelu, index),
        contract=block.mlp.c_proj,
        scale2=_layer_scale(block.ls_2),
    )


def _layer_scale(module: nn.Module) -> Tensor | None:
    return module.gamma if isinstance(module, LayerScale) else None


def _activation_gradient(module: nn.Module, index: int) -> ActivationGradient:
    if isinstance(module, QuickGELU):
        return quick_gelu_gradient
    if isinstance(module, nn.GELU):
        return gelu_gradient(module.approximate)
    raise UnsupportedModelError(
        f"block {index} has activation {type(module).__name__}",
        "its derivative is not known here; known are GELU, GELU(tanh) and QuickGELU",
    )
