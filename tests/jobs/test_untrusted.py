"""Members of a tar that would run code when they are unpickled: no command unpickles them.

Other readers of such tars do (CVE-2026-57516, CVE-2026-41486).
"""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jobs import annotate, evaluate
from pipeline.loading import MaskDataset
from pipeline.models.demo import ASSETS
from pipeline.outputs.ledger import Ledger

SAMPLES = 16
CLASSES = str(ASSETS / "classes.yaml")
LOCAL = (
    *("--engine.executor", "local", "--engine.threads", "1", "--engine.log_seconds", "1000"),
    *("--engine.device", "cpu"),
)


class Touch:
    """Creates a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


@pytest.fixture
def touched(tmp_path: Path) -> Path:
    """What is there as soon as anything in `shard` is unpickled."""
    return tmp_path / "touched"


@pytest.fixture
def shard(tmp_path: Path, touched: Path) -> str:
    """Some good samples, each with members that readers of such tars are known to unpickle."""
    stored, array = io.BytesIO(), io.BytesIO()
    torch.save(Touch(touched), stored)
    np.save(array, np.array([Touch(touched)], dtype=object), allow_pickle=True)
    pickled = pickle.dumps(Touch(touched))
    traps = dict.fromkeys(("pkl", "pickle", "pyd", "joblib"), pickled)
    traps |= dict.fromkeys(("pth", "pt", "ckpt"), stored.getvalue()) | {"npy": array.getvalue()}
    path = tmp_path / "traps.tar"
    with (
        tarfile.open(ASSETS / "shards" / "demo-00000.tar") as source,
        tarfile.open(path, "w") as target,
    ):
        keys: dict[str, None] = {}
        for member in source.getmembers():
            key = member.name.partition(".")[0]
            if key not in keys and len(keys) == SAMPLES:
                break
            if key not in keys:
                for extension, data in traps.items():
                    _add(target, f"{key}.{extension}", data)
            keys[key] = None
            file = source.extractfile(member)
            assert file is not None
            _add(target, member.name, file.read())
    return str(path)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def test_the_traps_spring_where_they_are_unpickled(shard: str, touched: Path) -> None:
    """Or the tests below would show nothing."""
    with tarfile.open(shard) as tar:
        for extension in ("pkl", "pyd", "pth", "npy"):
            name = next(one for one in tar.getnames() if one.endswith(f".{extension}"))
            data = tar.extractfile(name).read()
            if extension == "pth":
                torch.load(io.BytesIO(data), weights_only=False)
            elif extension == "npy":
                np.load(io.BytesIO(data), allow_pickle=True)
            else:
                pickle.loads(data)
            touched.rmdir()


def test_no_member_of_a_tar_is_unpickled(shard: str, touched: Path, tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    common = ("--input", shard, *LOCAL)
    assert annotate.main([*common, "--output", output]) == 0
    assert len(list(MaskDataset(shard, output))) == SAMPLES
    # Vectors as prompts are read from .npy, which may hold Python objects, too.
    vectors = ("--prompts.source", "embeddings", "--max_reject_fraction", "1")
    assert annotate.main([*common, *vectors, "--output", str(tmp_path / "vectors")]) == 0
    assert Ledger(str(tmp_path / "vectors")).summary().rejects == {"bad_prompts": SAMPLES}
    labels = ("--classes", CLASSES, "--label_field", "labels")
    metrics = str(tmp_path / "metrics")
    assert evaluate.main(["perturbation", *common, *labels, "--output", metrics]) == 0
    assert json.loads((tmp_path / "metrics" / "metrics.json").read_text())
    assert not touched.exists()
