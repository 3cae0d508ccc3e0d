"""The run that `python jobs/annotate.py` makes without arguments, and what it shows at the end."""

from __future__ import annotations

import dataclasses
import io

from legrad.build import CONTRASTED
from pipeline import storage
from pipeline.config import BACKGROUND, AnnotateConfig
from pipeline.demo.sprites import CLASSES
from pipeline.evaluation.points.counters import count_predictions
from pipeline.evaluation.points.labels import read_labels
from pipeline.evaluation.points.scores import PairCounts
from pipeline.inputs.shards import find_shards
from pipeline.models.demo import ASSETS
from pipeline.outputs.preview import draw_preview
from pipeline.report.build import PAGE, write_report
from pipeline.report.config import ReportConfig

SHARDS = ASSETS / "shards"
OUTPUT = "out/demo"
PREVIEWED = 6  # images


def configure(config: AnnotateConfig) -> AnnotateConfig:
    """The same settings with the bundled shards as input, and an output unless one is named.

    A method that contrasts classes has those of the demo, unless the settings name others.
    """
    options = dict(config.options)
    if config.method == CONTRASTED and not config.class_file:
        options = {BACKGROUND: list(CLASSES)} | options
    output = config.output or OUTPUT
    return dataclasses.replace(config, input=str(SHARDS), output=output, options=options)


def report(output: str) -> None:
    """Print how well the masks fit the bundled points, draw some, and write a report on all."""
    pairs, _ = read_labels(str(ASSETS / "points.csv"), str(ASSETS / "class-descriptions.csv"))
    counts = PairCounts.of(count_predictions(output, pairs))
    print(f"p-mIoU on the bundled points: {counts.p_miou():.3f}")
    print(f"  for masks that cover everything: {counts.constant(True).p_miou():.3f}")
    path = storage.join(output, "preview.png")
    png = io.BytesIO()
    draw_preview(output, find_shards([str(SHARDS)])[0], PREVIEWED).save(png, "PNG")
    storage.write_bytes(path, png.getvalue())
    for note in write_report(ReportConfig(predictions=output, output=output)).notes:
        print(note)
    print(f"Look at {storage.shown(path)} and {storage.shown(storage.join(output, PAGE))}")
