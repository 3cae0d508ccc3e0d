"""Workers on nodes by label, two on a GPU, and a wait that ends as the right node comes."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pipeline.demo.run import SHARDS
from tests.jobs.head import PATIENCE, Head, job, joined, running_head

WAITS = (
    r"waiting for the start of workers, each of which needs 2 CPUs on a node with kind c: 2, "
    r"for \d+ s: no node of 3 has kind c; kind is a, b"
)

pytestmark = [pytest.mark.ray, pytest.mark.long]


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """A head without room, and two nodes with a GPU each that Ray believes in."""
    logs = tmp_path_factory.mktemp("nodes")
    with ExitStack() as exit_:
        head = exit_.enter_context(running_head({}, "--num-cpus=0"))
        for kind in ("a", "b"):
            labels = f"--labels=kind={kind}"
            node = joined(head, logs / kind, labels, "--num-cpus=2", "--num-gpus=1")
            exit_.enter_context(node)
        yield head


@pytest.fixture
def start(head: Head, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`start(*settings)`: a job over the demo's shards, which is followed."""
    with ExitStack() as exit_:

        def run(*settings: str) -> subprocess.Popen[str]:
            return exit_.enter_context(job(head, tmp_path / "out", *settings))

        yield run


def kinds(head: Head, before: set[str]) -> list[str]:
    """The labels of the nodes on which workers have started which are not of those before."""
    labels = {node["node_id"]: node["labels"].get("kind") for node in head.listed("nodes")}
    return sorted(
        labels[actor["node_id"]]
        for actor in head.listed("actors")
        if actor["class_name"] == "_ShardActor"
        and actor["actor_id"] not in before
        and actor["node_id"]  # the other may have done all by then
    )


def workers(head: Head) -> set[str]:
    return {actor["actor_id"] for actor in head.listed("actors")}


def test_two_workers_share_the_gpu_of_the_labelled_node(
    head: Head, start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    before = workers(head)
    shards = tmp_path / "in"  # more than the first worker has done when the second is there
    shards.mkdir()
    for number in range(12):
        (shards / f"{number:02}.tar").symlink_to(SHARDS / "demo-00000.tar")
    job = start(
        "--engine.labels", "{kind: '!a'}", "--engine.gpus_per_worker", "0.5",
        "--input", str(shards), "--limit_samples", "64",
    )  # fmt: skip
    said, _ = job.communicate(timeout=PATIENCE)
    assert job.returncode == 0, said
    assert kinds(head, before) == ["b", "b"]
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["shards"] == 12


def test_workers_wait_for_a_node_with_the_label_and_say_so(
    head: Head, start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    before = workers(head)
    job = start(
        "--engine.labels", "{kind: c}", "--engine.device", "cpu", "--engine.workers", "2",
        "--engine.cpus_per_worker", "2", "--engine.log_seconds", "2",
    )  # fmt: skip
    said, end = "", time.monotonic() + PATIENCE
    assert job.stdout is not None
    while not re.search(WAITS, said) and time.monotonic() < end:
        said += job.stdout.readline()
    assert re.search(WAITS, said), said
    with joined(head, tmp_path / "c", "--labels=kind=c", "--num-cpus=4"):
        rest, _ = job.communicate(timeout=PATIENCE)
        assert job.returncode == 0, said + rest
        assert set(kinds(head, before)) == {"c"}
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["shards"] == 3


def test_labels_that_no_node_has_leave_open_what_the_device_is(
    start: Callable[..., subprocess.Popen[str]],
) -> None:
    job = start("--engine.labels", "{kind: d}")
    said, _ = job.communicate(timeout=PATIENCE)
    assert job.returncode == 1
    assert "no node of 3 has kind d; kind is a, b; say with --engine.device, cuda or cpu" in said
