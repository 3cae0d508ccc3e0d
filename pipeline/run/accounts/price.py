"""What a run is going to take, before it begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from pipeline.config import AnnotateConfig, ExecutionConfig
from pipeline.inputs.sizes import listed_sizes
from pipeline.log import Event
from pipeline.models.speeds import Pace, paces
from pipeline.outputs.books.cost import MILLION
from pipeline.run.plan import Plan

ACCELERATOR = "ray.io/accelerator-type"
"""The label in which every node of Ray that has GPUs says which."""


@dataclass(frozen=True)
class Images:
    """How many images are to be done.

    Attributes:
        number: of them; None where that is not known.
        source: how it is known, or why it is not.
    """

    number: int | None
    source: str


def price_lines(config: AnnotateConfig, plan: Plan) -> list[Event]:
    """What is left of a run takes: a line for each number of prompts that is known of."""
    engine = config.engine
    known = paces(config, engine.gpu or _labelled(engine) or _gpu_here())
    if isinstance(known, str):
        return [Event("no_price", f"no price: {known}", "warning", reason=known)]
    images = images_left(config, plan)
    lines = [_line(pace, images, engine.price) for pace in known]
    number = "unknown" if images.number is None else f"{images.number:,}"
    return [
        Event("images", f"images to do: {number} ({images.source})", images=images.number),
        *lines,
    ]


def images_left(config: AnnotateConfig, plan: Plan) -> Images:
    """How many images are in what is to be done, by `sizes.json` or by what is done already."""
    todo, most = plan.todo, config.limit_samples
    sizes = listed_sizes(todo)
    missing = [shard for shard in todo if shard.name not in sizes]
    number = sum(size if most is None else min(size, most) for size in sizes.values())
    if not missing:
        return Images(number, "sizes.json")
    known = plan.known
    read = sum(size for (size,) in known.rows("bytes"))
    if not read or any(not shard.size for shard in missing):
        why = f"{len(missing):,} shards without sizes.json beside them"
        return Images(None, f"{why}, and none that is committed to go by")
    rate = sum(samples for (samples,) in known.rows("samples")) / read
    by_bytes = round(rate * sum(shard.size for shard in missing))
    return Images(number + by_bytes, "by the bytes and samples of committed shards")


def _line(pace: Pace, images: Images, price: float | None) -> Event:
    a_million = pace.hours(MILLION)
    of_prompts = "prompt" if pace.prompts == 1 else "prompts"
    least, most = ("at least ", "at most ") if pace.bound else ("", "")
    parts = [
        f"price with {pace.prompts} {of_prompts} per image ({pace.source}; maps alone): "
        f"{most}{pace.images_per_second:,.4g} images/s per GPU",
        f"{least}{a_million:,.4g} GPU-hours{_money(a_million, price)} per million images",
    ]
    fields: dict[str, Any] = {
        "prompts": pace.prompts,
        "bound": pace.bound,
        "images_per_second": pace.images_per_second,
        "gpu_hours_per_million_images": a_million,
        "price_per_million_images": None if price is None else a_million * price,
    }
    if images.number is not None:
        hours = pace.hours(images.number)
        parts.append(f"{least}{hours:,.4g} GPU-hours{_money(hours, price)} in all")
        fields |= {"gpu_hours": hours, "price": None if price is None else hours * price}
    return Event("price", ", ".join(parts), **fields)


def _money(hours: float, price: float | None) -> str:
    return "" if price is None else f" = {hours * price:,.2f}"


def _labelled(engine: ExecutionConfig) -> str:
    """The GPU of the nodes that are asked for, where they are asked for by one name."""
    wanted = engine.labels.get(ACCELERATOR, "")
    return "" if wanted.startswith(("!", "in(")) else wanted


def _gpu_here() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""
