"""Runs in simulated time: by hand, and against runs that were."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import run as benchmark
from benchmarks.engine import scale
from benchmarks.engine.driver import COUNTS, make_shards
from benchmarks.engine.simulation import Cluster, Simulation, Times
from pipeline.config import AnnotateConfig, ExecutionConfig
from pipeline.inputs.shards import find_shards
from pipeline.outputs.ledger import Ledger
from pipeline.outputs.records import make_commit
from pipeline.run.ordering import PriorityLock
from pipeline.run.queue import Trial
from pipeline.run.run import run_shards
from pipeline.run.worker import ShardWorker

PAGE = Path(__file__).parents[2] / "docs/performance.md"


def steady(read: float, model: float, write: float) -> Callable[[Trial], Times]:
    return lambda _: Times(read, model, write)


def test_four_shards_on_one_actor_by_hand() -> None:
    """A model after 5 s, two shards begin; it has them from 6 to 16 and 16 to 26.

    They end at 18 and 28, when the others begin: these have it from 26 to 36, and 36 to 46.
    """
    found = Simulation(Cluster(1, load=5.0), 4, steady(1.0, 10.0, 2.0)).run()
    assert (found["seconds"], found["tail"], found["held"]) == (48.0, 20.0, 48.0)
    assert found["busy"] == pytest.approx(40 / 48)
    assert (found["tries"], found["wasted"], found["given_up"]) == (4, 0, 0)


@pytest.mark.parametrize(("kept", "held"), [(0.0, 3 * 100 + 10), (30.0, 3 * 100 + 40)])
def test_who_has_nothing_left_to_do_is_ended_but_for_spares(kept: float, held: float) -> None:
    """Of four actors three are done after 10 s; two of these wait, should the last one fail."""
    engine = ExecutionConfig(shards_in_flight=1, max_attempts=2)
    times = {number: Times(0.0, 100.0 if number == 2 else 10.0, 0.0) for number in range(4)}
    found = Simulation(
        Cluster(4, engine, kept=kept), 4, lambda trial: times[int(trial.shard.uri[1:8])]
    ).run()
    assert (found["seconds"], found["tail"], found["held"]) == (100.0, 100.0, held)


def test_a_shard_that_ends_its_worker_is_given_up() -> None:
    cluster = Cluster(1, ExecutionConfig(max_attempts=3), load=5.0, deaths=1.0)
    found = Simulation(cluster, 1, steady(1.0, 10.0, 2.0)).run()
    assert (found["tries"], found["lost"], found["given_up"]) == (3, 3, 1)
    assert found["seconds"] == 3 * (5 + 1 + 10)
    assert (found["busy"], found["wasted"]) == (0.0, 30.0)


def test_a_driver_that_does_one_thing_at_a_time_is_a_wall() -> None:
    found = Simulation(Cluster(100, driver=0.1), 1_000, steady(0.0, 1.0, 0.0)).run()
    assert found["seconds"] == pytest.approx(100.0, rel=0.02)
    assert found["driver"] == pytest.approx(1.0, rel=0.02)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_nothing_is_given_up(seed: int) -> None:
    troubles = Cluster(20, load=60.0, losses=1.0, replaced=180.0, outages=4.0, away=120.0)
    found = Simulation(troubles, 2_000, steady(2.0, 40.0, 1.0), seed).run()
    calm = Simulation(Cluster(20, load=60.0), 2_000, steady(2.0, 40.0, 1.0)).run()
    assert found["given_up"] == 0 and found["lost"] > 0 and found["transient"] > 0
    assert found["tries"] > calm["tries"] == 2_000
    assert found["busy"] * found["held"] == pytest.approx(2_000 * 40)  # each is done once
    assert found["seconds"] > calm["seconds"]


def test_it_gives_the_pace_that_was_measured() -> None:
    """`benchmarks/run.py executors`: with one shard in flight, what the model waits for is seen.

    With two it is hidden, as in the run that was measured.
    """
    shards, images = 24, 64
    paces = {
        int(in_flight): float(pace)
        for in_flight, pace in re.findall(r"^\| ray, 2 x (\d) \| (\d+) \|", PAGE.read_text(), re.M)
    }
    model = images * 0.010
    beside = 2 * images / paces[1] - model  # of every shard of one of two actors
    for in_flight, pace in paces.items():
        cluster = Cluster(2, ExecutionConfig(shards_in_flight=in_flight))
        times = steady(beside / 2, model, beside / 2)
        seconds = Simulation(cluster, shards, times).run()["seconds"] - beside
        assert shards * images / seconds == pytest.approx(pace, rel=0.05)


class Sleeper(ShardWorker):
    """Reads, has a model and writes for times that differ; writes down how long that was."""

    def __init__(self, config: AnnotateConfig, times: list[Times]) -> None:
        super().__init__(config)
        self._made, self._times, self._model = config.fingerprint(), times, PriorityLock()
        self._begun, self._lock = 0, threading.Lock()
        self.were: dict[int, Times] = {}
        self.span = [float("inf"), 0.0]

    def do_shard(
        self, trial: Trial, on_images: Callable[[int], object], alive: Callable[[], None]
    ) -> None:
        marks = [time.monotonic()]
        number = int(trial.shard.uri[-10:-4])
        with self._lock:
            self._begun += 1
            begun = self._begun
        time.sleep(self._times[number].read)
        marks.append(time.monotonic())
        with self._model.take((begun,)):
            marks.append(time.monotonic())
            time.sleep(self._times[number].model)
            marks.append(time.monotonic())
        time.sleep(self._times[number].write)
        commit = make_commit(trial.shard, self._made, COUNTS, {}, seconds=0.0, attempt=1)
        self.commit(commit, {})
        marks.append(time.monotonic())
        self.were[number] = Times(marks[1] - marks[0], marks[3] - marks[2], marks[4] - marks[3])
        self.span = [min(self.span[0], marks[0]), max(self.span[1], marks[4])]


def test_it_takes_as_long_as_a_run_that_was(tmp_path: Path) -> None:
    """A local run of 10 shards, one of which takes three times as long, played again."""
    times = [Times(0.05, 0.15 * (3 if i == 7 else 1 + i % 2), 0.05) for i in range(10)]
    make_shards(tmp_path / "in", len(times))
    engine = ExecutionConfig(executor="local", threads=1, log_seconds=1000.0)
    config = AnnotateConfig(str(tmp_path / "in"), str(tmp_path / "out"), engine=engine)
    ledger = Ledger(config.output)
    ledger.open(config.identity(), config.public(), [])
    workers: list[Sleeper] = []

    def make_worker(settings: AnnotateConfig) -> Sleeper:
        workers.append(Sleeper(settings, times))
        return workers[-1]

    run_shards(config, ledger, find_shards(config.patterns), make_worker)
    (worker,) = workers
    took = worker.span[1] - worker.span[0]
    played = Simulation(
        Cluster(1, engine), len(times), lambda trial: worker.were[int(trial.shard.uri[1:8])]
    ).run()
    assert played["seconds"] == pytest.approx(took, rel=0.2)


def test_the_sums_of_a_run_on_paper() -> None:
    """100 shards of 1,000 images of 10,000 bytes, 10 actors of 50 images/s: 20 s a shard."""
    few = scale.Factors(
        shards=100, images=1_000, actors=10, images_per_second=50.0, image_bytes=10_000
    )
    paper = scale.on_paper(replace(few, shards_per_second=200.0, price=3.0, mask_bytes=500))
    assert paper["images"] == 100_000
    assert paper["gpu_hours"] == pytest.approx(100_000 / 50 / 3600)
    assert paper["price"] == pytest.approx(3 * paper["gpu_hours"])
    assert paper["shards_per_second"] == 0.5
    assert paper["driver_busy"] == pytest.approx(0.0025)
    assert paper["actors_for_driver"] == 4_000
    assert paper["reads"] == 100 * (1 + 2)  # a HEAD, and 10 MB in parts of 8 MiB
    assert (paper["writes"], paper["checks"]) == (300, 200)
    assert paper["requests_per_second"] == pytest.approx(0.5 * 8)
    assert paper["written_tb"] == pytest.approx(100_000 * 500 / 1e12)


def test_the_command_prints_both_tables(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--shards", "200", "--images", "1000", "--actors", "10"]
    assert benchmark.main(["scale", *small]) == 0
    printed = capsys.readouterr().out
    assert "| images | 200,000 |" in printed and printed.count("| all of these |") == 1
