"""Which nodes workers can be put on, by hand, and that Ray itself sees it in the same way."""

from __future__ import annotations

import re
import shlex
import time
from pathlib import Path

import pytest

from pipeline.cli import parse
from pipeline.config import AnnotateConfig, ExecutionConfig
from pipeline.errors import ConfigError
from pipeline.run.members import Member, lacks, waits_for
from pipeline.run.placement import Needs, choose, matches

ROOT = Path(__file__).parents[3]


def node(
    cpu: float = 8.0, gpu: float = 0.0, alive: bool = True, **labels: str
) -> dict[str, object]:
    """One of `ray.nodes()`."""
    resources = {"CPU": float(cpu), "GPU": float(gpu), "memory": 1e9}
    return {
        "Alive": alive,
        "Resources": {k: v for k, v in resources.items() if v},
        "Labels": labels,
    }


@pytest.mark.parametrize(
    ("value", "wanted", "expected"),
    [
        ("H100", "H100", True),
        ("A100", "H100", False),
        (None, "H100", False),
        ("A100", "!H100", True),
        ("H100", "!H100", False),
        (None, "!H100", True),
        ("H200", "in(H100, H200)", True),
        ("H200", "in(H100,H200)", True),
        ("L4", "in(H100, H200)", False),
        ("L4", "!in(H100, H200)", True),
        ("H100", "!in(H100, H200)", False),
        ("in", "in", True),
    ],
)
def test_labels(value: str | None, wanted: str, expected: bool) -> None:
    assert matches(value, wanted) is expected


@pytest.mark.parametrize(
    ("gpus", "cpus", "of_node", "room"),
    [
        (1, 1, node(8, 4), 4),
        (1, 4, node(8, 4), 2),
        (2, 1, node(8, 4), 2),
        (2, 1, node(8, 5), 2),
        (0.5, 1, node(8, 2), 4),
        (0.4, 1, node(8, 2), 4),  # 2 a GPU, though 5 would fit into the sum
        (0.1, 0.1, node(8, 1), 10),
        (0.1, 0.1, node(0.3, 1), 3),
        (0, 1, node(8, 4), 8),
        (0, 0, node(0, 0), 1),
        (1, 1, node(8, 0), 0),
        (1, 1, node(0, 4), 0),
        (1, 1, node(8, 4, alive=False), 0),
    ],
)
def test_room(gpus: float, cpus: float, of_node: dict[str, object], room: int) -> None:
    assert Needs(float(gpus), float(cpus)).room(of_node) == room


def test_what_is_missing_is_said() -> None:
    needs = Needs(1.0, 1.0, {"accelerator": "H100"})
    assert str(needs) == "a GPU on a node with accelerator H100"
    assert str(Needs(0.5, 4.0)) == "0.5 of a GPU and 4 CPUs"
    assert str(Needs(0.0, 1.0)) == "a CPU"
    assert str(Needs(2.0, 0.0)) == "2 GPUs and no CPU"
    others = [node(8, 4, accelerator="L4"), node(8, 4, accelerator="A100"), node(8)]
    assert needs.missing(others) == ("no node of 3 has accelerator H100; accelerator is A100, L4")
    assert needs.missing([node(8)]) == "no node of 1 has accelerator H100"
    without = [*others, node(8, accelerator="H100"), node(4, accelerator="H100")]
    assert needs.missing(without) == (
        "no node of 2 with these labels has that much: 0 GPU and 8 CPU at the most"
    )
    full = [*others, node(8, 4, accelerator="H100")]
    assert (
        needs.missing(full) == "there is room for 4 of them: they are starting, or others have it"
    )
    assert Needs(4.0, 1.0).missing([node(8, 2)]) == (
        "no node of 1 has that much: 2 GPU and 8 CPU at the most"
    )


def test_the_device_follows_from_the_nodes_with_the_labels() -> None:
    nodes = [node(8, 4, kind="gpu"), node(8, kind="cpu"), node(8, 4, kind="old", alive=False)]
    assert choose(ExecutionConfig(), nodes).gpus == 1
    assert choose(ExecutionConfig(labels={"kind": "cpu"}), nodes).gpus == 0
    assert choose(ExecutionConfig(labels={"kind": "gpu"}, gpus_per_worker=0.5), nodes).gpus == 0.5
    assert choose(ExecutionConfig(labels={"kind": "old"}, device="cuda"), nodes).gpus == 1
    with pytest.raises(ConfigError, match=r"no node of 2 has kind old; kind is cpu, gpu; say with"):
        choose(ExecutionConfig(labels={"kind": "old"}), nodes)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"gpus_per_worker": 1.5}, "a share of one GPU, as 0.5, or whole GPUs"),
        ({"gpus_per_worker": 0.0}, "must be above 0"),
        ({"cpus_per_worker": -1.0}, "must not be negative"),
        ({"labels": {"kind": "in(a"}}, "give {name: value}"),
        ({"labels": {"kind": ""}}, "give {name: value}"),
        ({"labels": {"a b": "c"}}, "give {name: value}"),
        ({"labels": {"ray.io/node-id": "abc"}}, "choose by another label"),
    ],
)
def test_what_no_cluster_could_give_is_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ExecutionConfig(**settings)


def test_left_out_nodes_come_on_top_of_the_labels() -> None:
    needs = Needs(0.5, 2.0, {"kind": "!in(a, b)"})
    assert needs.options() == {
        "num_cpus": 2, "num_gpus": 0.5, "label_selector": {"kind": "!in(a, b)"},
    }  # fmt: skip
    assert needs.options(["1f", "2e"])["label_selector"] == {
        "kind": "!in(a, b)", "ray.io/node-id": "!in(1f,2e)",
    }  # fmt: skip
    assert Needs(0.0, 1.0).options() == {"num_cpus": 1}


def test_the_pages_settings_are_read_as_meant() -> None:
    page = (ROOT / "docs" / "cluster.md").read_text()
    lines = re.findall(r"`(--engine\.\w+ [^`]*)`", page)
    values: dict[str, object] = {}
    for line in lines:
        engine = parse(AnnotateConfig, "annotate.py", None, shlex.split(line)).engine
        name = line.split()[0].removeprefix("--engine.")
        values[name] = getattr(engine, name)
    assert values == {
        "workers": 8, "gpus_per_worker": 0.5, "cpus_per_worker": 4.0,
        "labels": {"accelerator": "H100"}, "device": "cuda", "gpu": "H100", "price": 2.5,
    }  # fmt: skip
    for wanted in re.findall(r'"(!?\w+\([^)"]*\)|!\w+)"', page):
        assert ExecutionConfig(labels={"accelerator": wanted}).labels
    both = parse(AnnotateConfig, "annotate.py", None, ["--engine.labels", '{a: "in(b, c)", d: e}'])
    assert both.engine.labels == {"a": "in(b, c)", "d": "e"}


def test_placement_is_no_part_of_what_a_run_is() -> None:
    engine = ExecutionConfig(gpus_per_worker=0.5, cpus_per_worker=4.0, labels={"a": "b"})
    assert AnnotateConfig(engine=engine).fingerprint() == AnnotateConfig().fingerprint()


def test_workers_that_wait_while_others_work_are_counted() -> None:
    """One of three has room; the two that wait, the first of them for 40 s, have none."""
    needs, nodes = Needs(1.0, 1.0), [node(8, 1)]
    long_ago = time.monotonic() - 40.1
    ready = Member(None, None, node="a", has_model=True)
    waiting = [Member(None, "asked", started_at=long_ago), Member(None, "asked")]
    assert lacks([ready, *waiting], needs, lambda: nodes) == (
        "2 of 3 workers wait for a GPU, for 40 s: there is room for 1 of them: they are starting, "
        "or others have it"
    )
    assert waits_for([ready, *waiting], needs, lambda: nodes) == ""
    assert lacks([ready], needs, lambda: nodes) == ""
    assert lacks([ready, waiting[1]], needs, lambda: nodes) == ""  # it has only begun to
    assert lacks(waiting, needs, lambda: nodes) == ""  # which is said in another place
    assert waits_for(waiting, needs, lambda: nodes).startswith("waiting for the start of workers")
    assert lacks([], needs, lambda: nodes) == ""
