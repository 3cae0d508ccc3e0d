"""Rows of the page about inputs: class files, truths, weights and places."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import zipfile
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from pipeline.config.weights import settle
from pipeline.errors import ConfigError
from pipeline.evaluation.matching import Matcher
from pipeline.evaluation.points.descriptions import read_descriptions
from pipeline.evaluation.points.labels import read_labels
from pipeline.evaluation.segmentation.truth import CocoTruth, IndexTruth
from pipeline.inputs.classes import load_classes
from pipeline.inputs.shards import find_shards
from pipeline.inputs.tars import RawSample
from pipeline.models.checkpoints import check_file, explained
from tests.pipeline.conftest import tar
from tests.pipeline.inputs.page_words import Row, outcome


def files(folder: Path) -> Iterator[Row]:
    """Class files and truths."""
    classes = folder / "classes.yaml"
    texts = ("- {id: 1, name: dog}", "- {id: 1, name: no}", "dog, cat")
    yield from counted(
        "class file",
        classes,
        (*texts, "- {id: 1, name: dog}\n- {id: 1, name: cat}"),
        lambda: f"classes: {len(load_classes(str(classes)))}",
    )
    names = folder / "names.csv"
    yield from counted(
        "class descriptions",
        names,
        ("LabelName,DisplayName\n/m/1,dog", "/m/1,dog\n/m/2,cat", "DisplayName,x\ndog,1"),
        lambda: f"labels: {len(read_descriptions(str(names)))}",
    )
    square = [[0.0, 0.0, 4.0, 0.0, 4.0, 4.0]]
    for what, file_names, segmentation, key in (
        ("whole path", ["a.jpg", "x/a.jpg"], square, "x/a"),
        ("Windows path", ["x\\a.jpg"], square, "x/a"),
        ("base name, if only one has it", ["x/a.jpg"], square, "y/a"),
        ("base name that two have", ["x/a.jpg", "y/a.jpg"], square, "a"),
        ("the same name twice", ["a.jpg", "a.jpg"], square, "a"),
        ("a segmentation that is empty", ["a.jpg"], [], "a"),
    ):
        path = folder / "coco.json"
        pictures = [{"id": i, "file_name": n, "height": 8, "width": 8}
                    for i, n in enumerate(file_names)]  # fmt: skip
        regions = [{"id": 1, "image_id": i, "category_id": 1, "segmentation": segmentation}
                   for i in range(len(pictures))]  # fmt: skip
        content = {"images": pictures, "annotations": regions,
                   "categories": [{"id": 1, "name": "dog"}]}  # fmt: skip
        path.write_text(json.dumps(content))

        def find(path: Path = path, key: str = key) -> str:
            truth = CocoTruth(str(path))
            found = truth(RawSample(0, key, {}))
            left = ", ".join(f"left out: {fault}" for fault in truth.left_out)
            return f"`{found.image}`" if found else left or "no truth"

        shown = ", ".join(f"`{name}`" for name in dict.fromkeys(file_names))
        yield "COCO truth", f"{what}: {shown} for key `{key}`", outcome(find, str(path))


def counted(what: str, path: Path, texts: Iterable[str], read: Callable[[], str]) -> Iterator[Row]:
    """What is read of a file with each of some texts in it."""
    for text in texts:
        path.write_text(text)
        yield what, f"`{text}`".replace("\n", "` `"), outcome(read, str(path))


def truths(folder: Path) -> Iterator[Row]:
    """Points, and masks in a folder."""
    points, names, classes = (folder / name for name in ("points.csv", "d.csv", "classes.yaml"))
    names.write_text("/m/d,dog\n")
    header, row = "ImageId,X,Y,Label,EstimatedYesNo\n", ",0.5,0.5,/m/d,yes\n"
    for what, text, key in (
        ("whole path", f"{header}a{row}x/a{row}", "x/a"),
        ("base name", f"{header}a{row}", "x/a"),
        ("base name that two have", f"{header}x/a{row}y/a{row}", "a"),
        ("blanks around names", "ImageId, X, Y, Label, EstimatedYesNo\n a ,0,0, /m/d , yes\n", "a"),
        ("no header", f"a{row}", "a"),
        ("semicolons", f"{header}a{row}".replace(",", ";"), "a"),
    ):
        points.write_text(text)

        def find(key: str = key) -> str:
            return f"`{Matcher(read_labels(str(points), str(names))[0].images)(key)}`"

        example = f"{what}: for key `{key}`" if "name" in what or "path" in what else what
        yield "points", example, outcome(find, str(points))
    classes.write_text("- {id: 1, name: dog}")
    masks = folder / "masks"
    for file_names, key in (
        (["a", "x/a"], "x/a"), (["a"], "x/a"), (["x/a", "y/a"], "a"), ([], "a"),
    ):  # fmt: skip
        shutil.rmtree(masks, ignore_errors=True)
        masks.mkdir()
        for name in file_names:
            (masks / name).parent.mkdir(exist_ok=True)
            Image.fromarray(np.ones((4, 4), np.uint8)).save(masks / f"{name}.png")

        def mask(key: str = key) -> str:
            found = IndexTruth(str(masks), "", str(classes))(RawSample(0, key, {}))
            return f"`{found.image}`" if found else "no truth"

        shown = ", ".join(f"`{name}.png`" for name in file_names) or "nothing"
        yield "masks in a folder", f"{shown} for key `{key}`", outcome(mask)


def weights(folder: Path) -> Iterator[Row]:
    """Files of weights, and what belongs to them."""

    def read(path: Path) -> bool:
        try:
            check_file(path)
            torch.load(path, weights_only=True)
        except Exception as error:
            raise ConfigError(explained(error, path)) from error
        return True

    def saved(content: Any) -> bytes:
        stream = io.BytesIO()
        torch.save(content, stream)
        return stream.getvalue()

    def zipped(name: str) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr(name, b"")
        return stream.getvalue()

    tensors = {"visual.weight": torch.ones(2)}
    for what, name, data in (
        ("tensors", "w.pt", saved(tensors)),
        ("tensors, and other Python objects", "w.pt", saved(tensors | {"args": Namespace(lr=1)})),
        ("TorchScript", "w.pt", zipped("w/constants.pkl")),
        ("another zip", "w.pt", zipped("readme.txt")),
        ("compressed", "w.pt.gz", gzip.compress(saved(tensors))),
        ("a tar", "w.pt", tar([("w.bin", b"")])),
        ("one of several parts", "w-00001-of-00002.bin", saved(tensors)),
        ("a web page", "w.pt", b"<!DOCTYPE html>"),
        ("a pointer of Git LFS", "w.pt", b"version https://git-lfs.github.com/spec/v1"),
        ("anything else", "w.pt", b"weights"),
    ):
        path = folder / name
        path.write_bytes(data)
        yield "weights", f"{what}: `{name}`", outcome(lambda path=path: read(path))
        path.unlink()
    beside = folder / "open_clip_config.json"
    mean = {"mean": [0.5, 0.5, 0.5]}
    for model, config in (("ViT-B-16-SigLIP", None), ("ViT-L-14", None), ("ViT-L-14", mean)):
        beside.unlink(missing_ok=True)
        if config:
            beside.write_text(json.dumps({"preprocess_cfg": config}))
        settled = settle(model, str(folder / "w.pt"), {})
        guess = " With a warning: nothing says mean." if "mean" in settled.lines[-1].partition(
            "differ in")[2].partition(",")[0] else ""  # fmt: skip
        lies = f", beside `{beside.name}`" if config else ""
        told = f"mean {settled.values['mean']}, from {settled.sources['mean']}.{guess}"
        yield "weights", f"of {model} in a file{lies}", told


def places(folder: Path) -> Iterator[Row]:
    """Where shards are."""
    for name in ("b.tar", "run#1.tar", "a b.tar", ".hidden.tar", "c [1].tar"):
        (folder / name).write_bytes(tar([]))
    (folder / "gone").mkdir()
    (folder / "gone" / "d.tar").symlink_to(folder / "nowhere")
    for example, pattern in {
        "`run#1.tar`: no fragment": "run#1.tar",
        "`a b.tar`": "a b.tar",
        "`c [1].tar`": "c [1].tar",
        "`c [1]*`: a pattern": "c [1]*",
        "`*.tar` beside `.hidden.tar`": "*.tar",
        "`.h*.tar`": ".h*.tar",
        "a link to what is not there": "gone",
        "a name that is not there": "none.tar",
    }.items():
        (folder / "a.tar").unlink(missing_ok=True)
        yield (
            "place",
            example,
            outcome(
                lambda pattern=pattern: ", ".join(
                    f"`{Path(shard.uri).name}`" for shard in find_shards([f"{folder}/{pattern}"])
                ),
                f"{folder}/",
            ),
        )
    encoded = f"file://{folder}/a%20b.tar"
    yield (
        "place",
        "`file:///…/a%20b.tar`: percent-encoded",
        outcome(lambda: f"`{Path(find_shards([encoded])[0].uri).name}`"),
    )
