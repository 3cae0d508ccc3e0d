"""What is done: the files of an output directory other than the tables themselves.

The commit of a shard is written last, after its tables. It alone says that the shard is done.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from pipeline import storage
from pipeline.classes import load_classes
from pipeline.config import SCHEMA_VERSION, AnnotateConfig, ConfigError
from pipeline.shards import Shard

READERS = 16
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
        prompts_cut: of these, how many were longer than the model's context.
        masks: rows in the annotation table.
        files: path below the output → size in bytes and sha256.
        seconds: from opening the shard to its last table.
        attempt: which attempt succeeded, from 1.
        degraded: batches were made smaller for want of memory; last digits may differ.
        incomplete: why the shard could only be read in part; empty when it was read whole.
    """

    shard: str
    uri: str
    bytes: int
    samples: int
    statuses: dict[str, int]
    rejects: dict[str, int]
    prompts: int
    prompts_cut: int
    masks: int
    files: dict[str, dict[str, int | str]]
    seconds: float
    attempt: int
    degraded: bool
    incomplete: str


class Ledger:
    """The output directory of a run."""

    def __init__(self, output: str) -> None:
        self.output = output

    def open(self, config: AnnotateConfig) -> None:
        """Start a run here, or go on with one.

        Raises:
            ConfigError: what is here was made with settings that give other results, and
                `on_mismatch` does not say to redo it.
        """
        changes = self.changes(config)
        if changes and config.on_mismatch == "refuse":
            raise ConfigError(
                f"--output {self.output} holds results of another configuration "
                f"({'; '.join(changes)}); choose another output, or --on_mismatch redo"
            )
        if changes:
            self._clear()
        elif storage.exists(self._path("run.json")):
            return
        classes = load_classes(config.prompts.classes) if config.prompts.classes else []
        self._write_json("categories.json", [{"id": c.id, "name": c.name} for c in classes])
        self._write_json(
            "run.json",
            {
                "schema_version": SCHEMA_VERSION,
                "fingerprint": config.fingerprint(),
                "results": config.results(),
                "config": asdict(config),
                "versions": {name: version(name) for name in PACKAGES},
            },
        )

    def changes(self, config: AnnotateConfig) -> list[str]:
        """In which settings the run that is here differs from `config`; empty if there is none."""
        if not storage.exists(self._path("run.json")):
            return []
        old = _flatten(self._read_json("run.json")["results"])
        new = _flatten(json.loads(json.dumps(config.results())))
        return [
            f"{key}: {old.get(key)!r} there, {new.get(key)!r} now"
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key)
        ]

    def committed(self) -> set[str]:
        """Names of the shards that are done."""
        return self._names("commits")

    def commit(self, commit: Commit, tables: Mapping[str, bytes]) -> None:
        """Write the tables of a shard, then the record that it is done.

        Args:
            commit: the record.
            tables: path below the output → complete file.
        """
        for path, data in tables.items():
            storage.write_bytes(self._path(path), data)
        self._write_json(f"commits/{commit.shard}.json", asdict(commit))
        storage.remove(self._path(f"failed/{commit.shard}.json"))

    def fail(self, shard: Shard, reason: str) -> None:
        """Record that a shard was given up, and why; a later commit takes the record away."""
        self._write_json(
            f"failed/{shard.name}.json", {"shard": shard.name, "uri": shard.uri, "reason": reason}
        )

    def forget(self, shards: Iterable[str]) -> None:
        """Take back commits, so that their shards are done again."""
        for shard in shards:
            storage.remove(self._path(f"commits/{shard}.json"))

    def failures(self) -> dict[str, str]:
        """Name of every shard that was given up → the reason."""
        names = self._names("failed")
        return {name: self._read_json(f"failed/{name}.json")["reason"] for name in sorted(names)}

    def commits(self) -> list[Commit]:
        """Every commit, by shard name."""
        paths = [f"commits/{name}.json" for name in sorted(self.committed())]
        with ThreadPoolExecutor(READERS) as pool:  # one request each, when on an object store
            return [Commit(**content) for content in pool.map(self._read_json, paths)]

    def summarise(self, shards: Sequence[Shard]) -> Summary:
        """Add up the commits of `shards` and write `summary.json`."""
        wanted = {shard.name for shard in shards}
        commits = [commit for commit in self.commits() if commit.shard in wanted]
        summary = Summary.of(commits, missing=wanted - {commit.shard for commit in commits})
        self._write_json("summary.json", asdict(summary))
        return summary

    def _clear(self) -> None:
        """Delete a run: first the commits, so that nothing half-deleted counts as done."""
        for folder in ("commits", "failed", "annotations", "images"):
            for name in storage.list_names(self._path(folder)):
                storage.remove(self._path(f"{folder}/{name}"))

    def _names(self, folder: str) -> set[str]:
        names = storage.list_names(self._path(folder), ".json")
        return {name.removesuffix(".json") for name in names}

    def _path(self, path: str) -> str:
        return storage.join(self.output, *path.split("/"))

    def _read_json(self, path: str) -> Any:
        return json.loads(storage.read_bytes(self._path(path)))

    def _write_json(self, path: str, content: Any) -> None:
        data = json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n"
        storage.write_bytes(self._path(path), data)


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
        prompts_cut: of these, how many were longer than the model's context.
        masks: written.
        incomplete: shards that were read in part only, and why.
        seconds: sum over the shards, each on its worker.
    """

    shards: int
    missing: list[str]
    samples: int
    statuses: dict[str, int]
    rejects: dict[str, int]
    prompts: int
    prompts_cut: int
    masks: int
    incomplete: dict[str, str]
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
            prompts_cut=sum(commit.prompts_cut for commit in commits),
            masks=sum(commit.masks for commit in commits),
            incomplete={c.shard: c.incomplete for c in commits if c.incomplete},
            seconds=round(sum(commit.seconds for commit in commits), 3),
        )


def file_record(data: bytes) -> dict[str, int | str]:
    """Size and checksum of a file, as commits store them."""
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
