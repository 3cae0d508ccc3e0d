"""Every command of docs/reproduce.md, on the demo's model and small files in the real formats."""

import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from benchmarks import methods
from benchmarks import run as benchmark
from benchmarks.published import install as published
from jobs import evaluate, figures
from pipeline.demo.scenes import Scene
from pipeline.demo.sprites import CLASSES
from pipeline.models.demo import ASSETS
from pipeline.outputs.preview import CELL
from tests.benchmarks.stand_in import TINY, make_stand_in
from tests.pipeline.evaluation.formats import index_mask, write_mat

PAGE = Path(__file__).parents[3] / "docs" / "reproduce.md"
BLOCKS = re.findall(r"^```\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines()]
EVALUATIONS = [line for line in COMMANDS if "jobs/evaluate.py" in line]
FIGURES = [line for line in COMMANDS if "jobs/figures.py" in line]
SMALL = ("--limit_samples", "3", "--engine.executor", "local", "--engine.threads", "1")
SHARD = ASSETS / "shards" / "demo-00000.tar"


@pytest.fixture
def data(
    tmp_path: Path,
    imagenet_shard: str,
    classifier: tuple[str, str],
    csvs: tuple[str, str],
    birds: Path,
    bird_weights: str,
    write_predictions: Callable[..., str],
    scenes: list[Scene],
    write_ade: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, str]:
    """What the page calls its files → where small ones like them are."""
    monkeypatch.chdir(tmp_path)
    ade = write_ade()
    names = [next(iter(scene.masks)) for scene in scenes]
    write_mat(tmp_path / "gtsegs.mat", 3)
    wnids = "".join(f"n{i:08d} {name}, so called\n" for i, name in enumerate(names))
    (tmp_path / "wnids.txt").write_text(wnids)
    # The 20 rows with all their quirks, about scenes of the demo.
    points = Path(csvs[0]).read_bytes().decode()
    for number in (1, 2, 3):
        points = points.replace(f"\n{number:04d},", f"\nscene{number - 1:05d},")
    (tmp_path / "oid.csv").write_text(points)
    masks = tmp_path / "SegmentationClass"
    masks.mkdir()
    for number, scene in enumerate(scenes):
        image = Image.fromarray(index_mask(scene))
        image.putpalette(list(range(256)) * 3)  # palette images, as VOC's are
        image.save(masks / f"scene{number:05d}.png")
    entries = [f"- {{id: {i}, name: {name}}}" for i, name in enumerate(CLASSES, 1)]
    (tmp_path / "voc.yaml").write_text("\n".join(entries))
    scene = {"dog": np.ones((160, 160), dtype=bool)}
    return {
        "gtsegs_ijcv.mat": "gtsegs.mat",
        "LOC_synset_mapping.txt": "wnids.txt",
        "openimages/{000..041}.tar": str(SHARD),
        "oidv7-val-annotations-point-labels.csv": "oid.csv",
        "oidv7-class-descriptions.csv": csvs[1],
        "imagenet-validation/{000000..000049}.tar": imagenet_shard,
        "voc2012.tar": str(SHARD),
        "ADE20KSoundPrompted": ade,
        "ADE20KSpeechPrompted": ade,
        "imagebind_huge": "imagebind_small",
        "imagebind_huge.pth": "random",
        "timm/vit_base_patch16_224.orig_in21k_ft_in1k": classifier[0],
        "timm": classifier[1],
        "FunnyBirds": str(birds),
        "timm/vit_base_patch16_224": "timm/test_vit",
        "vit_base_patch16_224_final_1_checkpoint_best.pth.tar": bird_weights,
        "out": write_predictions({"scene00000": scene, "scene00001": scene}),
    }


def shortened(command: str, data: dict[str, str]) -> list[str]:
    """The command's arguments with the small files, the demo's model, and few samples."""
    words = shlex.split(command)[2:]
    words = [data.get(word, word) for word in words]
    for flag, value in (("--model.name", "legrad-demo"), ("--model.pretrained", "demo")):
        if flag in words and words[words.index(flag) + 1] not in data.values():
            words[words.index(flag) + 1] = value
    if words[0] in ("points", "layers") and "--points" in words and "--predictions" not in words:
        words += ["--model.image_size", "96"]
    if words[0] == "prompted":
        words += ["--model.image_size", "56"]
    if "--layers" in words:
        words[words.index("--layers") + 1] = "6"  # all
    if "sweep" in words:
        words += ["--last", "[1, 6]"]
    return [*words, *SMALL]


def short_and_long() -> Iterator[object]:
    """Of commands that differ in nothing but the values of their flags, all but one are long."""
    seen = set()
    for line in reversed(EVALUATIONS):
        words = shlex.split(line)
        kind = (words[2], *(word for word in words if word.startswith("--")))
        marks = [pytest.mark.long] if kind in seen else []
        yield pytest.param(line, marks=marks, id=words[words.index("--output") + 1])
        seen.add(kind)


@pytest.mark.parametrize("command", [*short_and_long()])
@pytest.mark.slow
def test_evaluation(command: str, data: dict[str, str], tmp_path: Path) -> None:
    arguments = shortened(command, data)
    assert evaluate.main(arguments) == 0
    output = tmp_path / arguments[arguments.index("--output") + 1]
    found: dict[str, Any] = json.loads((output / "metrics.json").read_text())
    assert found["images"]["scored"] >= 2 and found["missing_shards"] == []
    shutil.rmtree(output)


@pytest.mark.parametrize("command", FIGURES, ids=lambda line: shlex.split(line)[2])
@pytest.mark.slow
def test_figure(
    command: str, scenes: list[Scene], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command)[2:]
    places = yaml.safe_load(words[words.index("--images") + 1])
    for place, scene in zip(places, scenes, strict=False):
        Image.fromarray(scene.image).save(place)
    models = yaml.safe_load(words[words.index("--models") + 1])
    demo = [{"name": "legrad-demo", "pretrained": "demo"}] * len(models)
    words[words.index("--models") + 1] = json.dumps(demo)
    assert figures.main([*words, "--device", "cpu"]) == 0
    rows = len(models) * len(places)
    with Image.open(words[words.index("--output") + 1]) as picture:
        assert picture.height > rows * CELL and picture.width > 8 * CELL


def test_the_speed_of_every_method(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    others = {*EVALUATIONS, *FIGURES}
    (command,) = (shlex.split(line) for line in COMMANDS if line not in others)
    assert command[:2] == ["python", "benchmarks/run.py"]
    package = make_stand_in(tmp_path)
    monkeypatch.setattr(published, "find", lambda given: package)
    monkeypatch.setattr(methods, "compare", partial(methods.compare, config=TINY))
    json_path = tmp_path / "speed.json"
    benchmark.main([*command[2:], "--rounds", "1", "--json", str(json_path)])
    assert "| legrad |" in capsys.readouterr().out
    assert set(methods.FORMS) <= set(json.loads(json_path.read_text())["published"])


def test_every_table_has_a_section() -> None:
    text = PAGE.read_text()
    for table in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10):
        assert re.search(rf"^## .*\b{table}\b", text, re.MULTILINE), table
