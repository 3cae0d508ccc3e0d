"""What LeGrad's options mean for a tower: how the score of a layer is read, and what cannot be."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from legrad.options import LeGradOptions
from legrad.towers.head import Pooler, ScoreHead
from legrad.towers.tower import Tower


def check_for_tower(options: LeGradOptions, tower: Tower, *, closed_form: bool) -> None:
    """Refuse choices that have no meaning for `tower`, or that only autograd can follow.

    Raises:
        ValueError: says which option, and why.
    """
    changed = [
        f"{name}={getattr(options, name)!r}"
        for name in ("score_layer", "pool")
        if getattr(options, name) != getattr(LeGradOptions, name)
    ]
    if changed and tower.pooler is not None:
        raise ValueError(f"{changed[0]}: this tower's score is read through an attention pooler")
    if options.pool == "cls" and tower.prefix_count == 0:
        raise ValueError("pool='cls': this tower has no CLS token")
    if changed and closed_form:
        raise ValueError(
            f"{changed[0]} has no closed form, which rests on every block's mean token; "
            'use engine="autograd"'
        )


def layer_readout(tower: Tower, options: LeGradOptions) -> tuple[Pooler, ScoreHead]:
    """The pooler and the head that the score of one layer is read through."""
    pooler, head = tower.pooler, tower.head
    assert pooler is not None
    if tower.is_siglip:
        return (pooler if options.apply_trunk_norm else replace(pooler, before=nn.Identity())), head
    if options.coca == "official":
        return pooler, replace(head, norm=None, unit=False)
    return pooler, head
