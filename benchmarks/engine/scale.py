"""A run of a billion images on paper: what it asks of driver, storage and money.

Every factor is an argument, and says where its figure is from; what happens on the way is simulated
(`benchmarks.engine.simulation`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.engine.simulation import Cluster, Simulation, Times
from benchmarks.timing import table
from pipeline.run.queue import Trial

SEED = 1
"""Of what happens when."""


@dataclass(frozen=True)
class Factors:
    """What a run is made of; `measured` names the command that prints a figure."""

    shards: int = 100_000
    images: int = 10_000  # in each: assumed
    actors: int = 1_000
    images_per_second: float = 211.0  # measured: gpu, ViT-bigG-14, 1 prompt, one H100
    shards_per_second: float = 199.0  # measured: driver, on Ray, at load 8
    load: float = 60.0  # s for a model to load: assumed
    image_bytes: int = 50_000  # of a JPEG in its shard: assumed
    prompts: int = 1  # of each image: assumed, as in the row of the benchmark
    mask_bytes: int = 600  # of a mask in its table: assumed; the export benchmark has as many
    part_bytes: int = 8 << 20  # of a request: `READ_BUFFER`
    driver_start_mb: float = 833.0  # measured: driver, on Ray
    driver_peak_mb: float = 1265.0  # measured: driver, with 100,000 shards
    price: float = 2.5  # of a GPU-hour: assumed

    @property
    def seconds(self) -> float:
        """That the model has a shard."""
        return self.images / self.images_per_second


def on_paper(factors: Factors) -> dict[str, float]:
    """The sums, without anything that goes wrong."""
    f, images = factors, factors.shards * factors.images
    reads = 1 + math.ceil(f.images * f.image_bytes / f.part_bytes)
    hours = images / f.images_per_second / 3600
    a_shard = (f.driver_peak_mb - f.driver_start_mb) / 100_000
    return {
        "images": images,
        "gpu_hours": hours,
        "hours": hours / f.actors,
        "shards_per_second": f.actors / f.seconds,
        "driver_busy": f.actors / f.seconds / f.shards_per_second,
        "actors_for_driver": f.shards_per_second * f.seconds,
        "reads": f.shards * reads,
        "writes": f.shards * 3,
        "checks": f.shards * 2,
        "requests_per_second": f.actors / f.seconds * (reads + 5),
        "read_gb_per_second": f.actors * f.images_per_second * f.image_bytes / 1e9,
        "written_tb": images * f.prompts * f.mask_bytes / 1e12,
        "driver_mb": f.driver_start_mb + a_shard * f.shards,
        "price": hours * f.price,
    }


def scenarios(cluster: Cluster) -> dict[str, tuple[Cluster, float]]:
    """A cluster with one trouble after the other; the share of stragglers with each."""
    spot: dict[str, Any] = {"losses": 0.1, "replaced": 180.0}
    away: dict[str, Any] = {"outages": 1.0, "away": 60.0}
    troubled = replace(cluster, **spot, **away, deaths=0.001)
    return {
        "nothing": (cluster, 0.0),
        "1 shard in 1,000 takes ten times as long": (cluster, 0.001),
        "a node is lost after 10 hours on average": (replace(cluster, **spot), 0.0),
        "once an hour the storage is away, for a minute": (replace(cluster, **away), 0.0),
        "1 try in 1,000 ends its worker": (replace(cluster, deaths=0.001), 0.0),
        "all of these": (troubled, 0.001),
        "all of these, and idle nodes are held to the end": (
            replace(troubled, kept=math.inf),
            0.001,
        ),
    }


def measure(factors: Factors) -> dict[str, dict[str, float]]:
    """What is on paper, and every scenario."""
    driver = 1 / factors.shards_per_second
    cluster = Cluster(factors.actors, load=factors.load, driver=driver)
    results = {"on paper": on_paper(factors)}
    for name, (with_it, stragglers) in scenarios(cluster).items():
        times = drawn(factors.seconds, stragglers)
        results[name] = Simulation(with_it, factors.shards, times, SEED).run()
    return results


def drawn(seconds: float, stragglers: float, spread: float = 0.1) -> Callable[[Trial], Times]:
    """Times of shards: log-normal, and some that take ten times as long."""
    source = random.Random(1)

    def times(_: Trial) -> Times:
        model = seconds * source.lognormvariate(0.0, spread)
        return Times(2.0, model * (10.0 if source.random() < stragglers else 1.0), 1.0)

    return times


def markdown(results: dict[str, dict[str, float]]) -> str:
    """Both tables."""
    paper = results["on paper"]
    facts = [
        ["images", f"{paper['images']:,.0f}"],
        ["GPU-hours, and their price", f"{paper['gpu_hours']:,.0f}, {paper['price']:,.0f}"],
        ["hours", f"{paper['hours']:.2f}"],
        ["shards that end per second", f"{paper['shards_per_second']:.1f}"],
        ["part of its time that the driver is busy", f"{paper['driver_busy']:.0%}"],
        ["actors that would keep it busy", f"{paper['actors_for_driver']:,.0f}"],
        ["driver's memory", f"{paper['driver_mb'] / 1000:.1f} GB"],
        ["requests that read", f"{paper['reads']:,.0f}"],
        ["requests that write", f"{paper['writes']:,.0f}"],
        ["looks at whose the output is", f"{paper['checks']:,.0f}"],
        ["requests per second", f"{paper['requests_per_second']:,.0f}"],
        ["read per second", f"{paper['read_gb_per_second']:,.1f} GB"],
        ["written", f"{paper['written_tb']:,.1f} TB"],
    ]
    rows = [
        [
            name,
            f"{r['seconds'] / 3600:.2f} h",
            f"{r['held'] / 3600:,.0f}",
            f"{r['busy']:.1%}",
            f"{r['tail']:.0f} s",
            f"{r['driver']:.0%}",
            f"{r['tries']:,.0f}",
            f"{r['lost']:,.0f}",
            f"{r['wasted'] / 3600:,.1f}",
            f"{r['given_up']:,.0f}",
        ]
        for name, r in results.items()
        if name != "on paper"
    ]
    head = ["what happens", "takes", "GPU-hours", "model busy", "tail", "driver busy", "tries"]
    tables = table([*head, "workers lost", "GPU-hours done twice", "given up"], rows)
    return f"{table(['on paper', ''], facts)}\n\n{tables}"
