"""Annotation outputs made by hand, point files, and runs of evaluate.py."""

import io
import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from matplotlib.figure import Figure
from PIL import Image
from safetensors.torch import save_file

from jobs import evaluate
from legrad import HeatOrder
from pipeline.config import AnnotateConfig
from pipeline.demo.quality import bundled_scenes
from pipeline.demo.scenes import Scene
from pipeline.evaluation.points.labels import Cleaning, read_labels
from pipeline.evaluation.points.pairs import LabelledPairs
from pipeline.inputs.shards import Shard
from pipeline.models.demo import ASSETS
from pipeline.outputs.ledger import Ledger
from pipeline.outputs.masks import encode, measure
from pipeline.outputs.records import Commit, file_record
from pipeline.outputs.schema import image_id, to_files
from tests.pipeline.evaluation import ade
from tests.pipeline.evaluation.funnybirds.birds import SMALL

LOCAL = ("--engine.executor", "local", "--engine.threads", "1", "--engine.log_seconds", "1000")
NAMES = 'LabelName,DisplayName\r\n/m/d,Dog\r\n/m/c,Cat\r\n/m/b,"Bird, small"\r\n'
# The layout of the real files, and their quirks: Windows line ends, a column that nobody knows,
# ids that look like numbers, and all that can be wrong with a row. Masks will be x < 0.5.
POINTS = "\r\n".join(
    """ImageId,X,Y,Label,EstimatedYesNo,Source,YesVotes,NoVotes,UnsureVotes,TextLabel,New
0001,0.10,0.50,/m/d,yes,ih,3,0,0,,
0001,0.20,1.00,/m/d,yes,ih,3,0,0,,
0001,1.00,0.50,/m/d,Yes,ih,3,0,0,,
0001,0.49,0.50,/m/d,no,ih,0,3,0,,
0001,0.50,0.50,/m/d,no,ih,0,3,0,,
0001,0.10,0.10,/m/d,unsure,ih,0,0,3,,
0002,0.90,0.10,/m/d,yes,ih,1,0,0,,
0002,0.00,0.00,/m/c,yes,ih,1,0,0,,
0002,0.00,0.00,/m/c,yes,cc,1,0,0,,
0002,0.30,0.30,/m/c,yes,ih,1,0,0,,
0002,0.30,0.30,/m/c,no,cc,0,1,0,,
0002,0.20,0.20,/m/c,no,cc,0,1,0,,
0001,0.10,0.10,/m/c,no,ih,0,1,0,,
0001,0.10,0.10,/m/b,no,ih,0,1,0,,
0002,1.20,0.50,/m/d,no,ih,0,1,0,,
0002,,0.50,/m/d,no,ih,0,1,0,,
0002,0.60,0.50,/q/own,yes,ih,1,0,0,Green lamp,
0002,0.60,0.50,/q/none,yes,ih,1,0,0,,
0003,0.60,0.50,/m/d,yes,ih,1,0,0,,
0002,0.70,0.70,/m/c,maybe,ih,1,0,0,,
""".splitlines()
)

Masks = Mapping[str, Mapping[str, np.ndarray]]


@pytest.fixture
def rendered() -> None:
    """For a test that looks at figures: there they are drawn to the end."""


@pytest.fixture(autouse=True)
def unrendered(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made and written, but empty: to render them is half of what a small run costs."""
    if "rendered" not in request.fixturenames:
        monkeypatch.setattr(Figure, "savefig", lambda figure, stream, **_: stream.write(b"PNG"))


@pytest.fixture
def csvs(tmp_path: Path) -> tuple[str, str]:
    """The point file and the descriptions above."""
    points, names = tmp_path / "points.csv", tmp_path / "names.csv"
    points.write_bytes(POINTS.encode())
    names.write_bytes(NAMES.encode())
    return str(points), str(names)


@pytest.fixture
def cleaned(csvs: tuple[str, str]) -> tuple[LabelledPairs, Cleaning]:
    return read_labels(*csvs)


@pytest.fixture
def write_predictions(tmp_path: Path) -> Callable[..., str]:
    """`write_predictions({key: {class: mask}}, scores=…, heat=…, **settings)` → an output."""

    def write(
        shards: Masks | list[Masks],
        scores: Mapping[tuple[str, str], float] | None = None,
        heat: Mapping[tuple[str, str], np.ndarray] | None = None,
        rejected: tuple[str, ...] = (),
        name: str = "predictions",
        order: HeatOrder = HeatOrder.UPSAMPLE_NORMALISE,
        **settings: Any,
    ) -> str:
        output = str(tmp_path / name)
        config = AnnotateConfig(output=output, **settings)
        ledger = Ledger(output)
        ledger.open(config.identity(), {}, [])
        for number, masks in enumerate(shards if isinstance(shards, list) else [shards]):
            shard = Shard("", f"s{number}.tar", 1)
            images = [image_row(shard.name, key, rejected) for key in masks]
            rows = [
                mask_row(shard.name, key, category, mask, scores or {}, heat or {})
                for key, of_image in masks.items()
                for category, mask in of_image.items()
            ]
            files = to_files(shard.name, rows, images, config.identity(), order)
            counts = dict(samples=len(images), statuses={}, rejects={}, prompts=0, prompts_cut=0)
            end = dict(seconds=0.0, attempt=1, degraded=False, incomplete="", masks=len(rows))
            records = {path: file_record(data) for path, data in files.items()}
            made = config.fingerprint()
            commit = Commit(shard.name, made, shard.uri, 1, **counts, files=records, **end)
            ledger.commit(commit, files)
        return output

    return write


def image_row(shard: str, key: str, rejected: tuple[str, ...]) -> dict[str, Any]:
    bad = key in rejected
    return {
        **dict(shard=shard, sample_index=0, key=key, image_id=image_id(shard, key)),
        **dict(height=None, width=None, status="rejected" if bad else "annotated"),
        **dict(reason="undecodable" if bad else None, detail=None),
        **dict(prompts=0, prompts_cut=0, masks=0, without_mask=[]),
    }


def mask_row(
    shard: str,
    key: str,
    category: str | None,
    mask: np.ndarray,
    scores: Mapping[tuple[str, str], float],
    heat: Mapping[tuple[str, str], np.ndarray],
) -> dict[str, Any]:
    (segmentation,) = encode(np.asfortranarray(mask[..., None], dtype=np.uint8))
    area, bbox = measure(segmentation)
    grid = heat.get((key, category or ""))
    return {
        **dict(shard=shard, sample_index=0, key=key, image_id=image_id(shard, key)),
        **dict(height=mask.shape[0], width=mask.shape[1], prompt_index=0, prompt="a photo"),
        **dict(category=category, category_id=None, score=scores.get((key, category or ""), 0.5)),
        **dict(raw_min=-1.0, raw_max=1.0, heat_mean=1.0, threshold=0.5, area=area, bbox=bbox),
        **dict(segmentation=segmentation, heat=None if grid is None else grid.tobytes()),
        "heat_shape": None if grid is None else list(grid.shape),
    }


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """`run("points", "--flag", value, …, code=0)` → metrics.json of evaluate.py, run here."""

    def start(command: str, *flags: object, output: str = "scores", code: int = 0) -> Any:
        folder = tmp_path / output
        arguments = [command, "--output", str(folder), *map(str, flags)]
        if "--engine.executor" not in arguments:
            arguments += LOCAL
        assert evaluate.main(arguments) == code
        return json.loads((folder / "metrics.json").read_text()) if code != 2 else None

    return start


@pytest.fixture
def classes() -> str:
    """A class file with the classes of the demo."""
    return str(ASSETS / "classes.yaml")


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The smallest transformer that timm lists, and a file of random weights for it."""
    torch.manual_seed(0)
    model = timm.create_model("test_vit")
    with torch.no_grad():  # timm starts heads near zero, and without bias
        for parameter in model.head.parameters():
            parameter.normal_()
    path = tmp_path_factory.mktemp("classifier") / "test_vit.safetensors"
    save_file(model.state_dict(), path)
    return "timm/test_vit", str(path)


@pytest.fixture(scope="session")
def birds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small FunnyBirds in the real layout."""
    root = tmp_path_factory.mktemp("birds") / "FunnyBirds"
    SMALL.write(root)
    return root


@pytest.fixture(scope="session")
def bird_weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint as FunnyBirds' authors write theirs, of the smallest transformer."""
    torch.manual_seed(1)
    model = timm.create_model("test_vit", num_classes=len(SMALL.classes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    path = tmp_path_factory.mktemp("weights") / "vit_final_1_checkpoint_best.pth.tar"
    about = {"epoch": 99, "arch": "vit_b_16", "best_acc1": torch.tensor(99.8)}
    torch.save(about | {"state_dict": model.state_dict(), "optimizer": {"state": {}}}, path)
    return str(path)


@pytest.fixture(scope="session")
def scenes() -> list[Scene]:
    """Three scenes of the demo."""
    return bundled_scenes()[:3]


@pytest.fixture
def imagenet_shard(tmp_path: Path, scenes: list[Scene]) -> str:
    """Three images in the layout of ImageNet's shards: a .jpg, a class number, a .json."""
    path = tmp_path / "imagenet-validation-000000.tar"
    with tarfile.open(path, "w") as archive:
        for i, scene in enumerate(scenes):
            jpeg = io.BytesIO()
            Image.fromarray(scene.image).save(jpeg, "JPEG")
            members = {"jpg": jpeg.getvalue(), "cls": str(400 * i).encode(), "json": b"{}"}
            for extension, data in members.items():
                member = tarfile.TarInfo(f"ILSVRC2012_val_{i + 1:08d}.{extension}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return str(path)


@pytest.fixture
def write_ade(tmp_path: Path) -> Callable[..., str]:
    """`write_ade(rows=None)` → the root of a small ADE20K Sound and Speech Prompted."""

    def write(rows: list[dict[str, object]] | None = None) -> str:
        return ade.write_ade(tmp_path / "ADE20KPrompted", rows)

    return write
