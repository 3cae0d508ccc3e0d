"""Forward passes that keep what an explainer needs: attention, streams, and gradients of the score.

Every method but the closed form of LeGrad works on these. Attention is explicit, softmax(Q Kᵀ/√d_h)
V, for fused kernels never form the matrix that is explained.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from legrad.explainer import Encoding
from legrad.towers.attention import fused_output, similarity
from legrad.towers.block import Block
from legrad.towers.tower import Tower


@dataclass(frozen=True)
class Step:
    """What one block computed on the way to its output."""

    stream: Float[Tensor, "B N D"]  # X
    query: Float[Tensor, "B h N d_h"]
    key: Float[Tensor, "B h N d_h"]
    values: Float[Tensor, "B h N d_h"]
    weights: Float[Tensor, "B h N N"]  # A: rows are queries, columns keys
    attended: Float[Tensor, "B N D"]  # X̂
    output: Float[Tensor, "B N D"]  # Z


@dataclass(frozen=True)
class Recording(Encoding):
    """A forward pass with explicit attention from some block on.

    Attributes:
        steps: of the recorded blocks, which are the last ones.
        pool_weights: attention of the pooler's query; None without a pooler.
        read_out: the embedding again, as the end of the autograd graph where there is one.
    """

    steps: tuple[Step, ...]
    pool_weights: Float[Tensor, "B h 1 N"] | None
    read_out: Float[Tensor, "B E"]


def step(block: Block, x: Float[Tensor, "B N D"]) -> Step:
    """One block with everything it computed."""
    query, key, values = block.attention_inputs(x)
    weights = similarity(query, key).softmax(dim=-1)
    attended = block.add_attention(x, weights @ values)
    output = block.add_mlp(attended, block.preactivation(attended))
    return Step(x, query, key, values, weights, attended, output)


def record(tower: Tower, images: Float[Tensor, "B 3 H W"], first: int, *, graph: bool) -> Recording:
    """Run the tower, fused up to block `first` and recorded from there on.

    Args:
        tower: what to run.
        images: preprocessed.
        first: 0-based index of the first recorded block; the depth records the pooler alone.
        graph: keep an autograd graph from the input of that block to the embedding.
    """
    # Leaving inference mode does not make its tensors usable by autograd: clones are.
    grid = tower.grid(images)
    blocks = tower.blocks_on(grid)
    with torch.inference_mode(False):
        with torch.no_grad():
            x = tower.embed(images.clone())
            for block in blocks[:first]:
                x = fused_output(block, x)
        with torch.set_grad_enabled(graph):
            x.requires_grad_(graph)
            steps = []
            for block in blocks[first:]:
                steps.append(step(block, x))
                x = steps[-1].output
            weights, embedding = _read_out(tower, x)
    return Recording(embedding.detach(), grid, tuple(steps), weights, embedding)


def _read_out(
    tower: Tower, x: Float[Tensor, "B N D"]
) -> tuple[Float[Tensor, "B h 1 N"] | None, Float[Tensor, "B E"]]:
    if tower.pooler is None:
        return None, tower.embedding(x)
    weights = tower.pooler.weights(x)
    pooled = tower.pooler.finish(weights @ tower.pooler.values(x))
    return weights, tower.read(pooled)


def rounds(
    pairs: Sequence[int], device: torch.device
) -> Iterator[tuple[Int[Tensor, " G"], Int[Tensor, " G"]]]:
    """All pairs, as few times one text per image as possible: (images, queries).

    Images do not influence each other, so that one backward pass serves a whole round.
    """
    turns: defaultdict[int, int] = defaultdict(int)
    members: list[tuple[list[int], list[int]]] = []
    for query, image in enumerate(pairs):
        turn = turns[image]
        turns[image] += 1
        if turn == len(members):
            members.append(([], []))
        members[turn][0].append(image)
        members[turn][1].append(query)
    for images, queries in members:
        yield torch.tensor(images, device=device), torch.tensor(queries, device=device)


def score_gradients(
    recording: Recording,
    targets: Sequence[Tensor],
    text: Float[Tensor, "G E"],
    images: Int[Tensor, " G"],
) -> list[Tensor]:
    """∂s/∂T for each target T of the recording, at the rows of `images`.

    s is the model's own score of each image with its text: the cosine, or a classifier's logit.
    """
    with torch.inference_mode(False), torch.enable_grad():
        text = text.clone().to(recording.read_out.device, recording.read_out.dtype)
        score = (recording.read_out[images.clone()] * text).sum()
    gradients = torch.autograd.grad(score, list(targets), retain_graph=True, materialize_grads=True)
    return [gradient[images] for gradient in gradients]
