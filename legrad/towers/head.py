"""How a tower reads a score off tokens: a linear head, and attention poolers in front of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from legrad.towers.block import Tail, per_head
from legrad.towers.linear import Linear


@dataclass(frozen=True)
class ScoreHead:
    """s = ⟨t, u⟩ for u = proj(LN(z)) + bias, divided by its length for a joint embedding.

    Attributes:
        width: E, the number of channels of u and of a text.
        norm: the LayerNorm before the projection; None for none.
        proj: [D, E]; None for the identity.
        bias: of the projection, [E].
        unit: whether u is divided by its length (image-text models), or the score is a logit.
    """

    width: int
    norm: nn.LayerNorm | None
    proj: Float[Tensor, "D E"] | None
    bias: Float[Tensor, " E"] | None = None
    unit: bool = True

    def embed(self, z: Float[Tensor, "*n D"]) -> Float[Tensor, "*n E"]:
        """u, of unit length where the score is a cosine; computed in the type of `z`."""
        u = self._project(self._normalise(z))
        return F.normalize(u, dim=-1) if self.unit else u

    def score(self, z: Float[Tensor, "Q D"], text: Float[Tensor, "Q E"]) -> Float[Tensor, " Q"]:
        """Similarity of each vector to its own text, differentiable."""
        return (text * self.embed(z)).sum(dim=-1)

    def gradient(self, z: Float[Tensor, "Q D"], text: Float[Tensor, "Q E"]) -> Float[Tensor, "Q D"]:
        """∂s/∂z of `score` by hand, in the type of `z`: normalisation, projection, LayerNorm."""
        du = text
        if self.unit:
            u = self._project(self._normalise(z))
            length = u.norm(dim=-1, keepdim=True)
            unit = u / length
            du = (text - (text * unit).sum(dim=-1, keepdim=True) * unit) / length
        dy = du if self.proj is None else du @ self.proj.to(z.dtype).T
        if self.norm is None:
            return dy
        variance, centre = torch.var_mean(z, dim=-1, correction=0, keepdim=True)
        inverse = torch.rsqrt(variance + self.norm.eps)
        whitened = (z - centre) * inverse
        dw = dy * self.norm.weight.to(z.dtype)
        tilt = (dw * whitened).mean(dim=-1, keepdim=True)
        return (dw - dw.mean(dim=-1, keepdim=True) - tilt * whitened) * inverse

    def _normalise(self, z: Float[Tensor, "*n D"]) -> Float[Tensor, "*n D"]:
        if self.norm is None:
            return z
        weight, bias = self.norm.weight.to(z.dtype), self.norm.bias.to(z.dtype)
        return F.layer_norm(z, z.shape[-1:], weight, bias, self.norm.eps)

    def _project(self, y: Float[Tensor, "*n D"]) -> Float[Tensor, "*n E"]:
        if self.proj is not None:
            y = y @ self.proj.to(y.dtype)
        return y if self.bias is None else y + self.bias.to(y.dtype)


@dataclass(frozen=True)
class Pooler:
    """Attention of one learned query over all tokens, as SigLIP and CoCa read out an image.

    Attributes:
        heads: h.
        query: the query [1, C] before its projection.
        before: the tower's LayerNorm in front of the pooler.
        norm: the pooler's own LayerNorm over keys and values.
        to_query: projection of the query, which only one-query poolers may lack.
        to_key: of the keys.
        to_value: of the values.
        out: output projection.
        tail: the residual MLP on the pooled token and its output projection; None for none.
    """

    heads: int
    query: Tensor
    before: nn.Module
    norm: nn.Module
    to_query: Linear
    to_key: Linear
    to_value: Linear
    out: Linear
    tail: Tail | None

    def weights(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B h 1 N"]:
        """A = softmax(q Kᵀ / √d_h), the attention of the query that the score is read from."""
        query = per_head(self.to_query(self.query)[None], self.heads)
        key = per_head(self.to_key(self.norm(self.before(tokens))), self.heads)
        return (query @ key.mT / math.sqrt(query.shape[-1])).softmax(dim=-1)

    def values(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B h N d_h"]:
        """V of every token."""
        return per_head(self.to_value(self.norm(self.before(tokens))), self.heads)

    def finish(self, mixed: Float[Tensor, "B h 1 d_h"]) -> Float[Tensor, "B C"]:
        """The pooled token, for O = A V per head."""
        attended = self.out(mixed.transpose(1, 2).flatten(2))
        if self.tail is not None:
            attended = self.tail.add_mlp(attended, self.tail.preactivation(attended))
        return attended[:, 0]
