"""Shards on Ray: the same bytes as without it, and one bad shard that takes no other with it."""

import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ray import cloudpickle

from legrad import HeatOrder
from pipeline.config import AnnotateConfig, ExecutionConfig, ModelConfig, PromptConfig
from pipeline.config.presets import PRESETS, expand
from pipeline.demo.run import SHARDS
from pipeline.errors import ModelError
from pipeline.inputs.samples import Sample
from pipeline.inputs.shards import find_shards
from pipeline.models.demo import ASSETS
from pipeline.models.explain import Maps
from pipeline.outputs.ledger import Ledger
from pipeline.run.queue import WORKER_DIED, Trial
from pipeline.run.run import run_shards
from pipeline.run.worker import MakeWorker, Worker
from tests.pipeline.stand_ins import results

pytestmark = pytest.mark.ray

# Workers of this module travel to the actors as they are: there, no test can be imported.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Blank:
    """Stands in for a model: finds the left half of every image."""

    device = torch.device("cpu")
    embed_width = 0
    heat_order = HeatOrder.UPSAMPLE_NORMALISE

    def __init__(self, config: AnnotateConfig) -> None:
        pass

    def squash(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels[:, :8, :8]

    def has_prompts(self, sample: Sample) -> bool:
        return bool(sample.wanted)

    def __call__(self, samples: Sequence[Sample]) -> list[Maps]:
        left = torch.tensor([[[1.0, 0.0]]])
        return [
            Maps(s.wanted, left.expand(n, 1, 2), [0.0] * n, [p.texts[0] for p in s.wanted], 0)
            for s in samples
            for n in [len(s.wanted)]
        ]


class Fragile(Worker):
    """A worker that some shards, by their name, are too much for."""

    def __init__(self, config: AnnotateConfig) -> None:
        super().__init__(config, Blank)

    def do_shard(
        self, trial: Trial, on_images: Callable[[int], object], alive: Callable[[], None]
    ) -> None:
        name, first = trial.shard.name.partition("-")[0], trial.number == 1
        if name == "deadly" or (name == "unlucky" and first):
            os._exit(1)
        if name == "wrong":
            raise RuntimeError("boom")
        if name == "stuck" or (name == "slow" and first):
            time.sleep(600)
        super().do_shard(trial, on_images, alive)


def named(tmp_path: Path, *names: str) -> str:
    """A folder with the first shard of the demo by several names."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for name in names:
        (folder / f"{name}.tar").symlink_to(SHARDS / "demo-00000.tar")
    return str(folder)


@pytest.fixture
def on_ray(shared_ray: str) -> Callable[..., Ledger]:
    """`on_ray(config, make_worker=)`: a run, as the command makes it."""

    def run(config: AnnotateConfig, make_worker: MakeWorker = Worker) -> Ledger:
        config = replace(config, engine=replace(config.engine, executor="ray"))
        ledger = Ledger(config.output)
        ledger.open(config.identity(), {}, [])
        run_shards(config, ledger, find_shards(config.patterns), make_worker)
        return ledger

    return run


def test_ray_gives_the_bytes_that_one_process_gives(
    on_ray: Callable[..., Ledger],
    annotate: Callable[..., Ledger],
    make_config: Callable[..., AnnotateConfig],
    tree: Callable[[str], dict[str, bytes]],
) -> None:
    config = make_config(input=str(SHARDS), limit_samples=10)
    local = annotate(config)
    parallel = on_ray(
        replace(config, output=config.output + "-ray", engine=replace(config.engine, workers=2))
    )
    assert len(parallel.committed()) == 3
    assert results(tree(parallel.output)) == results(tree(local.output))
    assert all(commit.attempt == 1 for commit in parallel.commits())


HEAVIEST = "fine_contrast"  # it has a part of each of the others


@pytest.mark.parametrize(
    "preset", [p if p == HEAVIEST else pytest.param(p, marks=pytest.mark.long) for p in PRESETS]
)
def test_of_every_preset_a_run_goes_on_to_the_bytes_of_one_process(
    preset: str,
    on_ray: Callable[..., Ledger],
    annotate: Callable[..., Ledger],
    tree: Callable[[str], dict[str, bytes]],
    tmp_path: Path,
) -> None:
    """Of three shards one is done when Ray takes over."""
    config = expand(
        preset,
        AnnotateConfig,
        input=str(SHARDS),
        output=str(tmp_path / "local"),
        limit_samples=3,
        prompts=PromptConfig(classes=str(ASSETS / "classes.yaml")),
        engine=ExecutionConfig(executor="local", threads=1, batch_size=2, log_seconds=1000.0),
    )
    local = annotate(config, Worker)
    assert len(local.committed()) == 3
    output = tmp_path / "ray"
    shutil.copytree(local.output, output)
    first, *others = sorted(path.stem for path in (output / "commits").glob("[!.]*.json"))
    for name in others:
        (output / "commits" / f"{name}.json").unlink()
        for folder in ("annotations", "images"):
            (output / folder / f"{name}.parquet").unlink()
    done = (output / "commits" / f"{first}.json").read_bytes()

    resumed = on_ray(replace(config, output=str(output), engine=replace(config.engine, workers=2)))
    assert len(resumed.committed()) == 3
    assert results(tree(resumed.output)) == results(tree(local.output))
    assert (output / "commits" / f"{first}.json").read_bytes() == done


class Patient(Worker):
    """One of three workers, each with two shards; the last dies when another has been ended.

    Every first try notes who makes it, and so does every second.
    """

    def __init__(self, config: AnnotateConfig) -> None:
        super().__init__(config, Blank)
        self._tries = Path(config.output, "tries")
        self._commits = Path(config.output, "commits")
        self._tries.mkdir(exist_ok=True)

    def do_shard(
        self, trial: Trial, on_images: Callable[[int], object], alive: Callable[[], None]
    ) -> None:
        (self._tries / f"{trial.number} {trial.shard.name} {os.getpid()}").touch()
        if trial.number == 1:
            self._wait_until(lambda: len(self._workers()) == 3 and len(self._begun()) == 6)
            if trial.shard.name.startswith("slow"):
                self._wait_until(lambda: len(list(self._commits.glob("[!.]*.json"))) == 4)
                self._wait_until(
                    lambda: not all(Path("/proc", w).exists() for w in self._workers())
                )
                time.sleep(1.0)  # in which the spare would be ended, too
                os._exit(1)
        super().do_shard(trial, on_images, alive)

    def _begun(self) -> list[str]:
        return [name for name in os.listdir(self._tries) if name.startswith("1 ")]

    def _workers(self) -> set[str]:
        return {name.split()[-1] for name in self._begun()}

    def _wait_until(self, happens: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 300  # three workers start slowly beside other tests
        while not happens():
            if time.monotonic() > deadline:
                raise RuntimeError("it does not happen")
            time.sleep(0.05)


def test_workers_that_have_nothing_left_to_do_are_ended_but_for_one_that_tries_again(
    on_ray: Callable[..., Ledger], make_config: Callable[..., AnnotateConfig], tmp_path: Path
) -> None:
    names = ("a", "b", "c", "d", "slow-1", "slow-2")
    config = make_config(input=named(tmp_path, *names), limit_samples=4)
    engine = replace(config.engine, workers=3, max_attempts=1)
    ledger = on_ray(replace(config, engine=engine), Patient)
    assert ledger.failures() == {} and len(ledger.committed()) == 6
    tries = [name.split() for name in os.listdir(Path(ledger.output, "tries"))]
    early = {worker for number, _, worker in tries if number == "1"}
    again = {name: worker for number, name, worker in tries if number == "2"}
    assert len(again) == 2 and early & set(again.values())  # by the spare, without a new start


@pytest.mark.slow
def test_only_the_guilty_shards_fail(
    on_ray: Callable[..., Ledger],
    make_config: Callable[..., AnnotateConfig],
    tmp_path: Path,
) -> None:
    folder = named(tmp_path, "a", "b", "deadly", "unlucky", "wrong", "x", "y")
    config = make_config(input=folder, limit_samples=4)
    engine = replace(config.engine, workers=2, max_attempts=1)
    ledger = on_ray(replace(config, engine=engine), Fragile)
    by_name = {Path(shard.uri).stem: shard.name for shard in find_shards([folder])}
    assert ledger.failures() == {
        by_name["deadly"]: WORKER_DIED,
        by_name["wrong"]: "RuntimeError: boom",
    }
    good = {by_name[name] for name in ("a", "b", "unlucky", "x", "y")}
    assert ledger.committed() == good
    assert len(list(Path(ledger.output, "annotations").iterdir())) == len(good)


@pytest.mark.long  # a minute and a half; `make chaos` has workers hang in two ways, and often
def test_a_worker_that_stands_still_is_ended_and_its_shards_tried_again(
    on_ray: Callable[..., Ledger], make_config: Callable[..., AnnotateConfig], tmp_path: Path
) -> None:
    config = make_config(input=named(tmp_path, "a", "slow", "stuck"), limit_samples=4)
    engine = replace(config.engine, workers=1, max_attempts=1, stall_seconds=5.0)
    ledger = on_ray(replace(config, engine=engine), Fragile)
    assert {name.partition("-")[0] for name in ledger.committed()} == {"a", "slow"}
    ((name, reason),) = ledger.failures().items()
    assert (name.partition("-")[0], reason) == ("stuck", WORKER_DIED)


def test_a_model_that_does_not_load_ends_the_run(
    on_ray: Callable[..., Ledger], make_config: Callable[..., AnnotateConfig]
) -> None:
    model = ModelConfig("ViT-bigG14", "random")
    with pytest.raises(ModelError, match="ViT-bigG-14"):
        on_ray(make_config(input=str(SHARDS / "demo-00000.tar"), model=model))
