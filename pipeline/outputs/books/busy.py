"""What bounds a run: the stage whose threads were busy for the largest part of their time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.config.groups import GPU_THREADS
from pipeline.inputs.reader import DECODE_THREADS

BATCHES_AT_ONCE = 2
"""Of one shard: while masks are made of the maps of one, the model has the next."""
NAMES = {
    "read": "reading",
    "decode": "decoding",
    "model": "the model",
    "mask": "masks",
    "write": "writing",
}


def busy(
    stages: Mapping[str, float], seconds: float, in_flight: int | float, threads: int | float = 0
) -> dict[str, float]:
    """The part of the time, 0 to 1, for which what does each stage was busy with it.

    A shard has one thread that reads and one that writes, `threads` that decode and
    `BATCHES_AT_ONCE` that make masks. The model is shared by the shards in flight of its worker.

    Args:
        stages: seconds by stage, of any number of shards together.
        seconds: that these shards took, each from its opening to its last table.
        in_flight: shards that a worker does at once, on average; see `flying`.
        threads: that decoded, on average; 0 for the `decoding` of a worker where a GPU is.

    Returns:
        By stage; empty where nothing is known of these stages.
    """
    if seconds <= 0 or not NAMES.keys() <= stages.keys():
        return {}
    at_once = {"decode": threads or decoding(0), "mask": BATCHES_AT_ONCE, "model": 1 / in_flight}
    return {
        stage: round(min(1.0, stages[stage] / seconds / at_once.get(stage, 1)), 4)
        for stage in NAMES
    }


def decoding(threads: int) -> int:
    """Threads that decode a shard where no commit says so.

    Args:
        threads: --engine.threads; 0 is taken for `GPU_THREADS`.
    """
    return max(DECODE_THREADS, threads or GPU_THREADS)


def flying(engine: Mapping[str, Any], shards: int) -> float:
    """Shards that a worker really does at once: no more than there are for it.

    Args:
        engine: settings of the group --engine; without `workers`, one is taken to have done all.
        shards: of all workers.
    """
    each = shards / (engine.get("workers") or 1)
    return min(float(engine["shards_in_flight"]), max(1.0, each))


def bound_by(shares: Mapping[str, float]) -> str:
    """The stage with the largest share; empty without any."""
    return max(shares, key=lambda stage: shares[stage], default="")


def spoken(shares: Mapping[str, float]) -> str:
    """What bounds a run, for people, and how busy the others are."""
    first = bound_by(shares)
    others = ", ".join(f"{NAMES[s]} {share:.0%}" for s, share in shares.items() if s != first)
    return f"{NAMES[first]}, busy {shares[first]:.0%} of the time ({others})"
