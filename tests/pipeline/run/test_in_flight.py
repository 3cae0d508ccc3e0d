"""Several shards in flight on one worker: who has the model, who waits, and who is stopped."""

import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from legrad import HeatOrder
from pipeline.config import ExecutionConfig
from pipeline.inputs.samples import Sample
from pipeline.inputs.shards import find_shards
from pipeline.models.explain import Maps
from pipeline.run.queue import Trial
from pipeline.run.worker import Worker
from tests.pipeline.stand_ins import Labelled, MakeConfig, MakeTar, Write

ROOT = Path(__file__).parents[3]
BATCHES = 8


class Slow:
    """A model that takes its time over a batch, and remembers whose batches it had."""

    device = torch.device("cpu")
    embed_width = 4
    heat_order = HeatOrder.UPSAMPLE_NORMALISE

    def __init__(self, seconds: float) -> None:
        self.seconds, self.had = seconds, list[str]()
        self.began = threading.Event()

    def squash(self, pixels: Tensor) -> Tensor:
        """Nothing of the image is used."""
        return torch.zeros(3, 8, 8, dtype=torch.uint8)

    def has_prompts(self, sample: Sample) -> bool:
        """As for a real model."""
        return bool(sample.wanted)

    def __call__(self, samples: Sequence[Sample]) -> list[Maps]:
        """Random maps, later."""
        self.had.append(samples[0].key[0])
        self.began.set()
        time.sleep(self.seconds)
        return [
            Maps(s.wanted, torch.rand(len(s.wanted), 4, 4), [0.0], ["dog"], cut=0) for s in samples
        ]


@pytest.fixture
def two_shards(tar: MakeTar, labelled: Labelled, write_shards: Write) -> str:
    """Two shards of `BATCHES` samples, whose keys begin with the name of the shard."""

    def shard(name: str) -> bytes:
        return tar(member for i in range(BATCHES) for member in labelled(f"{name}{i}", ["dog"]))

    return write_shards(a=shard("a"), b=shard("b"))


def one_by_one(stall_seconds: float = 1000.0) -> ExecutionConfig:
    """Batches of one image."""
    return ExecutionConfig(executor="local", threads=1, batch_size=1, stall_seconds=stall_seconds)


def test_the_shard_begun_first_has_the_model_first(
    two_shards: str, make_config: MakeConfig
) -> None:
    config = make_config(input=two_shards, engine=one_by_one())
    model = Slow(0.1)
    worker = Worker(config, lambda _: model)
    first, second = find_shards(config.patterns)
    with ThreadPoolExecutor(2) as pool:
        outcomes = [pool.submit(worker.try_shard, Trial(first), lambda n: None)]
        model.began.wait()
        outcomes.append(pool.submit(worker.try_shard, Trial(second), lambda n: None))
    assert [outcome.result().error for outcome in outcomes] == ["", ""]
    # The second gets in at most where the first was slow to read on.
    last_of_first = len(model.had) - 1 - model.had[::-1].index("a")
    assert model.had[:last_of_first].count("b") <= 2


def test_a_shard_that_waits_for_another_is_not_taken_for_stuck(
    two_shards: str, make_config: MakeConfig, tmp_path: Path
) -> None:
    """In a process of its own, which the watchdog would end."""
    program = f"""
        import pandas  # as pyarrow does for its first table, which can take longer than the watch
        from pipeline.config import AnnotateConfig, ExecutionConfig
        from pipeline.run.local_executor import LocalExecutor
        from pipeline.inputs.shards import find_shards
        from pipeline.run.queue import ShardQueue
        from pipeline.run.worker import Worker
        from tests.pipeline.run.test_in_flight import Slow, one_by_one
        config = AnnotateConfig(input={two_shards!r}, output={str(tmp_path / "out")!r},
                                engine=one_by_one(stall_seconds=3))
        queue = ShardQueue(config.engine, find_shards(config.patterns), print)
        LocalExecutor(config, lambda c: Worker(c, lambda _: Slow(0.6))).run(queue)
        print(len(queue.done))
    """
    lines = "\n".join(line.removeprefix(" " * 8) for line in program.splitlines())
    ended = subprocess.run(
        [sys.executable, "-c", lines], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.endswith("\n2\n")


def test_a_worker_that_is_told_to_stops_at_the_next_batch(
    two_shards: str, make_config: MakeConfig
) -> None:
    config = make_config(input=two_shards, engine=one_by_one())
    model = Slow(0.2)
    worker = Worker(config, lambda _: model)
    with ThreadPoolExecutor(2) as pool:
        outcomes = [
            pool.submit(worker.try_shard, Trial(shard), lambda n: None)
            for shard in find_shards(config.patterns)
        ]
        model.began.wait()
        worker.stop()
    assert [outcome.result().error for outcome in outcomes] == ["stopped", "stopped"]
    assert len(model.had) <= 4
    assert not worker.ledger.committed()
