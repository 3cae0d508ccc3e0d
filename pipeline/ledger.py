"""What is done: the files of an output directory other than the tables themselves.

The commit of a shard is written last, after its tables. It alone says that the shard is done.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from pipeline import storage
from pipeline.config import SCHEMA_VERSION, AnnotateConfig, ConfigError
from pipeline.shards import Shard

PACKAGES = ("torch", "torchvision", "open_clip_torch", "pyarrow", "pycocotools", "webdataset")


@dataclass(frozen=True)
class Commit:
    """The record that a shard is done.

    Attributes:
        shard: its name.
        uri: its normalised location.
        bytes: its size when it was read.
        samples: in the shard.
        statuses: samples by status.
        rejects: rejected samples by reason.
        prompts: (image, prompt) pairs looked for.
        masks: rows in the annotation table.
        files: path below the output → size in bytes and sha256.
        seconds: from opening the shard to its last table.
    """

    shard: str
    uri: str
    bytes: int
    samples: int
    statuses: dict[str, int]
    rejects: dict[str, int]
    prompts: int
    masks: int
    files: dict[str, dict[str, int | str]]
    seconds: float
    attempt: int = 1


class Ledger:
    """The output directory of a run."""

    def __init__(self, output: str) -> None:
        self.output = output

    def open(self, config: AnnotateConfig) -> None:
        """Start a run here, or go on with one.

        Raises:
            ConfigError: what is here was made with settings that give other results.
        """
        path = storage.join(self.output, "run.json")
        if storage.exists(path):
            before = json.loads(storage.read_bytes(path))
            _require_same(before["results"], config.results(), self.output)
            return
        run = {
            "schema_version": SCHEMA_VERSION,
            "fingerprint": config.fingerprint(),
            "results": config.results(),
            "config": asdict(config),
            "versions": {name: version(name) for name in PACKAGES},
        }
        self._write_json("categories.json", [])
        self._write_json("run.json", run)

    def committed(self) -> set[str]:
        """Names of the shards that are done."""
        names = storage.list_names(storage.join(self.output, "commits"), ".json")
        return {name.removesuffix(".json") for name in names}

    def commit(self, commit: Commit, tables: Mapping[str, bytes]) -> None:
        """Write the tables of a shard, then the record that it is done.

        Args:
            commit: the record.
            tables: path below the output → complete file.
        """
        for path, data in tables.items():
            storage.write_bytes(storage.join(self.output, *path.split("/")), data)
        self._write_json(f"commits/{commit.shard}.json", asdict(commit))
        storage.remove(storage.join(self.output, "failed", f"{commit.shard}.json"))

    def fail(self, shard: Shard, reason: str) -> None:
        """Record that a shard was given up, and why; a later commit takes the record away."""
        self._write_json(
            f"failed/{shard.name}.json", {"shard": shard.name, "uri": shard.uri, "reason": reason}
        )

    def failures(self) -> dict[str, str]:
        """Name of every shard that was given up → the reason."""
        folder = storage.join(self.output, "failed")
        records = (
            json.loads(storage.read_bytes(storage.join(folder, name)))
            for name in storage.list_names(folder, ".json")
        )
        return {record["shard"]: record["reason"] for record in records}

    def commits(self) -> list[Commit]:
        """Every commit, by shard name."""
        folder = storage.join(self.output, "commits")
        return [
            Commit(**json.loads(storage.read_bytes(storage.join(folder, name))))
            for name in storage.list_names(folder, ".json")
        ]

    def summarise(self, shards: Sequence[Shard]) -> Summary:
        """Add up the commits of `shards` and write `summary.json`."""
        wanted = {shard.name for shard in shards}
        commits = [commit for commit in self.commits() if commit.shard in wanted]
        summary = Summary.of(commits, missing=wanted - {commit.shard for commit in commits})
        self._write_json("summary.json", asdict(summary))
        return summary

    def _write_json(self, path: str, content: Any) -> None:
        data = json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n"
        storage.write_bytes(storage.join(self.output, *path.split("/")), data)


@dataclass(frozen=True)
class Summary:
    """Totals over the commits of a run.

    Attributes:
        shards: committed.
        missing: names of the shards that should be there and are not.
        samples: in the committed shards.
        statuses: samples by status.
        rejects: rejected samples by reason.
        prompts: (image, prompt) pairs looked for.
        masks: written.
        seconds: sum over the shards, each on its worker.
    """

    shards: int
    missing: list[str]
    samples: int
    statuses: dict[str, int]
    rejects: dict[str, int]
    prompts: int
    masks: int
    seconds: float

    @classmethod
    def of(cls, commits: Sequence[Commit], missing: Iterable[str]) -> Summary:
        """The totals of some commits."""
        statuses, rejects = Counter[str](), Counter[str]()
        for commit in commits:
            statuses.update(commit.statuses)
            rejects.update(commit.rejects)
        return cls(
            shards=len(commits),
            missing=sorted(missing),
            samples=sum(commit.samples for commit in commits),
            statuses=dict(sorted(statuses.items())),
            rejects=dict(sorted(rejects.items())),
            prompts=sum(commit.prompts for commit in commits),
            masks=sum(commit.masks for commit in commits),
            seconds=round(sum(commit.seconds for commit in commits), 3),
        )


def file_record(data: bytes) -> dict[str, int | str]:
    """Size and checksum of a file, as commits store them."""
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _require_same(before: dict[str, Any], now: dict[str, Any], output: str) -> None:
    old, new = _flatten(before), _flatten(now)
    changed = [key for key in sorted(old | new) if old.get(key) != new.get(key)]
    if changed:
        differences = ", ".join(f"{k}: {old.get(k)!r} there, {new.get(k)!r} now" for k in changed)
        raise ConfigError(
            f"--output {output} holds results of another configuration ({differences}); "
            "choose another output, or the same settings"
        )


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
