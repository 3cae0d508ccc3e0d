"""Every method once more, for one image and one text, by explicit loops over the stock model."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn


@dataclass
class Pass:
    """One image through a stock tower in float64, everything on one autograd graph."""

    inputs: list[Tensor]  # X of each block, [N, D]
    qkv: list[Tensor]  # [3, h, N, d_h]
    weights: list[Tensor]  # A, [h, N, N]
    attended: list[Tensor]  # X̂
    outputs: list[Tensor]  # Z
    embedding: Tensor
    tokens: Tensor  # before the positional embedding
    positions: Tensor
    visual: VisionTransformer
    grid: tuple[int, int]


def run(
    visual: VisionTransformer, image: Tensor, positions: Tensor, *, rotary: bool = False
) -> Pass:
    """`positions` [N, D] is the embedding for this image's grid; `rotary` adds `rotated`."""
    maps = visual.conv1(image[None])[0]
    grid = (maps.shape[1], maps.shape[2])
    tokens = torch.cat([visual.class_embedding[None], maps.flatten(1).T])
    x = visual.ln_pre(tokens + positions).detach().requires_grad_()
    done = Pass([], [], [], [], [], x, tokens, positions, visual, grid)
    for block in visual.transformer.resblocks:
        qkv = heads(block, x)
        if rotary:
            qkv = torch.stack([rotated(qkv[0], grid), rotated(qkv[1], grid), qkv[2]])
        weights = torch.softmax(qkv[0] @ qkv[1].transpose(1, 2) / qkv.shape[-1] ** 0.5, dim=-1)
        attended = x + branch(block, weights @ qkv[2])
        done.inputs.append(x)
        done.qkv.append(qkv)
        done.weights.append(weights)
        done.attended.append(attended)
        x = attended + block.ls_2(block.mlp(block.ln_2(attended)))
        done.outputs.append(x)
    done.embedding = F.normalize(visual.ln_post(x[0]) @ visual.proj, dim=0)
    return done


def heads(block: nn.Module, x: Tensor) -> Tensor:
    joint = block.ln_1(x) @ block.attn.in_proj_weight.T + block.attn.in_proj_bias
    return joint.reshape(len(x), 3, block.attn.num_heads, -1).permute(1, 2, 0, 3)


def rotated(x: Tensor, grid: tuple[int, int], native: int = 4) -> Tensor:
    """RoPE on queries or keys [h, N, d_h]: pairs of channels are complex numbers, turned.

    The first half of the pairs by the column, the others by the row, counted from 1 on the grid of
    `native` x `native` patches that any other is scaled to (arXiv 2504.13181).
    """
    pairs = x.shape[-1] // 2
    turned = x.clone()
    for patch in range(grid[0] * grid[1]):
        row, column = divmod(patch, grid[1])
        places = [(column + 1) / grid[1] * native, (row + 1) / grid[0] * native]
        for pair in range(pairs):
            axis, band = divmod(pair, pairs // 2)
            angle = places[axis] / 10_000 ** (band / (pairs // 2))
            cos, sin = math.cos(angle), math.sin(angle)
            a, b = x[:, 1 + patch, 2 * pair], x[:, 1 + patch, 2 * pair + 1]
            turned[:, 1 + patch, 2 * pair] = a * cos - b * sin
            turned[:, 1 + patch, 2 * pair + 1] = a * sin + b * cos
    return turned


def branch(block: nn.Module, mixed: Tensor) -> Tensor:
    """What attention adds to the stream, for O [h, N, d_h]."""
    return block.ls_1(block.attn.out_proj(mixed.transpose(0, 1).flatten(1)))


def gradients(done: Pass, text: Tensor, targets: list[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(
        text @ done.embedding, targets, retain_graph=True, allow_unused=True
    )
    return [torch.zeros_like(t) if g is None else g for g, t in zip(found, targets, strict=True)]


def raw_attention(done: Pass, text: Tensor) -> Tensor:
    weights = done.weights[-1]
    return sum(weights[h, 0, 1:] for h in range(len(weights))) / len(weights)


def rollout(done: Pass, text: Tensor) -> Tensor:
    product = torch.eye(len(done.inputs[0]), dtype=text.dtype)
    for weights in done.weights[1:]:
        matrix = weights.mean(0) + torch.eye(len(product), dtype=text.dtype)
        matrix = torch.stack([row / sum(row) for row in matrix])
        product = matrix @ product
    return product[0, 1:]


def gradcam(done: Pass, text: Tensor, layer: int = 1, first: int = 0) -> Tensor:
    z = done.outputs[layer]
    (gradient,) = gradients(done, text, [z])
    patches, width = len(z) - 1, z.shape[1]
    w = [sum(gradient[i, k] for i in range(first, len(z))) / patches for k in range(width)]
    return torch.stack(
        [sum(w[k] * z[j, k] for k in range(width)).clamp(min=0) / width for j in range(1, len(z))]
    )


def attention_cam(done: Pass, text: Tensor) -> Tensor:
    weights = done.weights[-1]
    (gradient,) = gradients(done, text, [weights])
    return sum(gradient[h].mean() * weights[h, 0, 1:] for h in range(len(weights)))


def attention_cam_te(done: Pass, text: Tensor) -> Tensor:
    weights = done.weights[-1]
    (gradient,) = gradients(done, text, [weights])
    maps = [gradient[h, 0, 1:].mean() * weights[h, 0, 1:] for h in range(len(weights))]
    return torch.stack(maps).mean(0).clamp(min=0)


def chefer_cam(done: Pass, text: Tensor, start: int = 0) -> Tensor:
    r = torch.eye(len(done.inputs[0]), dtype=text.dtype)
    for weights, gradient in zip(
        done.weights[start:], gradients(done, text, done.weights[start:]), strict=True
    ):
        r = r + (gradient * weights).clamp(min=0).mean(0) @ r
    return r[0, 1:]


def text_span(done: Pass, text: Tensor) -> Tensor:
    visual, depth = done.visual, len(done.weights)
    cls = done.outputs[-1][0]
    mean, std = cls.mean(), (cls.var(correction=0) + visual.ln_post.eps).sqrt()
    length = (visual.ln_post(cls) @ visual.proj).norm()
    tokens, terms = len(done.inputs[0]), 2 * depth + 1
    heat = torch.zeros(tokens, dtype=text.dtype)
    for layer, block in enumerate(visual.transformer.resblocks):
        count = block.attn.num_heads
        for m in range(tokens):
            for k in range(count):
                mixed = torch.zeros_like(done.qkv[layer][2][:, :1])
                mixed[k, 0] = done.weights[layer][k, 0, m] * done.qkv[layer][2][k, m]
                bias = branch(block, torch.zeros_like(mixed))[0]
                c = branch(block, mixed)[0] - bias + bias / (tokens * count)
                share = terms * tokens * count
                read = visual.ln_post.weight * (c - mean / share) / std
                read = (read + visual.ln_post.bias / share) @ visual.proj
                heat[m] += read @ text / length
    return heat[1:]


def cosines(done: Pass, tokens: Tensor, text: Tensor) -> Tensor:
    features = done.visual.ln_post(tokens) @ done.visual.proj
    return F.cosine_similarity(features, text[None].expand(len(features), -1), dim=1)[1:]


def last_block(done: Pass, text: Tensor, attention: Tensor) -> Tensor:
    block = done.visual.transformer.resblocks[-1]
    attended = done.inputs[-1] + branch(block, attention @ done.qkv[-1][2])
    return cosines(done, attended + block.ls_2(block.mlp(block.ln_2(attended))), text)


def maskclip(done: Pass, text: Tensor) -> Tensor:
    return last_block(done, text, torch.eye(len(done.inputs[0]), dtype=text.dtype))


def sclip(done: Pass, text: Tensor) -> Tensor:
    def own(x: Tensor) -> Tensor:
        return torch.softmax(x @ x.transpose(1, 2) / x.shape[-1] ** 0.5, dim=-1)

    return last_block(done, text, own(done.qkv[-1][0]) + own(done.qkv[-1][1]))


def naclip(done: Pass, text: Tensor) -> Tensor:
    _, key, value = done.qkv[-1]
    logits = key @ key.transpose(1, 2) / key.shape[-1] ** 0.5
    rows, columns = done.grid
    for i in range(rows * columns):
        for j in range(rows * columns):
            a, b = divmod(i, columns), divmod(j, columns)
            distance = (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2
            logits[:, 1 + i, 1 + j] += math.exp(-distance / (2 * 5.0**2))
    block = done.visual.transformer.resblocks[-1]
    return cosines(done, branch(block, logits.softmax(-1) @ value), text)


def gem(done: Pass, text: Tensor, last: int = 6) -> Tensor:
    blocks = list(done.visual.transformer.resblocks)
    start = max(0, len(blocks) - last)
    path = done.inputs[start]
    for layer in range(start, len(blocks)):
        query, key, value = done.qkv[layer]
        normed = blocks[layer].ln_1(done.inputs[layer])
        temperature = normed.norm(dim=1).mean() / query.shape[-1] ** 0.5
        mixed = torch.zeros_like(value)
        for x in (query, key, value):
            unit = x / x.norm(dim=-1, keepdim=True)
            again = torch.softmax(unit @ unit.transpose(1, 2) * temperature, dim=-1) @ unit
            again = again / again.norm(dim=-1, keepdim=True)
            mixed += torch.softmax(again @ again.transpose(1, 2) * temperature, -1) @ value / 3
        path = path + branch(blocks[layer], mixed)
    return cosines(done, path, text)


# Layer-wise relevance propagation, with a table of contributions [out, in] for each linear layer
# and derivatives from autograd for everything else.

Linear = Callable[[Tensor, Tensor, Tensor], Tensor]


def safe(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(b == 0, torch.zeros_like(a), a / (b + 1e-9))


def linear_own(x: Tensor, weight: Tensor, r: Tensor) -> Tensor:
    parts = x.clamp(min=0)[..., None, :] * weight.clamp(min=0)
    parts = parts + x.clamp(max=0)[..., None, :] * weight.clamp(max=0)
    return (parts * safe(r, parts.sum(-1))[..., None]).sum(-2)


def linear_orig(x: Tensor, weight: Tensor, r: Tensor) -> Tensor:
    above = x.clamp(min=0)[..., None, :] * weight.clamp(min=0)
    below = x.clamp(max=0)[..., None, :] * weight.clamp(max=0)
    return sum((p * safe(r, p.sum(-1))[..., None]).sum(-2) for p in (above, below))


def by_gradient(function: Callable[..., Tensor], operands: list[Tensor], r: Tensor) -> list[Tensor]:
    operands = [x.detach().requires_grad_() for x in operands]
    z = function(*operands)
    found = torch.autograd.grad((safe(r, z).detach() * z).sum(), operands)
    return [x.detach() * g for x, g in zip(operands, found, strict=True)]


def add(a: Tensor, b: Tensor, r: Tensor, own: bool) -> list[Tensor]:
    parts = by_gradient(torch.add, [a, b], r)
    if own:
        totals = [part.sum() for part in parts]
        shares = [safe(t.abs(), sum(u.abs() for u in totals)) * r.sum() for t in totals]
        parts = [p * safe(s, t) for p, s, t in zip(parts, shares, totals, strict=True)]
    return parts


def relevance(done: Pass, text: Tensor, own: bool) -> tuple[list[Tensor], Tensor]:
    """R of each block's attention [h, N, N], and of the tokens that enter the first block."""
    linear: Linear = linear_own if own else linear_orig
    visual = done.visual
    cls = done.outputs[-1][0].detach()
    r = linear(done.embedding.detach(), text[None], torch.ones(1, dtype=text.dtype))
    r = linear(visual.ln_post(cls), visual.proj.T, r)
    stream = torch.zeros_like(done.outputs[-1])
    stream[0] = safe(r, cls) * cls
    attentions = []
    for layer in reversed(range(len(done.weights))):
        block = visual.transformer.resblocks[layer]
        attended, x = done.attended[layer].detach(), done.inputs[layer].detach()
        rest, r_mlp = add(attended, done.outputs[layer].detach() - attended, stream, own)
        normed = block.ln_2(attended)
        hidden = block.mlp.gelu(block.mlp.c_fc(normed))
        r_hidden = linear(hidden, block.mlp.c_proj.weight, r_mlp)
        r_mlp = linear(normed, block.mlp.c_fc.weight, r_hidden)
        total = safe(rest + r_mlp, attended) * attended
        rest, r_out = add(x, attended - x, total, own)

        query, key, value = done.qkv[layer].detach()
        weights = done.weights[layer].detach()
        mixed = (weights @ value).transpose(0, 1).flatten(1)
        r_out = linear(mixed, block.attn.out_proj.weight, r_out)
        r_out = r_out.reshape(len(x), len(weights), -1).transpose(0, 1)
        r_weights, r_value = (p / 2 for p in by_gradient(torch.matmul, [weights, value], r_out))
        attentions.insert(0, r_weights)
        r_query, r_key = (
            p / 2 for p in by_gradient(lambda q, k: q @ k.transpose(1, 2), [query, key], r_weights)
        )
        joint = torch.stack([r_query, r_key, r_value]).permute(2, 0, 1, 3).flatten(1)
        r_in = linear(block.ln_1(x), block.attn.in_proj_weight, joint)
        stream = safe(rest + r_in, x) * x
    return attentions, stream


def partial_lrp(done: Pass, text: Tensor) -> Tensor:
    return relevance(done, text, own=False)[0][-1].clamp(min=0).mean(0)[0, 1:]


def transformer_attribution(done: Pass, text: Tensor) -> Tensor:
    attentions, _ = relevance(done, text, own=True)
    r = torch.eye(len(done.inputs[0]), dtype=text.dtype)
    for attention, gradient in list(
        zip(attentions, gradients(done, text, done.weights), strict=True)
    )[1:]:
        r = r + (attention * gradient).clamp(min=0).mean(0) @ r
    return r[0, 1:]


def lrp(done: Pass, text: Tensor, image: Tensor) -> Tensor:
    """[H, W]."""
    _, stream = relevance(done, text, own=False)
    r, _ = add(done.tokens.detach(), done.positions.detach(), stream, own=False)
    r = r[1:].T.reshape(-1, *done.grid)[None]
    weight, pixels = done.visual.conv1.weight.detach(), image[None].clone().requires_grad_()
    low, high = (
        torch.full_like(pixels, float(bound)).requires_grad_()
        for bound in (image.min(), image.max())
    )
    size = done.visual.patch_size

    def conv(x: Tensor, w: Tensor) -> Tensor:
        return F.conv2d(x, w, stride=size)

    z = conv(pixels, weight) - conv(low, weight.clamp(min=0)) - conv(high, weight.clamp(max=0))
    found = torch.autograd.grad((z * (r / (z + 1e-9)).detach()).sum(), [pixels, low, high])
    total = sum(x * g for x, g in zip([pixels, low, high], found, strict=True))
    return total.sum(1)[0].detach()
