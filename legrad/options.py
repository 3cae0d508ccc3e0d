"""What can be chosen about LeGrad beside its layers, and what each choice means."""

from __future__ import annotations

from dataclasses import dataclass


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
