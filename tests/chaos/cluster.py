"""A Ray cluster of several nodes on this machine, some of which go and are replaced."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Mapping
from typing import Any

from ray.cluster_utils import Cluster

from tests.chaos.drives import until

NODES = 2
HEALTH = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_failure_threshold": 5,
}
"""Ray takes a node for lost sooner than it does by default, for there are many to be lost."""
COMING = 60.0


class Nodes:
    """A head without room for workers, and two nodes with room for one each.

    Attributes:
        address: for RAY_ADDRESS.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        os.environ.update(environment)  # of what Ray starts
        tempfile.tempdir = environment["RAY_TMPDIR"]
        logging.getLogger("ray").setLevel(logging.ERROR)
        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": HEALTH}
        self._cluster: Any = Cluster(initialize_head=True, head_node_args=head)
        self._nodes: dict[str, Any] = {}
        self._gone: set[str] = set()  # Ray takes a while to see it
        self.address = str(self._cluster.address)
        try:
            self.complete()
        except BaseException:
            self.close()
            raise

    def complete(self) -> None:
        """Have as many nodes as in the beginning."""
        while len(self._nodes) > NODES:
            self.remove(next(iter(self._nodes)))
        while len(self._nodes) < NODES:
            self.add()
        until(lambda: self.alive() == self._nodes.keys(), COMING, "all nodes are there")

    def alive(self) -> set[str]:
        """Ids of the nodes that Ray believes to live, without the head and what was taken away."""
        found = self._cluster.global_state.node_table()
        alive = {n["NodeID"] for n in found if n["Alive"] and n["Resources"].get("CPU")}
        return alive - self._gone

    def add(self) -> str:
        """A new node's id."""
        before = self.alive()
        node = self._cluster.add_node(num_cpus=1)
        new: set[str] = set()

        def is_there() -> bool:
            new.update(self.alive() - before)
            return bool(new)

        until(is_there, COMING, "a node joins")
        (name,) = new
        self._nodes[name] = node
        return name

    def remove(self, name: str) -> None:
        """Kill everything of a node."""
        self._gone.add(name)
        self._cluster.remove_node(self._nodes.pop(name), allow_graceful=False)

    def kill_raylet(self, name: str) -> None:
        """Kill what stands for a node, and leave its workers."""
        self._gone.add(name)
        node = self._nodes.pop(name)
        node.kill_raylet()
        self._cluster.worker_nodes.remove(node)

    def kill_head(self) -> None:
        """Kill the control store."""
        self._cluster.head_node.kill_gcs_server()

    def close(self) -> None:
        """End the cluster."""
        self._cluster.shutdown()
