"""From an annotation output to its report."""

from __future__ import annotations

import json
from dataclasses import asdict

from pipeline import storage
from pipeline.errors import naming
from pipeline.outputs.predictions import Predictions
from pipeline.report.config import ReportConfig
from pipeline.report.contents import Contents, make_contents
from pipeline.report.gallery import Gallery, Group, Shown, hang_gallery
from pipeline.report.page import render_page
from pipeline.report.picks import Picks
from pipeline.report.statistics import ANNOTATIONS, IMAGES, Classes, Statistics, read_ahead

PAGE, NUMBERS = "report.html", "report.json"


def write_report(config: ReportConfig) -> Gallery:
    """Write the page and its numbers; the same output gives the same bytes.

    Returns:
        What is shown, and why some of it has no pictures.

    Raises:
        ConfigError: there is no annotation run, a table of it cannot be read, a pattern of --images
            matches nothing, or the report cannot be written.
    """
    predictions = Predictions(config.predictions)
    counted, picks = count_shards(config, predictions)
    with naming(str(predictions)):
        contents = make_contents(predictions, counted)
    gallery = hang_gallery(config, predictions, picks, _pictured(config, counted))
    numbers = _numbers(contents, gallery)
    text = json.dumps(numbers, indent=2, ensure_ascii=False, allow_nan=False)
    with naming(f"--output {storage.public(config.output)}"):
        storage.write_bytes(storage.join(config.output, NUMBERS), text.encode() + b"\n")
        page = render_page(contents, gallery).encode()
        storage.write_bytes(storage.join(config.output, PAGE), page)
    return gallery


def count_shards(config: ReportConfig, predictions: Predictions) -> tuple[Statistics, Picks]:
    """Read every shard once, a few at a time: what there is, and which masks to show of it."""
    classes = Classes.of(predictions, config.classes)
    counted, picks = Statistics(classes), Picks(config, classes, predictions.commits)
    for shard in read_ahead(predictions, IMAGES, ANNOTATIONS):
        counted.add(shard)
        picks.add(shard)
    return counted, picks


def _pictured(config: ReportConfig, counted: Statistics) -> list[tuple[int, str]]:
    """Code and name of the classes with the most masks."""
    names, masks = counted.classes.names, counted.masks
    order = sorted(range(len(names)), key=lambda code: (-int(masks[code]), names[code]))
    return [(code, names[code]) for code in order[: config.picture_classes] if masks[code]]


def _numbers(contents: Contents, gallery: Gallery) -> dict[str, object]:
    """What report.json says: no pictures, and of shards only the listed ones."""
    totals = asdict(contents.totals)
    del totals["missing"], totals["incomplete"]
    return asdict(contents) | {"totals": totals, "gallery": _listed(gallery)}


def _listed(gallery: Gallery) -> dict[str, object]:

    def plain(shown: Shown) -> dict[str, object]:
        return asdict(shown) | {"pictures": shown.pictures is not None}

    def group(group: Group) -> dict[str, object]:
        return {"title": group.title, "masks": [plain(shown) for shown in group.masks]}

    return {"groups": [group(each) for each in gallery.groups], "notes": gallery.notes}
