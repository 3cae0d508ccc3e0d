"""What can be chosen about LeGrad beside its layers, and what each choice means."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from legrad.heatmap import HeatOrder
from legrad.towers.head import Pooler, ScoreHead
from legrad.towers.tower import Tower


@dataclass(frozen=True)
class LeGradOptions:
    """The ablations of LeGrad's paper (arXiv 2404.03214, table 9) and its two poolers' variants.

    Attributes:
        relu: keep only positive gradients (eq. 6), or the signed ones.
        score_layer: each block's attention is differentiated for the score of its "own" output, or
            for that of the "last" block.
        pool: the score is read off the "mean" of all tokens, or off "cls" alone.
        apply_trunk_norm: SigLIP: apply the tower's final LayerNorm before its pooler, as the model
            itself does for its last block; the authors' package does not.
        coca: "faithful" reads CoCa's pooled token as the model does, "official" as the authors'
            package does, without LN_post and without normalising its length.
    """

    relu: bool = True
    score_layer: str = "own"
    pool: str = "mean"
    apply_trunk_norm: bool = False
    coca: str = "faithful"

    def __post_init__(self) -> None:
        choices = {
            "score_layer": ("own", "last"),
            "pool": ("mean", "cls"),
            "coca": ("faithful", "official"),
        }
        for name, known in choices.items():
            value = getattr(self, name)
            if value not in known:
                raise ValueError(f"{name}={value!r}; known: {', '.join(known)}")

    def check(self, tower: Tower, *, closed_form: bool) -> None:
        """Refuse choices that have no meaning for `tower`, or that only autograd can follow.

        Raises:
            ValueError: says which option, and why.
        """
        changed = [
            f"{name}={getattr(self, name)!r}"
            for name in ("score_layer", "pool")
            if getattr(self, name) != getattr(LeGradOptions, name)
        ]
        if changed and tower.pooler is not None:
            raise ValueError(
                f"{changed[0]}: this tower's score is read through an attention pooler"
            )
        if self.pool == "cls" and tower.prefix_count == 0:
            raise ValueError("pool='cls': this tower has no CLS token")
        if changed and closed_form:
            raise ValueError(
                f"{changed[0]} has no closed form, which rests on every block's mean token; "
                'use engine="autograd"'
            )


def is_siglip(tower: Tower) -> bool:
    """Whether the tower pools as SigLIP does: attention, then a residual MLP."""
    return tower.pooler is not None and tower.pooler.tail is not None


def heat_order(tower: Tower) -> HeatOrder:
    """SigLIP's maps are normalised before they are upsampled (the authors' package)."""
    return HeatOrder.NORMALISE_UPSAMPLE if is_siglip(tower) else HeatOrder.UPSAMPLE_NORMALISE


def layer_readout(tower: Tower, options: LeGradOptions) -> tuple[Pooler, ScoreHead]:
    """The pooler and the head that the score of one layer is read through."""
    pooler, head = tower.pooler, tower.head
    assert pooler is not None
    if is_siglip(tower):
        return (pooler if options.apply_trunk_norm else replace(pooler, before=nn.Identity())), head
    if options.coca == "official":
        return pooler, replace(head, norm=None, unit=False)
    return pooler, head
