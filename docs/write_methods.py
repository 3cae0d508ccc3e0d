"""Write docs/methods.md: every method on the demo's scenes, `python docs/write_methods.py`.

The figures on speed are another command's: `python benchmarks/run.py methods --json FILE`, then
`python docs/write_methods.py --speed_file FILE`. Without, the page keeps those that it has.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jsonargparse import auto_cli

import legrad
from benchmarks import methods as speed
from benchmarks.timing import table
from legrad.baselines import BASELINES
from legrad.build import CONTRASTED
from legrad.contrast import LeGradTextSpan
from legrad.options import LeGradOptions
from pipeline.config import RunConfig
from pipeline.demo.bundle import SIDE
from pipeline.demo.map_quality import LEVELS, Quality, measure
from pipeline.demo.quality import bundled_scenes
from pipeline.demo.scenes import make_scene
from pipeline.demo.sprites import CLASSES, load_sprites
from pipeline.models.loading import LoadedClip

TUNING_SEED, TUNING_SCENES = 101, 96
PAGE = Path(__file__).parents[1] / "docs" / "methods.md"


@dataclass(frozen=True)
class Variant:
    """A row of the table: a method with some settings of `MethodConfig`."""

    label: str
    settings: dict[str, Any]


def variant(
    method: str, layers: int | None = None, algorithm: str = "closed_form", **options: Any
) -> Variant:
    """A row, named by what its maps depend on."""
    chosen = ({"layers": layers} if layers else {}) | options
    extra = ", ".join(f"{name}={value!r}" for name, value in chosen.items())
    settings = {"method": method, "layers": layers, "algorithm": algorithm, "options": options}
    return Variant(f"{method} ({extra})" if extra else method, settings)


BACKGROUND = {"background": list(CLASSES)}
VARIANTS = [
    variant("legrad"),
    variant("legrad", 2),
    variant("legrad", relu=False),
    variant("legrad", score_layer="last", algorithm="autograd"),
    variant("legrad", pool="cls", algorithm="autograd"),
    Variant(CONTRASTED, {"method": CONTRASTED, "options": BACKGROUND}),
    *(variant(method) for method in BASELINES),
    Variant("text_span (background)", {"method": "text_span", "options": BACKGROUND}),
    variant("gradcam", with_cls=False),
    variant("attention_cam", form="te"),
    variant("chefer_cam", 1),
]


@dataclass(frozen=True)
class Row:
    """A row's figures on the bundle, and on scenes that chose its threshold."""

    label: str
    bundle: Quality
    tuning: Quality

    def own(self) -> str:
        """MIoU at the threshold that was best on the other scenes, and which that is."""
        best = max(range(len(LEVELS)), key=self.tuning.mious.__getitem__)
        return f"{self.bundle.mious[best]:.3f} ({LEVELS[best]:.2f})"


def markdown(rows: Sequence[Row], scenes: int, objects: int) -> str:
    """The page: figures first, what each method is after them."""
    cells = [
        [
            row.label,
            *(f"{v:.3f}" for v in (q.p_miou, q.mask_miou)),
            row.own(),
            *(f"{v:.3f}" for v in (q.pixel_ap, q.pointing)),
            f"{q.pointing_other:.3f}",
            f"{q.images_per_second:.1f}",
        ]
        for row in rows
        for q in (row.bundle,)
    ]
    header = [
        "method", "p-mIoU", "mask mIoU", "at its own threshold", "pixel AP", "pointing",
        "pointing, other", "images/s",
    ]  # fmt: skip
    return "\n\n".join(
        [
            "# Methods",
            "Written by `python docs/write_methods.py`; the figures on speed by `python "
            "benchmarks/run.py methods --json FILE`, then `python docs/write_methods.py "
            "--speed_file FILE`. Every method is an explainer behind "
            "`legrad.build(method, model, layers, **options)` and a name for `--method`, with "
            "`--layers` (4: the last four, 0.67: the last two thirds, or a list of indices) and "
            "`--options '{name: value}'`. An option that takes texts (`background`) is given to a "
            "command as names: `imagenet`, a class file, or a list of names.",
            "## On the demo's scenes",
            f"The bundled CLIP on its {scenes} held-out scenes with {objects} objects, masks at a "
            "threshold of 0.5, and at the one that is best for the method on "
            f"{TUNING_SCENES} other scenes (in brackets): at 0.5 alone, methods are ranked by how "
            "their values are distributed as much as by their maps. "
            "p-mIoU is the IoU over labelled points, mean over classes; "
            f"{rows[0].bundle.control:.3f} for masks that cover everything. "
            "Pixel AP is the average precision of a map's pixels. "
            "Pointing: the highest pixel lies on the object; other: that of another object's map "
            "does, which a method that looks at the text avoids. "
            f"The background of {CONTRASTED}, and of text_span in a row of its own, is all "
            f"{len(CLASSES)} classes. "
            "images/s is for one image at a time with all its objects, on one thread of the "
            "machine that wrote this page. The scenes and the model are small and synthetic: what "
            "ranks well here need not with another model, so try it there (`--method`).",
            table(header, cells),
        ]
    )


def described() -> str:
    """What each method computes, from the docstrings of the classes that do."""
    parts = ["## What they are", f"### legrad\n\n{inspect.getdoc(LeGradOptions)}"]
    kinds = {CONTRASTED: LeGradTextSpan, **BASELINES}
    for name, kind in kinds.items():
        known = [f"`{key}: {json.dumps(value)}`" for key, value in legrad.options_of(name).items()]
        options = ", ".join(known) or "none"
        source = (inspect.getdoc(inspect.getmodule(kind)) or "").partition("\n")[0]
        parts.append(f"### {name}\n\n{source}\n\n{inspect.getdoc(kind)}\n\nOptions: {options}.")
    return "\n\n".join(parts)


def speed_section(output: Path, figures: Path | None) -> list[str]:
    """The section on speed: of the figures if there are any, else as the page has it, if it does.

    Args:
        output: the page.
        figures: what `benchmarks/run.py methods --json` wrote.
    """
    if figures is not None:
        return [f"## Speed\n\n{speed.markdown(json.loads(figures.read_text()))}"]
    page = output.read_text() if output.exists() else ""
    return re.findall(r"^## Speed\n.*?(?=\n\n## )", page, re.DOTALL | re.MULTILINE)


def main(output: Path = PAGE, speed_file: Path | None = None) -> None:
    """Measure every method on the bundled scenes and write the page.

    Args:
        output: the file to write.
        speed_file: figures of `benchmarks/run.py methods --json`; without them the page keeps what
            it says on speed.
    """
    torch.set_num_threads(1)
    model, scenes, sprites = LoadedClip(RunConfig()), bundled_scenes(), load_sprites()
    tuning = [make_scene(sprites, TUNING_SEED, i, SIDE) for i in range(TUNING_SCENES)]
    rows: list[Row] = []
    for each in VARIANTS:
        row = Row(each.label, *(measure(model, s, **each.settings) for s in (scenes, tuning)))
        print(f"{row.label}: {row.bundle}  at its own threshold {row.own()}", flush=True)
        rows.append(row)
    objects = sum(len(scene.masks) for scene in scenes)
    speeds = speed_section(output, speed_file)
    parts = [markdown(rows, len(scenes), objects), *speeds, described()]
    output.parent.mkdir(exist_ok=True)
    output.write_text("\n\n".join(parts) + "\n")
    print(f"wrote {output}")


if __name__ == "__main__":
    sys.exit(auto_cli(main))
