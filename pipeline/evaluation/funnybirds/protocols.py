"""What one image of a bird adds to every score of FunnyBirds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Float64, UInt8
from scipy.stats import spearmanr
from torch import Tensor

from pipeline.errors import Reject
from pipeline.evaluation.funnybirds.dataset import PARTS, Bird, Birds, Files, Rivals
from pipeline.evaluation.funnybirds.parts import importances, important, part_weights

Pixels: TypeAlias = UInt8[Tensor, "3 height width"]
ReadAll: TypeAlias = Callable[[Sequence[str]], Sequence[Tensor]]
"""RGB pixels of some image files, all of one size. May raise `Reject`."""
Logits: TypeAlias = Float64[np.ndarray, " class"]

RELEVANT = 0.05
"""Of the score: what lowers it by less when it is gone is not relevant."""
NO_RIVALS, NOT_SENSITIVE = "no pair of classes", "the model is not sensitive"
"""Why an image says nothing about target sensitivity."""

BIRD_COUNTS = pa.schema(
    [
        pa.field("image", pa.string(), nullable=False),
        pa.field("target", pa.int32(), nullable=False),
        pa.field("predicted", pa.int32(), nullable=False),
        pa.field("sufficiency", pa.list_(pa.float64())),
        pa.field("preserved", pa.list_(pa.bool_()), nullable=False),
        pa.field("deleted", pa.list_(pa.bool_()), nullable=False),
        pa.field("distracted", pa.list_(pa.float64())),
        pa.field("deletion", pa.float64()),
        pa.field("sensitivity", pa.list_(pa.bool_())),
        pa.field("insensitive", pa.string()),
        pa.field("objects", pa.int32(), nullable=False),
        pa.field("relevant_objects", pa.int32(), nullable=False),
    ]
)
"""One row per image. For each of `parts.THRESHOLDS`: the largest share of a sufficient set of parts
that is important (null where the prediction is wrong), whether the prediction stays when all else
is gone, whether it changes when the important parts are gone, and the share of what is irrelevant
that is important (null where all is relevant). Then single deletion (null where one side is
constant), the two answers of target sensitivity or why there are none, and background objects."""


@runtime_checkable
class Subject(Protocol):
    """A model, and a method that explains it."""

    def logits(self, images: Sequence[Tensor]) -> tuple[Float64[np.ndarray, "image class"], bool]:
        """Of RGB pixels [3, height, width] each, and whether a batch had to be made smaller."""

    def attributions(
        self, image: Pixels, classes: Sequence[int]
    ) -> tuple[Float[Tensor, "class height width"], bool]:
        """A map of each class, at the size of the image, on the CPU; and the same."""


@dataclass(frozen=True)
class Scored:
    """What was found about an image.

    Attributes:
        row: of the counts.
        maps: attributions that were asked for.
        degraded: a batch had to be made smaller for want of memory.
    """

    row: dict[str, Any]
    maps: int
    degraded: bool


class Answers:
    """What the model says to a bird and to what is left of it; each image is read and shown once.

    Attributes:
        degraded: a batch had to be made smaller for want of memory.
    """

    def __init__(self, subject: Subject, read: ReadAll) -> None:
        self._subject, self._read = subject, read
        self._logits: dict[str, Logits] = {}
        self.degraded = False

    def to_image(self, image: Pixels) -> Logits:
        """The logits of an image that has been read."""
        (logits,), self.degraded = self._subject.logits([image])
        assert isinstance(logits, np.ndarray)
        return logits

    def to(self, locations: Iterable[str]) -> list[Logits]:
        """The logits of some image files.

        Raises:
            Reject: one cannot be used.
        """
        wanted = list(locations)
        new = [location for location in dict.fromkeys(wanted) if location not in self._logits]
        if new:
            logits, degraded = self._subject.logits(self._read(new))
            self._logits |= dict(zip(new, logits, strict=True))
            self.degraded |= degraded
        return [self._logits[location] for location in wanted]


def score_bird(
    bird: Bird, birds: Birds, files: Files, subject: Subject, read: ReadAll, corrected: bool
) -> Scored:
    """What an image adds to the scores.

    Args:
        bird: the image.
        birds: all classes.
        files: where the images are.
        subject: what is scored.
        read: image files.
        corrected: without the slips of the authors' code, see `Birds`.

    Raises:
        Reject: an image or its part map cannot be used, or a map is not finite.
    """
    image, part_map = read([files.image(bird), files.part_map(bird)])
    weights = part_weights(part_map, bird.objects)
    if not weights[: len(PARTS)].any():
        raise Reject("bad_part_map", "no pixel of its part map has the colour of a part")
    answers = Answers(subject, read)
    original = answers.to_image(image)
    predicted, target = int(original.argmax()), bird.target
    if target >= len(original):
        raise Reject("bad_label", f"the model knows {len(original)} classes")
    singles = answers.to(files.without(bird, [part]) for part in PARTS)
    backgrounds = answers.to(files.without_object(bird, i) for i in range(bird.objects))
    drops = original[target] - np.array([left[target] for left in [*singles, *backgrounds]])
    relevant = np.abs(drops) >= abs(RELEVANT * original[target])
    relevant &= drops >= 0

    rivals = birds.rivals(target, corrected)
    kept = rivals is not None and _is_sensitive(rivals, bird, files, original, answers)
    explained = {target, predicted} | ({rivals.first, rivals.second} if rivals and kept else set())
    classes = sorted(explained)
    maps, degraded = subject.attributions(image, classes)
    if not maps.isfinite().all():
        raise Reject("not_finite", "an attribution is not finite")
    found = importances(maps, weights)
    by_class = dict(zip(classes, found, strict=True))
    totals = dict(zip(classes, maps.double().sum(dim=(1, 2)).tolist(), strict=True))

    of_target = important(by_class[target], totals[target])
    of_predicted = important(by_class[predicted][: len(PARTS)], totals[predicted])
    minimal = birds.sufficient(target, corrected)
    preserved, deleted = _checks(of_predicted, predicted, bird, files, answers)
    row: dict[str, Any] = {
        "image": bird.name,
        "target": target,
        "predicted": predicted,
        "sufficiency": _sufficiency(of_target, minimal) if predicted == target else None,
        "preserved": preserved,
        "deleted": deleted,
        "distracted": None if relevant.all() else of_target[:, ~relevant].mean(1).tolist(),
        "deletion": _agreement(drops[: len(PARTS)], by_class[target][: len(PARTS)]),
        "sensitivity": _sensitivity(rivals, by_class) if rivals and kept else None,
        "insensitive": None if kept else NOT_SENSITIVE if rivals else NO_RIVALS,
        "objects": bird.objects,
        "relevant_objects": int((relevant & (drops > 0))[len(PARTS) :].sum()),
    }
    return Scored(row, len(classes), degraded or answers.degraded)


def _is_sensitive(
    rivals: Rivals, bird: Bird, files: Files, original: Logits, answers: Answers
) -> bool:
    """Whether each rival loses more by its own parts than by those of the other."""
    removed = (rivals.first_parts, rivals.second_parts)
    first, second = (
        left - original for left in answers.to(files.without(bird, parts) for parts in removed)
    )
    a, b = rivals.first, rivals.second
    return bool(first[a] < second[a] and second[b] < first[b])


def _sufficiency(
    found: Bool[np.ndarray, "threshold part"], minimal: Sequence[frozenset[str]]
) -> list[float]:
    """The largest share of a sufficient set that is important, for every threshold."""
    shares = [
        found[:, [PARTS.index(part) for part in sorted(parts)]].mean(axis=1) for parts in minimal
    ]
    best: list[float] = np.max([np.zeros(len(found)), *shares], axis=0).tolist()
    return best


def _checks(
    found: Bool[np.ndarray, "threshold part"],
    predicted: int,
    bird: Bird,
    files: Files,
    answers: Answers,
) -> tuple[list[bool], list[bool]]:
    """Whether the prediction stays with the important parts alone, and changes without them."""
    kept = [frozenset(np.array(PARTS)[row].tolist()) for row in found]
    others = [frozenset(PARTS) - parts for parts in kept]
    removed = [files.without(bird, parts) for parts in [*others, *kept]]
    same = [int(logits.argmax()) == predicted for logits in answers.to(removed)]
    return same[: len(kept)], [not stays for stays in same[len(kept) :]]


def _agreement(
    drops: Float64[np.ndarray, " part"], importance: Float64[np.ndarray, " part"]
) -> float | None:
    """Spearman's correlation, from -1..1 to 0..1; None where one side is constant."""
    if np.ptp(drops) == 0 or np.ptp(importance) == 0:
        return None
    return float(spearmanr(drops, importance).statistic) * 0.5 + 0.5


def _sensitivity(
    rivals: Rivals, importance: Mapping[int, Float64[np.ndarray, " part"]]
) -> list[bool]:
    """Whether the parts of each rival have more of its own attribution than of the other's."""

    def of(target: int, parts: frozenset[str]) -> float:
        return float(sum(importance[target][PARTS.index(part)] for part in sorted(parts)))

    first, second = rivals.first_parts, rivals.second_parts
    return [
        of(rivals.first, first) > of(rivals.second, first),
        of(rivals.first, second) < of(rivals.second, second),
    ]
