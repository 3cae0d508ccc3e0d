"""Reading what an annotation run has written."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline import storage
from pipeline.errors import ConfigError, naming
from pipeline.evaluation.config import ScoringConfig
from pipeline.inputs.shards import Shard, shards_of
from pipeline.outputs.ledger import Ledger

SHOWN = 5
"""Shards named in a note."""


@dataclass(frozen=True)
class Gaps:
    """What a run should have written and has not.

    Attributes:
        planned: shards that the run was to do.
        missing: those that it has not committed → the reason.
        incomplete: those that it has committed in part only → the reason.
    """

    planned: int
    missing: dict[str, str]
    incomplete: dict[str, str]

    @classmethod
    def of(cls, predictions: str) -> Gaps:
        """The gaps of the run in `predictions`."""
        ledger = Ledger(predictions)
        commits = ledger.commits()
        missing = ledger.missing(commits)
        incomplete = {commit.shard: commit.incomplete for commit in commits if commit.incomplete}
        return cls(len(commits) + len(missing), missing, incomplete)

    def notes(self) -> list[str]:
        """What people have to know of it; nothing where the run is whole."""
        return [
            f"INCOMPLETE: the run {what} {len(shards):,} of {self.planned:,} planned shards: "
            + "; ".join(f"{name} ({reason})" for name, reason in list(shards.items())[:SHOWN])
            + ("; …" if len(shards) > SHOWN else "")
            + ". What lies in them has not been scored as it should."
            for what, shards in (
                ("lacks", self.missing),
                ("has only a part of", self.incomplete),
            )
            if shards
        ]


def scored_shards(config: ScoringConfig) -> tuple[list[Shard], Gaps | None]:
    """What is counted: tables of the run in --predictions, and its gaps, or shards of images.

    Raises:
        ConfigError: there are none.
    """
    if not config.predictions:
        return shards_of(config), None
    with naming(f"--predictions {storage.public(config.predictions)}"):
        shards = predicted_shards(config.predictions)[: config.limit_shards]
        return shards, Gaps.of(config.predictions)


def predicted_shards(predictions: str) -> list[Shard]:
    """The annotation tables of a run, under the names of the shards that they are of.

    Raises:
        ConfigError: there is no annotation run, or it has committed nothing.
    """
    commits = Ledger(predictions).commits()
    if not commits:
        raise ConfigError(f"--predictions {predictions}: no annotation run has committed there")
    shards = []
    for commit in commits:
        path = f"annotations/{commit.shard}.parquet"
        if path not in commit.files:
            raise ConfigError(
                f"--predictions {predictions}: holds counts of an evaluation; name the output of "
                "an annotation run"
            )
        location = storage.join(predictions, *path.split("/"))
        shards.append(Shard(location, commit.uri, int(commit.files[path]["bytes"])))
    return shards
