"""LRP and its kin with the work that the code of Chefer et al. (arXiv 2012.09838) does for them.

`legrad.baselines.rules` has the same relevance in fewer steps. For every method alike, theirs

- first differentiates the score, by all attention maps and all weights;
- then goes down through all blocks, wherever the map is read from;
- takes each layer's product again, and the transposed one from autograd, with a graph of it all;
- computes both halves of the αβ rule of a linear layer, though α = 1 gives the second no weight;
- divides safely in eleven passes over memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from legrad.towers.block import Block, per_head, scaled
from legrad.towers.tower import Tower

ALPHA = 1
EPSILON = 1e-9


@dataclass(frozen=True)
class Trace:
    """What the layers of one block took in; products are at full size, as their hooks keep them."""

    stream: Float[Tensor, "1 N D"]
    normed: Float[Tensor, "1 N D"]
    query: Float[Tensor, "1 h N d_h"]
    key: Float[Tensor, "1 h N d_h"]
    values: Float[Tensor, "1 h N d_h"]
    weights: Float[Tensor, "1 h N N"]
    mixed: Float[Tensor, "1 N D"]
    attention: Float[Tensor, "1 N D"]
    attended: Float[Tensor, "1 N D"]
    ready: Float[Tensor, "1 N D"]
    hidden: Float[Tensor, "1 N M"]
    mlp: Float[Tensor, "1 N D"]


@dataclass(frozen=True)
class Propagated:
    """A pass up and down: of every block's attention its gradient and its relevance.

    Attributes:
        gradients: ∂s/∂A.
        relevances: of A.
        tokens: before the positional embedding.
        placed: the positional embedding.
        stream: relevance of their sum.
    """

    gradients: list[Float[Tensor, "1 h N N"]]
    relevances: list[Float[Tensor, "1 h N N"]]
    tokens: Float[Tensor, "1 N D"]
    placed: Float[Tensor, "N D"]
    stream: Float[Tensor, "1 N D"]


@dataclass(frozen=True)
class PublishedRules:
    """One of the two sets of rules, see `legrad.baselines.rules.Rules`."""

    own: bool

    def propagate(
        self, tower: Tower, weights: Sequence[nn.Parameter], image: Tensor, text: Tensor
    ) -> Propagated:
        """Gradients and relevance for one image [1, 3, H, W] and one text [1, E].

        Args:
            tower: of a CLIP, read by CLS.
            weights: whose gradients are computed too, as a backward pass does unasked.
            image: preprocessed.
            text: what is explained.
        """
        with torch.enable_grad():
            tokens, placed = tower.unplaced(image), tower.placed(tower.grid(image))
            x = tower.norm_pre(tokens + placed)
            traces = []
            for block in tower.blocks:
                traces.append(trace(block, x))
                x = traces[-1].attended + traces[-1].mlp
            score = (tower.embedding(x) * text).sum()
            maps = [kept.weights for kept in traces]
            gradients = torch.autograd.grad(
                score, [*maps, *weights], retain_graph=True, allow_unused=True
            )
            r = self._head(tower, x, text)
            relevances: list[Tensor] = []
            for block, kept in zip(reversed(tower.blocks), reversed(traces), strict=True):
                of_weights, r = self._block(block, kept, r)
                relevances.insert(0, of_weights)
            return Propagated(list(gradients[: len(maps)]), relevances, tokens, placed, r)

    def pixels(self, tower: Tower, image: Tensor, found: Propagated) -> Float[Tensor, "1 H W"]:
        """Relevance of the pixels, summed over colours."""
        with torch.enable_grad():
            r, _ = self.add(found.tokens, found.placed.expand_as(found.tokens), found.stream)
            patches = r[:, tower.prefix_count :].transpose(1, 2)
            return below(tower.conv, image, patches.reshape(1, -1, *tower.grid(image))).sum(dim=1)

    def _head(self, tower: Tower, output: Float[Tensor, "1 N D"], text: Tensor) -> Tensor:
        head = tower.head
        assert head.norm is not None
        normed = head.norm(output)[:, 0]
        if head.proj is None:
            r = self.linear(normed, text, torch.ones(1, 1))
        else:
            r = self.linear(F.normalize(normed @ head.proj), text, torch.ones(1, 1))
            r = self.linear(normed, head.proj.T, r)
        x = leaf(output)
        cls = x[:, 0]
        return x * gradient(cls, x, divide(r, cls))

    def _block(self, block: Block, kept: Trace, r: Tensor) -> tuple[Tensor, Tensor]:
        """Relevance of a block's attention and of its input."""
        r_attended, r_mlp = self.add(kept.attended, kept.mlp, r)
        r_hidden = self.linear(kept.hidden, block.contract.weight, r_mlp)
        r_ready = self.linear(kept.ready, block.expand.weight, r_hidden)
        r = copies(kept.attended, [r_attended, r_ready])

        r_stream, r_attention = self.add(kept.stream, kept.attention, r)
        r_mixed = per_head(self.linear(kept.mixed, block.out.weight, r_attention), block.heads)
        r_weights, r_values = product("bhij,bhjd->bhid", kept.weights, kept.values, r_mixed)
        r_query, r_key = product("bhid,bhjd->bhij", kept.query, kept.key, r_weights)
        joint = [part.transpose(1, 2).flatten(2) for part in (r_query, r_key, r_values)]
        r_normed = self.linear(kept.normed, block.qkv.weight, torch.cat(joint, dim=2))
        return r_weights, copies(kept.stream, [r_stream, r_normed])

    def linear(self, x: Tensor, weight: Tensor, r: Tensor) -> Tensor:
        """R of the input of x Wᵀ."""
        x = leaf(x)
        positive, negative = weight.clamp(min=0), weight.clamp(max=0)
        above, below = x.clamp(min=0), x.clamp(max=0)

        def half(of_above: Tensor, of_below: Tensor) -> Tensor:
            z_above, z_below = F.linear(above, of_above), F.linear(below, of_below)
            whole = [z_above + z_below for _ in range(2)] if self.own else [z_above, z_below]
            s_above, s_below = (divide(r, z) for z in whole)
            r_above = above * gradient(z_above, above, s_above)
            return r_above + below * gradient(z_below, below, s_below)

        return ALPHA * half(positive, negative) - (ALPHA - 1) * half(negative, positive)

    def add(self, a: Tensor, b: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        """R of both terms of a + b."""
        a, b = leaf(a), leaf(b)
        z = a + b
        c_a, c_b = torch.autograd.grad(z, [a, b], divide(r, z), retain_graph=True)
        r_a, r_b = a * c_a, b * c_b
        if not self.own:
            return r_a, r_b
        sums = r_a.sum(), r_b.sum()
        size_a, size_b = (total.abs() for total in sums)
        of_a = divide(size_a, size_a + size_b) * r.sum()
        of_b = divide(size_b, size_a + size_b) * r.sum()
        return r_a * divide(of_a, sums[0]), r_b * divide(of_b, sums[1])


def trace(block: Block, x: Float[Tensor, "1 N D"]) -> Trace:
    """One block with explicit attention."""
    normed = block.norm1(x)
    joint = block.qkv(normed).chunk(3, dim=-1)
    query, key, values = (per_head(part, block.heads) for part in joint)
    dots = torch.einsum("bhid,bhjd->bhij", query, key) / math.sqrt(query.shape[-1])
    weights = dots.softmax(dim=-1)
    mixed = torch.einsum("bhij,bhjd->bhid", weights, values).transpose(1, 2).flatten(2)
    attention = scaled(block.out(mixed), block.scale1)
    attended = x + attention
    ready = block.norm2(attended)
    hidden = block.activation(block.expand(ready))
    mlp = scaled(block.contract(hidden), block.scale2)
    return Trace(
        x, normed, query, key, values, weights, mixed, attention, attended, ready, hidden, mlp
    )


def leaf(x: Tensor) -> Tensor:
    """The values of `x`, with no past: what autograd is to differentiate by."""
    return x.detach().requires_grad_()


def gradient(z: Tensor, x: Tensor, s: Tensor) -> Tensor:
    """Sᵀ ∂z/∂x."""
    return torch.autograd.grad(z, x, s, retain_graph=True)[0]


def product(equation: str, x: Tensor, y: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """R of both factors of an einsum, half each."""
    x, y = leaf(x), leaf(y)
    z = torch.einsum(equation, x, y)
    c_x, c_y = torch.autograd.grad(z, [x, y], divide(r, z), retain_graph=True)
    return x * c_x / 2, y * c_y / 2


def copies(x: Tensor, parts: Sequence[Tensor]) -> Tensor:
    """R of a tensor whose copies have the relevance `parts`."""
    x = leaf(x)
    shares = [divide(part, x) for part in parts]
    return x * torch.autograd.grad([x] * len(parts), x, shares, retain_graph=True)[0]


def below(conv: nn.Conv2d, image: Tensor, r: Tensor) -> Float[Tensor, "1 3 H W"]:
    """R of the input of the patch embedding, by the z^B rule."""
    x, weight, bias = leaf(image), conv.weight, conv.bias
    stride = (conv.stride[0], conv.stride[1])
    positive, negative = weight.clamp(min=0), weight.clamp(max=0)
    low = x * 0 + x.amin(dim=(1, 2, 3), keepdim=True)
    high = x * 0 + x.amax(dim=(1, 2, 3), keepdim=True)

    def transposed(of: Tensor) -> Tensor:
        rows = F.conv2d(x, weight, bias, stride).shape[2]  # the layer once more, for its size
        rest = x.shape[2] - (rows - 1) * stride[0] - weight.shape[2]
        return F.conv_transpose2d(share, of, stride=stride, output_padding=rest)

    z = F.conv2d(x, weight, stride=stride)
    z = z - F.conv2d(low, positive, stride=stride) - F.conv2d(high, negative, stride=stride)
    share = r / (z + EPSILON)
    return x * transposed(weight) - low * transposed(positive) - high * transposed(negative)


def divide(a: Tensor, b: Tensor) -> Tensor:
    """A / (b + 1e-9), and 0 where b is 0: as they write it, without a branch."""
    shifted = b.clamp(min=EPSILON) + b.clamp(max=EPSILON)
    shifted = shifted + (shifted == 0).to(b.dtype) * EPSILON
    return a / shifted * (b != 0).to(b.dtype)
