"""What the comparison with the published package says: ratios, targets, the tables of the page."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from statistics import median
from typing import Any, TypeAlias

from benchmarks.published.plan import FORMS, Plan
from benchmarks.timing import Figures, Target, extra_prompt, table, target_table
from pipeline.models.operations import Shape

Results: TypeAlias = dict[str, Any]
Turns: TypeAlias = dict[str, list[Figures]]

LEAST_WITH_ONE_PROMPT, LEAST_WITH_MORE = 1.0, 2.4
"""Times as fast as the package's batched form, over all layers."""
MOST_PER_PROMPT = 0.5
"""Of a bare forward pass, for each prompt after the first."""
MOST_MEMORY = 1.5
MOST_DIFFERENCE = 1e-5


def summary(plan: Plan, pairs: Sequence[Turns]) -> Results:
    """The medians over all pairs of processes, case by case, and what follows from them."""
    seconds = {name: median(_seconds(pairs, name)) for name in pairs[0]}
    rows = [
        case(
            layers,
            prompts,
            seconds[f"ours {layers} {prompts}"],
            {form: seconds[f"{form} {layers} {prompts}"] for form in forms},
        )
        for layers, prompts, forms in plan.cases()
    ]
    one, more = plan.prompts
    most = f"{plan.layers[0]} {more}"
    shape = Shape.of(plan.config)
    return {
        "forward": seconds["forward"],
        "cases": rows,
        "extra_prompt": {
            layers: extra_prompt(
                seconds[f"ours {layers} {one}"],
                seconds[f"ours {layers} {more}"],
                more=more - one,
                forward=seconds["forward"],
            )
            for layers in plan.layers
        },
        # A process can be slow as a whole, on either side.
        "spread": {
            name: sorted(median(_seconds([pair], f"{name} {most}")) for pair in pairs)
            for name in ("ours", "batch")
        },
        "operations": [
            {"prompts": n, "ours": shape.closed_form(n), "published": shape.published(n)}
            for n in plan.prompts
        ],
    }


def _seconds(pairs: Sequence[Turns], name: str) -> list[float]:
    return [turn["seconds"] for turn in chain.from_iterable(pair[name] for pair in pairs)]


def case(layers: int, prompts: int, ours: float, forms: dict[str, float]) -> Results:
    """Seconds of both sides for one case, and how many times as fast as each form ours is."""
    return {
        "layers": layers,
        "prompts": prompts,
        "ours": ours,
        "published": forms,
        "ratios": {form: seconds / ours for form, seconds in forms.items()},
    }


def targets(results: Results) -> list[Target]:
    """What the project promises, beside what was measured."""
    found = []
    layers = results["cases"][0]["layers"]
    for row in results["cases"]:
        if row["layers"] == layers:
            what = f"published, batched / ours, {layers} layers, {_prompts(row['prompts'])}"
            least = LEAST_WITH_ONE_PROMPT if row["prompts"] == 1 else LEAST_WITH_MORE
            found.append(Target(what, row["ratios"]["batch"], least, at_least=True))
    for layers, fraction in results["extra_prompt"].items():
        what = f"further prompt / forward pass, {layers} layers"
        found.append(Target(what, fraction, MOST_PER_PROMPT, at_least=False))
    return [
        *found,
        Target(
            "(peak - one chunk) / forward pass's peak",
            results["memory"]["ratio"],
            MOST_MEMORY,
            at_least=False,
        ),
        Target(
            "largest difference of the maps",
            results["agreement"],
            MOST_DIFFERENCE,
            at_least=False,
        ),
    ]


def markdown(results: Results) -> str:
    """The results as Markdown: all that the page of docs says about them."""
    return "\n\n".join(
        [
            f"PyTorch {results['torch']}, {results['threads']} threads, load average "
            f"{results['load_average']:.1f}; medians over {results['rounds']} rounds in each of "
            f"{results['processes']} pairs of processes. A bare forward pass took "
            f"{results['forward']:.3f} s.",
            _cases(results["cases"]),
            _remarks(results),
            _bfloat16(results["bfloat16"]),
            target_table(results["targets"]),
        ]
    )


def _cases(cases: Sequence[Results]) -> str:
    header = ["layers", "prompts", "ours", *FORMS.values()]
    header += [f"{meaning.removeprefix('published, ')} / ours" for meaning in FORMS.values()]
    rows = []
    for row in cases:
        times = [row["published"].get(form) for form in FORMS]
        ratios = [row["ratios"].get(form) for form in FORMS]
        rows.append(
            [
                f"{row['layers']}",
                f"{row['prompts']}",
                f"{row['ours']:.3f} s",
                *("" if value is None else f"{value:.3f} s" for value in times),
                *("" if value is None else f"{value:.2f}" for value in ratios),
            ]
        )
    return table(header, rows)


def _remarks(results: Results) -> str:
    memory, spread = results["memory"], results["spread"]
    last = results["operations"][-1]
    further = ", ".join(
        f"{fraction:.2f} ({layers} layers)" for layers, fraction in results["extra_prompt"].items()
    )
    counted = "; ".join(
        f"{_prompts(row['prompts'])}: published {row['published'] / 1e9:.1f}, "
        f"ours {row['ours'] / 1e9:.1f} GFLOP, {row['published'] / row['ours']:.1f} times"
        for row in results["operations"]
    )
    single = ", ".join(
        f"{name} {times[0]:.3f} to {times[-1]:.3f} s"
        for name, times in (("ours", spread["ours"]), (FORMS["batch"], spread["batch"]))
    )
    lines = [
        f"Each further prompt costs {further} of a forward pass.",
        f"The maps differ by at most {results['agreement']:.1e} (their range is 1).",
        f"Memory, {memory['images']} images x {memory['prompts']} prompts: (peak - one chunk of "
        f"{memory['chunk'] / 2**20:.0f} MiB) / peak of a plain forward pass = "
        f"{memory['ratio']:.2f}.",
        f"Medians of single pairs of processes, {results['cases'][0]['layers']} layers, "
        f"{last['prompts']} prompts: {single}.",
        f"Matrix products of all layers, counted: {counted}.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _prompts(count: int) -> str:
    return f"{count} prompt" if count == 1 else f"{count} prompts"


def _bfloat16(half: Results) -> str:
    rows = [
        [
            f"{row['prompts']}",
            f"{row['float32']:.3f} s",
            f"{row['bfloat16']:.3f} s",
            f"{row['float32'] / row['bfloat16']:.2f}",
        ]
        for row in half["rows"]
    ]
    return (
        f"Ours in bfloat16, {half['layers']} layers; medians over {half['rounds']} rounds, in "
        f"turns. Masks at 0.5 of {half['masks']} maps have a mean IoU of {half['mask_iou']:.3f} "
        "with those of float32.\n\n"
        + table(["prompts", "float32", "bfloat16", "float32 / bfloat16"], rows)
    )
