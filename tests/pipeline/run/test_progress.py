"""What is said of a run while it works: how far it is, and how long it will take."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.config import ExecutionConfig
from pipeline.inputs.shards import Shard
from pipeline.run import progress
from pipeline.run.accounts.work import Work
from pipeline.run.progress import Meter, shown
from pipeline.run.queue import Outcome, ShardQueue


class Clock:
    """Stands for `time`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Run:
    """Shards of some sizes, of which one after the other is done, with a meter over them."""

    def __init__(
        self, sizes: list[int], gpus: int, price: float | None = None, workers: int = 1
    ) -> None:
        self.images, self.waits_for, self.lacks = 0, "", ""
        self.shards = [Shard(f"/{i}.tar", f"/{i}.tar", size) for i, size in enumerate(sizes)]
        self.queue = ShardQueue(ExecutionConfig(price=price), self.shards, lambda *_: None)
        self.queue.work = Work(price, clock=lambda: vars(progress)["time"].monotonic())
        self.queue.work.hold(gpus or workers, "GPU" if gpus else "worker")
        self.trials = [self.queue.next(idle=True) for _ in self.shards]
        self.meter = Meter(
            self.queue, lambda: self.images, lambda: self.waits_for, lambda: self.lacks
        )

    def finish(self, *numbers: int) -> None:
        for number in numbers:
            self.queue.end(self.trials[number], Outcome())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_time_left_goes_by_bytes(clock: Clock) -> None:
    """A tenth of the bytes in half an hour leaves four and a half."""
    run = Run([100, 300, 600], gpus=8)
    run.meter.line()
    clock.now += 1800
    run.images = 36_000
    run.finish(0)
    assert run.meter.line() == (
        "1 of 3 shards, 36,000 images, 20.0 images/s, 4.5 h left, 40.0 GPU-hours in all"
    )
    run.finish(1)
    assert run.meter.fraction == 0.4
    assert run.meter.line().endswith("45 min left, 10.0 GPU-hours in all")


def test_time_left_goes_by_number_where_sizes_are_unknown(clock: Clock) -> None:
    run = Run([0, 0, 0, 0], gpus=2)
    run.meter.line()
    clock.now += 3600
    run.images = 400
    run.finish(0, 2)
    assert run.meter.line() == (
        "2 of 4 shards, 400 images, 9.0 s per image, 1.0 h left, 4.0 GPU-hours in all"
    )


def test_without_a_gpu_there_are_no_gpu_hours(clock: Clock) -> None:
    run = Run([10, 10], gpus=0)
    run.meter.line()
    clock.now += 600
    run.images = 1200
    run.finish(0)
    assert run.meter.line() == "1 of 2 shards, 1,200 images, 2.0 images/s, 10 min left"


def test_nothing_is_projected_before_the_first_shard_or_after_the_last(clock: Clock) -> None:
    run = Run([10, 10], gpus=1)
    run.meter.line()
    clock.now += 60
    run.images = 120
    assert run.meter.line() == "0 of 2 shards, 120 images, 2.0 images/s"
    run.finish(0, 1)
    assert run.meter.line() == "2 of 2 shards, 120 images, 2.0 images/s"


def test_the_time_to_load_a_model_does_not_count(clock: Clock) -> None:
    run = Run([10, 10], gpus=1)
    clock.now += 900
    assert run.meter.line() == "0 of 2 shards, loading the first images"
    clock.now += 10
    run.images = 40
    run.finish(0)
    assert "4.0 images/s, 0 min left" in run.meter.line()


def test_a_job_log_gets_a_line_now_and_then_and_one_at_the_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = Run([10, 10], gpus=0)
    printed: list[str] = []
    with shown(run.meter, 0.01):
        while not printed:
            printed = capsys.readouterr().out.splitlines()
        run.images = 2
        run.finish(0, 1)
    assert printed[0].startswith("0 of 2 shards")
    assert capsys.readouterr().out.splitlines()[-1].startswith("2 of 2 shards, 2 images, ")


def test_what_all_workers_wait_for_is_said_at_any_time(clock: Clock) -> None:
    run = Run([10, 10], gpus=2)
    run.waits_for = "waiting for nodes"
    assert run.meter.line() == "0 of 2 shards, waiting for nodes"
    clock.now += 10
    run.images = 40
    run.finish(0)
    assert run.meter.line() == "1 of 2 shards, 40 images, 4.0 images/s, waiting for nodes"


def test_a_price_is_projected_as_the_hours_are(clock: Clock) -> None:
    """8 GPUs, half an hour for a tenth: 40 GPU-hours, at 2.5 each; 36,000 images took 4 of them."""
    run = Run([100, 900], gpus=8, price=2.5)
    run.meter.line()
    clock.now += 1800
    run.images = 36_000
    run.finish(0)
    line = run.meter.line()
    assert line.endswith("40.0 GPU-hours in all, price 100.00 in all, 277.78 per million images")
    assert line.fields["price"] == pytest.approx(100.0)
    assert line.fields["price_per_million_images"] == pytest.approx(4 * 2.5 / 0.036)


def test_hours_are_of_what_is_held_while_models_load_and_workers_are_missing(
    clock: Clock,
) -> None:
    """8 GPUs are wanted. 2 are held for an hour of loading, then for half an hour of work.

    That is 3 GPU-hours. Of 1000 bytes 250 are done: 1.5 hours are left, with 2 GPUs 3 hours more;
    with 6, which come now, 9 hours.
    """
    run = Run([250, 750], gpus=2, price=2.0)
    clock.now += 3600
    run.meter.line()
    clock.now += 1800
    run.images = 1_000
    run.finish(0)
    line = run.meter.line()
    assert line.endswith(
        "1.5 h left, 6.0 GPU-hours in all, price 12.00 in all, 6,000.00 per million images"
    )
    run.queue.work.hold(6, "GPU")
    assert "12.0 GPU-hours in all, price 24.00 in all" in run.meter.line()
    spent = replace(run.queue.work.cost(), images=1_000)
    assert line.fields["price_per_million_images"] == spent.record()["money_per_million_images"]


def test_without_a_gpu_the_price_is_of_workers(clock: Clock) -> None:
    run = Run([10, 10], gpus=0, price=1.0, workers=4)
    run.meter.line()
    clock.now += 3600
    run.images = 8_000
    run.finish(0)
    assert run.meter.line().endswith("1.0 h left, price 8.00 in all, 500.00 per million images")


def test_what_some_workers_wait_for_is_said_behind_all_else(clock: Clock) -> None:
    run = Run([10, 10], gpus=0)
    run.meter.line()
    clock.now += 600
    run.images = 1200
    run.finish(0)
    run.lacks = "7 of 8 workers wait for a GPU, for 40 s: no node of 1 has that much"
    line = run.meter.line()
    assert line.endswith(f"10 min left, {run.lacks}") and line.fields["lacks"] == run.lacks
