"""What those who watch a cluster see of a run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.config import AnnotateConfig, ExecutionConfig
from pipeline.demo.run import SHARDS
from pipeline.inputs.shards import Shard, find_shards
from pipeline.outputs.ledger import Ledger
from pipeline.run.accounts.metrics import METRICS, Metric, Put, told, values
from pipeline.run.accounts.work import Work
from pipeline.run.queue import Outcome, ShardQueue
from pipeline.run.run import run_shards
from pipeline.run.worker import Worker

RECORD = {
    "samples": 10,
    "masks": 14,
    "statuses": {"annotated": 7, "rejected": 3},
    "rejects": {"undecodable": 2, "missing_field": 1},
    "stages": {"read": 1.0, "decode": 4.0, "model": 6.0, "mask": 2.0, "write": 0.5},
    "seconds": 10.0,
    "threads": 4,
}


def test_counters_rise_by_what_is_new_and_gauges_are_what_is_now() -> None:
    now = [0.0]
    engine = ExecutionConfig(max_attempts=1, shards_in_flight=2, threads=4)
    shards = [Shard(f"/{i}.tar", f"/{i}.tar", 1) for i in range(4)]
    queue = ShardQueue(engine, shards, lambda *_: None, say=lambda _: None)
    queue.work = Work(clock=lambda: now[0])
    added: dict[tuple[str, str], float] = {}

    def make(metric: Metric) -> Put:
        def put(value: int | float, labels: dict[str, str]) -> None:
            assert list(labels) == [metric.label] * bool(metric.label)
            key = metric.name, "".join(labels.values())
            added[key] = value + (added.get(key, 0) if metric.kind == "counter" else 0)

        return put

    with told(queue, make):
        queue.work.hold(3, "GPU")
        first, second = queue.next(True), queue.next(False)
        assert first is not None and second is not None
        queue.end(second, Outcome("it fails"))
        queue.end(first, Outcome(record=json.dumps(RECORD)))
        now[0] += 1800
    with told(queue, make):  # as a run does that has something to do again: nothing counts twice
        pass
    assert added["legrad_images", "annotated"] == 7
    assert added["legrad_rejects", "undecodable"] == 2
    assert added["legrad_masks", ""] == 14
    assert added["legrad_stage_seconds", "decode"] == 4.0
    assert added["legrad_hours", "GPU"] == pytest.approx(1.5)
    assert added["legrad_held", ""] == 3
    assert {state: added["legrad_shards", state] for state in values(queue)["legrad_shards"]} == {
        "committed": 1,
        "given_up": 1,
        "in_flight": 0,
        "waiting": 2,
    }
    assert added["legrad_queue_depth", ""] == 2
    # 6 s of 10 with the model, of which a worker with two shards in flight has one: 1.2, at most 1.
    assert added["legrad_busy_share", "model"] == 1.0
    assert added["legrad_busy_share", "decode"] == 0.1  # 4 s of 4 threads that had 10 s each
    assert {name for name, _ in added} == {metric.name for metric in METRICS}


@pytest.mark.ray
def test_prometheus_finds_them_at_the_head(
    shared_ray: str, make_config: Callable[..., AnnotateConfig]
) -> None:
    import ray

    config = make_config(input=str(SHARDS / "demo-00000.tar"), limit_samples=5)
    config = replace(config, engine=replace(config.engine, executor="ray", workers=1))
    ledger = Ledger(config.output)
    ledger.open(config.identity(), config.public(), [])
    summary = run_shards(config, ledger, find_shards(config.patterns), Worker)
    port = ray.nodes()[0]["MetricsExportPort"]
    # At least: other tests' drivers, some of them gone, stand on the same page.
    wanted = {
        ("ray_legrad_masks_total", ""): float(summary.masks),
        ("ray_legrad_shards", "committed"): 1.0,
    }
    deadline = time.monotonic() + 60
    while True:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        found: dict[tuple[str, str], float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                key = sample.name, sample.labels.get("state", sample.labels.get("stage", ""))
                found[key] = max(sample.value, found.get(key, 0.0))
        if all(found.get(key, 0.0) >= value for key, value in wanted.items()):
            break
        assert time.monotonic() < deadline, found
        time.sleep(0.2)
    assert found["ray_legrad_stage_seconds_total", "model"] > 0
    assert 0 < found["ray_legrad_busy_share", "model"] <= 1
