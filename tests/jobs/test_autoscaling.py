"""A cluster that begins without a worker's node: what a job asks for comes, and goes after it.

The autoscaler is Ray's own (the second version, which knows labels), its nodes are raylets of this
machine: "Testing Autoscaling Locally" in Ray's documentation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.head import PATIENCE, Head, job, running_head, until

HEAD = "f" * 51 + "00000"
"""What Ray's provider of pretended nodes calls the head."""
PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
COMMANDS = (
    "setup_commands", "head_setup_commands", "worker_setup_commands", "initialization_commands",
    "head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files",
    "rsync_exclude", "rsync_filter",
)  # fmt: skip
"""Of a cluster of real machines, and asked for."""
KINDS = {"cpu": {"CPU": 2}, "gpu": {"CPU": 2, "GPU": 1}}

pytestmark = [pytest.mark.ray, pytest.mark.long]


def configuration(address: str) -> dict[str, Any]:
    """Up to two nodes of each kind, none of which is kept."""
    nothing = {"node_config": {}, "min_workers": 0}
    kinds = {
        kind: {**nothing, "resources": room, "labels": {"kind": kind}, "max_workers": 2}
        for kind, room in KINDS.items()
    }
    head = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
    provider = {"type": "external", "module": PROVIDER, "gcs_address": address}
    return {
        **{name: [] for name in COMMANDS},
        **{name: {} for name in ("file_mounts", "auth", "docker")},
        "file_mounts_sync_continuously": False,
        "cluster_name": "of-these-tests",
        "max_workers": 4,
        "upscaling_speed": 10,
        "idle_timeout_minutes": 0.1,
        "provider": {**provider, "launch_multiple": True, "head_node_id": HEAD},
        "head_node_type": "ray.head.default",
        "available_node_types": {"ray.head.default": head, **kinds},
    }


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    environment = {
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": HEAD,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD,
    }
    with running_head(environment, "--num-cpus=0", scaling=configuration) as head:
        yield head


def submitted(head: Head, output: Path, *settings: str) -> tuple[int, str]:
    """How a job over the demo's shards ends, and what it says."""
    with job(head, output, *settings) as process:
        said, _ = process.communicate(timeout=PATIENCE)
    return process.returncode, said


def kinds(head: Head, state: str = "") -> list[str]:
    """Kinds of the nodes that have ever come, or that are in a state."""
    return sorted(
        node["labels"]["kind"]
        for node in head.listed("nodes")
        if "kind" in node["labels"] and state in ("", node["state"])
    )


def test_nodes_of_the_kind_that_is_asked_for_come_for_a_job_and_go_after_it(
    head: Head, tmp_path: Path
) -> None:
    assert kinds(head) == []
    code, said = submitted(
        head, tmp_path, "--engine.device", "cpu", "--engine.workers", "2",
        "--engine.cpus_per_worker", "2", "--engine.labels", "{kind: '!gpu'}",
        "--engine.log_seconds", "2",
    )  # fmt: skip
    assert code == 0, said
    assert "each of which needs 2 CPUs on a node with kind !gpu: 2, for" in said
    assert json.loads((tmp_path / "summary.json").read_text())["shards"] == 3
    assert kinds(head) == ["cpu", "cpu"]
    until(lambda: kinds(head, "ALIVE") == [], "the nodes go")


def test_a_gpu_comes_from_none(head: Head, tmp_path: Path) -> None:
    """Ray believes in it; the worker on it says that there is none."""
    before = kinds(head).count("gpu")
    code, said = submitted(
        head, tmp_path, "--engine.device", "cuda", "--engine.workers", "1",
        "--engine.log_seconds", "2",
    )  # fmt: skip
    assert code == 1, said
    assert "waiting for the start of workers, each of which needs a GPU: 1, for" in said
    assert "annotate.py: --engine.device cuda: cannot be used: " in said
    assert kinds(head).count("gpu") == before + 1
