"""Who owns an output: redo beside a driver at work, tables that somebody deletes, the dead."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import Tensor

from legrad import HeatOrder
from pipeline import storage
from pipeline.config import AnnotateConfig, MaskConfig
from pipeline.errors import ConfigError, TakenOver
from pipeline.inputs.samples import Sample
from pipeline.inputs.shards import find_shards
from pipeline.models.explain import Maps
from pipeline.outputs import heartbeat
from pipeline.outputs.heartbeat import BEAT_SECONDS, DEAD_SECONDS, Driver, beating, spoken
from pipeline.outputs.ledger import Ledger
from pipeline.outputs.predictions import Predictions
from pipeline.run import run as driver
from pipeline.run.accounts.work import Work
from pipeline.run.annotation import print_status
from pipeline.run.plan import plan
from pipeline.run.run import run_shards
from pipeline.run.worker import MakeWorker, Worker
from tests.pipeline.stand_ins import Labelled, MakeConfig, MakeTar, Tree, Write, results

SHARDS = 6
SECONDS = 0.02
"""Of a batch."""


class Blank:
    """Stands in for a model: finds the same map in every image, after a while."""

    device = torch.device("cpu")
    embed_width = 0
    heat_order = HeatOrder.UPSAMPLE_NORMALISE

    def squash(self, pixels: Tensor) -> Tensor:
        """Nothing of the image is used."""
        return torch.zeros(3, 8, 8, dtype=torch.uint8)

    def has_prompts(self, sample: Sample) -> bool:
        """As for a real model."""
        return bool(sample.wanted)

    def __call__(self, samples: Sequence[Sample]) -> list[Maps]:
        """A slope from 0 to 1."""
        time.sleep(SECONDS)
        slope = torch.linspace(0, 1, 4).expand(1, 4, 4)
        return [
            Maps(s.wanted, slope.expand(len(s.wanted), 4, 4), [0.0] * len(s.wanted), ["dog"], 0)
            for s in samples
        ]


def make_worker(config: AnnotateConfig) -> Worker:
    return Worker(config, lambda _: Blank())


@pytest.fixture
def config(
    tar: MakeTar, labelled: Labelled, write_shards: Write, make_config: MakeConfig
) -> AnnotateConfig:
    names = [f"s{number:02}" for number in range(SHARDS)]
    shards = {
        name: tar(m for i in range(2) for m in labelled(f"{name}-{i}", ["dog"])) for name in names
    }
    return make_config(input=write_shards(**shards))


def begin(config: AnnotateConfig, redo: bool = False) -> Ledger:
    ledger = Ledger(config.output)
    ledger.open(config.identity(), {}, [], redo)
    return ledger


def run(config: AnnotateConfig, redo: bool = False, make: MakeWorker = make_worker) -> Ledger:
    ledger = begin(config, redo)
    run_shards(config, ledger, find_shards(config.patterns), make, ledger.write_index)
    return ledger


def drive(config: AnnotateConfig, ledger: Ledger) -> None:
    """What `run_shards` does with its plan."""
    planned = plan(config, ledger, find_shards(config.patterns))
    driver._run(config, ledger, planned, make_worker, lambda work: work(), Work())


@pytest.mark.parametrize(
    "seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(4, 50))]
)
def test_a_redo_beside_a_driver_that_works_wins(
    config: AnnotateConfig, tree: Tree, tmp_path: Path, seed: int
) -> None:
    other = replace(config, mask=MaskConfig(threshold=0.8))
    expected = results(tree(run(replace(other, output=str(tmp_path / "alone"))).output))
    old = begin(config)
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(drive, config, old)
        draw = random.Random(seed)
        while len(old.committed()) < seed % (SHARDS - 2) and not working.done():
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 2 * SECONDS))
        new = run(other, redo=True)
        with pytest.raises(TakenOver, match="another run, with other settings, has taken it over"):
            working.result()
    old.summarise(["x"], "stopped")  # as the old driver does in the end
    assert results(tree(new.output)) == expected
    assert {c.fingerprint for c in Ledger(new.output).commits()} == {other.fingerprint()}
    assert new.committed() == {shard.name for shard in find_shards(config.patterns)}
    assert new.failed() == set()
    summary = json.loads(Path(new.output, "summary.json").read_text())
    assert (summary["state"], summary["shards"], summary["missing"]) == ("finished", SHARDS, [])


def test_who_has_lost_an_output_gives_up_and_takes_back_nothing_in_it(
    config: AnnotateConfig, tree: Tree
) -> None:
    old = begin(config)
    new = run(replace(config, mask=MaskConfig(threshold=0.8)), redo=True)
    before = tree(new.output)
    shards = find_shards(config.patterns)
    with pytest.raises(TakenOver):
        old.fail(shards[0], "cut short")
    with pytest.raises(TakenOver):
        drive(config, old)
    assert tree(new.output) == before


def test_a_redo_that_was_killed_while_it_deleted_goes_on(
    config: AnnotateConfig, tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(config, mask=MaskConfig(threshold=0.8))
    expected = results(tree(run(replace(other, output=str(tmp_path / "alone"))).output))
    for killed_at in range(0, 2 * SHARDS + 3, 3):
        shutil.rmtree(config.output, ignore_errors=True)
        old = run(config)
        old.fail(find_shards(config.patterns)[0], "cut short")
        left = iter(range(killed_at))

        def remove(location: str, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt
            os.unlink(location)

        with monkeypatch.context() as patch:
            patch.setattr(storage, "remove", remove)
            with pytest.raises(KeyboardInterrupt):
                begin(other, redo=True)
        reader = Ledger(config.output)
        assert reader.commits() == [] and len(reader.missing([])) >= len(reader.committed())
        run(other)
        assert results(tree(config.output)) == expected and reader.failures() == {}


def test_a_run_whose_categories_were_never_written_goes_on(config: AnnotateConfig) -> None:
    ledger = begin(config)
    Path(ledger.output, "categories.json").unlink()
    assert [entry["name"] for entry in run(config).categories()] == ["dog"]


def test_other_settings_are_refused_while_somebody_works_there(config: AnnotateConfig) -> None:
    ledger = begin(config)
    ledger.driver = replace(Driver(), host="elsewhere")
    ledger.summarise(["x"], "running")
    with pytest.raises(ConfigError, match="another configuration"):
        begin(replace(config, mask=MaskConfig(threshold=0.8)))


def test_a_table_in_the_place_of_one_that_was_committed_is_not_read(config: AnnotateConfig) -> None:
    ledger = run(config)
    first, second = sorted(Path(ledger.output, "annotations").iterdir())[:2]
    assert first.stat().st_size == second.stat().st_size
    first.write_bytes(second.read_bytes())
    predictions = Predictions(ledger.output)
    with pytest.raises(ConfigError, match="it is not the table that was committed"):
        predictions.read(predictions.commits[0])
    predictions.read(predictions.commits[1])


def test_commits_of_other_settings_are_done_again(
    config: AnnotateConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after a redo that was killed between its new settings and the end of its deleting."""
    ledger = run(config)
    path = sorted(Path(ledger.output, "commits").iterdir())[3]
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"fingerprint": "another"}))
    assert path.stem not in {commit.shard for commit in Ledger(ledger.output).commits()}
    run(config)
    assert f"done again: {path.stem}: other settings made it" in capsys.readouterr().out
    assert json.loads(path.read_text())["fingerprint"] == config.fingerprint()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: path.unlink(), "is gone"),
        (lambda path: path.write_bytes(path.read_bytes()[:-7]), "bytes"),
    ],
)
@pytest.mark.parametrize("folder", ["annotations", "images"])
def test_tables_that_are_not_what_was_committed_are_made_again(
    config: AnnotateConfig,
    tree: Tree,
    capsys: pytest.CaptureFixture[str],
    folder: str,
    spoil: Callable[[Path], object],
    says: str,
) -> None:
    ledger = run(config)
    before = results(tree(ledger.output))
    path = sorted(Path(ledger.output, folder).iterdir())[SHARDS - 1]
    spoil(path)
    capsys.readouterr()
    run(config)
    (line,) = (x for x in capsys.readouterr().out.splitlines() if x.startswith("done again: "))
    assert f"{path.stem}: {folder}/{path.name}" in line and line.endswith(says)
    assert results(tree(ledger.output)) == before


def test_a_table_that_is_deleted_while_the_run_works_is_made_again(
    config: AnnotateConfig, tree: Tree, tmp_path: Path
) -> None:
    expected = results(tree(run(replace(config, output=str(tmp_path / "alone"))).output))

    class Careless(Worker):
        """With its last shard, somebody deletes the table of the first."""

        def do_shard(self, trial: object, *rest: object) -> None:
            super().do_shard(trial, *rest)  # type: ignore[arg-type]
            if len(self.ledger.committed()) == SHARDS and not spoiled:
                victim = sorted(Path(config.output, "annotations").iterdir())[0]
                victim.unlink()
                spoiled.append(victim)

    spoiled: list[Path] = []
    run(config, make=lambda config: Careless(config, lambda _: Blank()))
    assert spoiled and results(tree(config.output)) == expected


def test_a_second_driver_of_the_same_run_is_told(
    config: AnnotateConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = begin(config)
    running = ledger.summarise(["x"], "running")
    theirs = replace(Driver(), host="elsewhere", pid=7)
    path = Path(ledger.output, "summary.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"driver": theirs.record()}))
    run(config)
    said = capsys.readouterr().out
    assert f"process 7 on elsewhere, since {theirs.started} does the same run" in said
    assert running.driver["pid"] == ledger.driver.pid


def test_status_tells_the_dead_from_the_living(
    config: AnnotateConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = begin(config)
    running = ledger.summarise(["x"], "running")

    def status() -> str:
        print_status(ledger.output)
        return capsys.readouterr().out.splitlines()[0]

    assert re.search(r"last sign of life \d s ago: alive\)$", status())
    started = heartbeat.now()
    monkeypatch.setattr(heartbeat, "now", lambda: started + timedelta(seconds=2 * DEAD_SECONDS))
    dead = status()
    assert f"process {ledger.driver.pid} on {ledger.driver.host}" in dead
    assert dead.endswith("last sign of life 5.0 min ago: dead, the same command goes on)")
    assert ledger.other_driver() is None
    ledger.beat(running)
    assert status().endswith("alive)")
    path = Path(ledger.output, "summary.json")
    path.write_text(path.read_text().replace('"seen": "', '"seen": "some day '))
    assert (status(), ledger.other_driver()) == ("the last run: running", None)
    ledger.summarise(["x"], "stopped")
    assert status() == "the last run: stopped"


def test_a_sign_of_life_that_cannot_be_written_is_told_and_the_next_tried(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tried: list[int] = []

    def beat() -> None:
        tried.append(1)
        raise OSError("the disk is full")

    with beating(beat, seconds=0.01):
        while len(tried) < 3:
            time.sleep(0.01)
    assert capsys.readouterr().out.count("no sign of life could be written: the disk is full") >= 3


def test_times_are_spoken_in_the_largest_unit_that_fits() -> None:
    assert [spoken(s) for s in (-3.0, 5.0, 90.0, 7200.0, 2 * 86400.0)] == [
        "0 s",
        "5 s",
        "1.5 min",
        "2.0 h",
        "2.0 d",
    ]
    assert BEAT_SECONDS < DEAD_SECONDS
