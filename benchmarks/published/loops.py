"""Every method the way its authors run it: one image, one text, a forward pass of its own.

The formulas are this project's; what is kept from the published code is the work it does: a graph
through the whole network, a backward pass per block (CheferCAM), full matrix products instead of
one row, all heads' contributions one by one, and for LRP and its kin what `relevance.py`
says. LeGrad itself is timed with the authors' package (`side.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

import legrad
from benchmarks.published.relevance import PublishedRules
from legrad.baselines import BASELINES
from legrad.baselines.base import plus_identity
from legrad.baselines.recording import Recording, record, score_gradients
from legrad.towers.open import open_tower
from legrad.towers.tower import Tower

Run = Callable[[Tensor, Tensor], Tensor]
Weights = Sequence[torch.nn.Parameter]
ONE = torch.tensor([0])


def runs(model: torch.nn.Module) -> dict[str, Run]:
    """For every baseline a function of one image [1, 3, H, W] and one text [1, E] to a raw map."""
    tower = open_tower(model)
    weights = [p for p in getattr(model, "visual", model).parameters() if p.requires_grad]
    own: dict[str, Run] = {
        "rollout": lambda image, text: _rollout(tower, image),
        "gradcam": lambda image, text: _gradcam(tower, image, text),
        "attention_cam": lambda image, text: _attention_cam(tower, image, text),
        "chefer_cam": lambda image, text: _chefer_cam(tower, image, text),
        "transformer_attribution": partial(_transformer_attribution, tower, weights),
        "lrp": partial(_lrp, tower, weights),
        "partial_lrp": partial(_partial_lrp, tower, weights),
        "text_span": lambda image, text: _text_span(tower, image, text),
    }
    # Raw attention and the dense methods do per text what this project's forms do.
    return {name: own.get(name) or _plain(name, model) for name in BASELINES}


def _plain(method: str, model: torch.nn.Module) -> Run:
    explainer = legrad.build(method, model)
    return lambda image, text: explainer(image, text, ONE)


def _graph(tower: Tower, image: Tensor) -> Recording:
    return record(tower, image, 0, graph=True)


def _map(tower: Tower, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    return tokens[tower.prefix_count :].view(1, *grid)


def _rollout(tower: Tower, image: Tensor) -> Tensor:
    recording = record(tower, image, 0, graph=False)
    product = torch.eye(recording.steps[0].weights.shape[-1], dtype=image.dtype)
    for step in recording.steps[1:]:
        matrix = plus_identity(step.weights.mean(dim=1))[0]
        product = matrix / matrix.sum(dim=-1, keepdim=True) @ product
    return _map(tower, product[0], recording.grid)


def _gradcam(tower: Tower, image: Tensor, text: Tensor) -> Tensor:
    recording = _graph(tower, image)
    tokens = recording.steps[round(len(recording.steps) * 2 / 3) - 1].output
    (gradient,) = score_gradients(recording, [tokens], text, ONE)
    weight = gradient[0].sum(dim=0) / (len(gradient[0]) - 1)
    return _map(tower, (tokens.detach()[0] @ weight).clamp(min=0), recording.grid)


def _attention_cam(tower: Tower, image: Tensor, text: Tensor) -> Tensor:
    recording = _graph(tower, image)
    weights = recording.steps[-1].weights
    (gradient,) = score_gradients(recording, [weights], text, ONE)
    cam = (gradient.mean(dim=(2, 3), keepdim=True) * weights.detach()).sum(dim=1)[0, 0]
    return _map(tower, cam, recording.grid)


def _chefer_cam(tower: Tower, image: Tensor, text: Tensor) -> Tensor:
    recording = _graph(tower, image)
    r = torch.eye(recording.steps[0].weights.shape[-1], dtype=image.dtype)
    for step in recording.steps:
        (gradient,) = score_gradients(recording, [step.weights], text, ONE)
        cam = (gradient * step.weights.detach()).clamp(min=0).mean(dim=1)[0]
        r = r + cam @ r
    return _map(tower, r[0], recording.grid)


def _partial_lrp(tower: Tower, weights: Weights, image: Tensor, text: Tensor) -> Tensor:
    found = PublishedRules(own=False).propagate(tower, weights, image, text)
    cam = found.relevances[-1].clamp(min=0).mean(dim=1)
    return _map(tower, cam[0, 0], tower.grid(image))


def _lrp(tower: Tower, weights: Weights, image: Tensor, text: Tensor) -> Tensor:
    rules = PublishedRules(own=False)
    return rules.pixels(tower, image, rules.propagate(tower, weights, image, text))


def _transformer_attribution(tower: Tower, weights: Weights, image: Tensor, text: Tensor) -> Tensor:
    found = PublishedRules(own=True).propagate(tower, weights, image, text)
    r = torch.eye(found.gradients[0].shape[-1], dtype=image.dtype)
    for gradient, share in list(zip(found.gradients, found.relevances, strict=True))[1:]:
        r = plus_identity((gradient * share).clamp(min=0).mean(dim=1))[0] @ r
    return _map(tower, r[0], tower.grid(image))


@torch.no_grad()
def _text_span(tower: Tower, image: Tensor, text: Tensor) -> Tensor:
    recording = record(tower, image, 0, graph=False)
    head, cls = tower.head, recording.steps[-1].output[:, 0]
    assert head.norm is not None
    assert head.proj is not None
    length = replace(head, unit=False).embed(cls).norm()
    std = (cls.var(correction=0) + head.norm.eps).sqrt()
    heat = torch.zeros(recording.steps[0].weights.shape[-1], dtype=image.dtype)
    for block, step in zip(tower.blocks, recording.steps, strict=True):
        assert block.out.bias is not None
        tokens, heads = len(heat), block.heads
        out = block.out.weight.view(block.width, heads, -1)
        # For every query, as the authors' hooks see it, though only CLS is read: [N, N, h, D].
        mixed = torch.einsum("hnm,hmc->nmhc", step.weights[0], step.values[0])
        added = torch.einsum("nmhc,dhc->nmhd", mixed, out)[0] + block.out.bias / (tokens * heads)
        share = (2 * len(tower.blocks) + 1) * tokens * heads
        read = head.norm.weight * (added - cls.mean() / share) / std + head.norm.bias / share
        heat += (read @ head.proj @ text[0]).sum(dim=1) / length
    return _map(tower, heat, recording.grid)
