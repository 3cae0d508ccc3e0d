"""Which shard of images belongs to which commit of a run."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline import storage
from pipeline.errors import ConfigError
from pipeline.inputs.shards import Shard, find_shards
from pipeline.outputs.predictions import Predictions
from pipeline.outputs.records import Commit

Pair = tuple[Shard, Commit]


def pair_up(images: Sequence[str], input_root: str, predictions: Predictions) -> list[Pair]:
    """Every shard that the patterns name, with what a run has committed of it.

    Args:
        images: see `find_shards`.
        input_root: see `find_shards`; the one that the run had.
        predictions: the run.

    Raises:
        ConfigError: a pattern matches nothing, or a shard has no commit or another size now.
    """
    shards = find_shards(images, input_root, "images")
    commits = {commit.shard: commit for commit in predictions.commits}
    absent = [shard for shard in shards if shard.name not in commits]
    if len(absent) == len(shards):
        raise ConfigError(
            f"images: none of {len(shards)} shards is in {predictions}: {absent[0].uri} is called "
            f"{absent[0].name} here, and the run has {_one_of(commits)}; where the data has moved, "
            "the run needs --input_root, and the loader an input_root"
        )
    if absent:
        raise ConfigError(
            f"images: {len(absent)} of {len(shards)} shards have no commit in {predictions}, the "
            f"first {storage.public(absent[0].location)}; finish the run, or leave them out"
        )
    pairs = [(shard, commits[shard.name]) for shard in shards]
    for shard, commit in pairs:
        # A web server need not say how long a file is.
        if shard.size and commit.bytes not in (shard.size, 0):
            raise ConfigError(
                f"images: {storage.public(shard.location)} has {shard.size:,} bytes, and had "
                f"{commit.bytes:,} when {predictions} was made; annotate it again"
            )
    return pairs


def _one_of(commits: dict[str, Commit]) -> str:
    first = min(commits)
    return f"{first} of {commits[first].uri}"
