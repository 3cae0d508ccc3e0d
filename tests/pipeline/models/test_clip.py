"""Loading models: what is refused, and what is fetched."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import storage
from pipeline.config import DEMO_MODEL, ModelConfig
from pipeline.errors import ConfigError, ModelError
from pipeline.models import clip as models
from pipeline.models import locks
from pipeline.models.classifier import load_classifier
from pipeline.models.clip import load_model
from pipeline.models.demo import WEIGHTS
from pipeline.storage import digests

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ModelConfig("ViT-B-61", "random"), r"no such model .did you mean .*ViT-B-16"),
        (ModelConfig("ViT-B-16", "nonsense"), r"neither a file nor a tag of ViT-B-16 \(.*openai"),
        (ModelConfig("ViT-B-16", "s3://:bad:/x"), r"--model.pretrained s3://"),
    ],
)
def test_what_does_not_exist_is_named(config: ModelConfig, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_model(config, CPU, torch.float32)


def test_weights_of_another_model_are_a_model_error() -> None:
    with pytest.raises(ModelError, match="does not load"):
        load_model(ModelConfig("RN50", str(WEIGHTS)), CPU, torch.float32)


def test_a_name_like_no_other_has_no_neighbours() -> None:
    for name, load in (("zzzzqqq", load_model), ("timm/zzzzqqq", load_classifier)):
        with pytest.raises(ModelError, match=r"no such model$"):
            load(ModelConfig(name, "random"), CPU, torch.float32)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (DEMO_MODEL, b"", "does not load: the file is empty or cut short$"),
        ("RN50", None, "does the file have the weights of another model"),
    ],
)
def test_a_file_without_the_weights_is_said_to_be_so(
    name: str, content: bytes | None, says: str, tmp_path: Path
) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(content or b"")
    with pytest.raises(ModelError, match=says):
        load_model(ModelConfig(name, str(WEIGHTS if content is None else path)), CPU, torch.float32)


def test_the_demo_weights_belong_to_the_demo_model() -> None:
    with pytest.raises(ConfigError, match="belong to legrad-demo"):
        ModelConfig("ViT-B-16", "demo")


def test_random_weights_are_said_aloud_and_repeatable(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    state = torch.get_rng_state()
    first, second = (
        load_model(ModelConfig(DEMO_MODEL, "random"), CPU, torch.bfloat16) for _ in "12"
    )
    assert "RANDOM weights" in capsys.readouterr().out
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert torch.equal(torch.get_rng_state(), state)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b) and a.dtype == torch.bfloat16 and not a.requires_grad


def test_remote_weights_are_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "CACHE", tmp_path)
    opened = []

    def counted(location: str, original=storage.open_read) -> object:
        opened.append(location)
        return original(location)

    monkeypatch.setattr(storage, "open_read", counted)
    location = f"file://{WEIGHTS}"
    threads = [threading.Thread(target=models.downloaded, args=(location,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opened == [location]
    (copy,) = tmp_path.glob("*.safetensors")
    assert copy.read_bytes() == WEIGHTS.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == [copy.name]


def test_other_weights_of_the_same_size_are_fetched_anew(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "CACHE", tmp_path)
    for content in (b"old weights", b"new weights"):
        bucket.put_object(Bucket="data", Key="w.pt", Body=content)
        path = models.downloaded("s3://data/w.pt")
        assert path.read_bytes() == content
        time.sleep(1.1)  # object stores count in seconds
    assert list(tmp_path.iterdir()) == [path]


def test_weights_from_a_web_server_are_told_apart_by_their_date(
    web: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "CACHE", tmp_path / "cache")
    (tmp_path / "cache").mkdir()
    address, folder = web
    for content, date in ((b"old", 1e9), (b"new", 2e9)):
        (folder / "w.pt").write_bytes(content)
        os.utime(folder / "w.pt", (date, date))
        assert models.downloaded(f"{address}/w.pt").read_bytes() == content
    with pytest.raises(ModelError, match=r"gone\.pt: .*no such file"):
        models.downloaded(f"{address}/gone.pt")


def test_weights_that_come_in_short_are_not_kept(
    web: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "CACHE", tmp_path / "cache")
    (tmp_path / "cache").mkdir()
    address, folder = web
    (folder / "cut-w.pt").write_bytes(b"weights" * 1000)
    with pytest.raises(ModelError, match=r"--model\.pretrained .*cut-w\.pt"):
        models.downloaded(f"{address}/cut-w.pt")
    assert not list((tmp_path / "cache").iterdir())


def test_machines_that_share_a_home_may_fetch_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has locks of its own, and so none of the others'."""
    monkeypatch.setattr(models, "CACHE", tmp_path)
    monkeypatch.setattr(locks, "alone", lambda *_: contextlib.nullcontext())
    at_once, sizes = threading.Barrier(4), []

    def slow(source: Any, target: Any, _: int) -> None:
        data = source.read()
        target.write(data[:1000])
        at_once.wait(10)
        target.write(data[1000:])

    monkeypatch.setattr(shutil, "copyfileobj", slow)

    def fetch() -> None:
        sizes.append(len(models.downloaded(f"file://{WEIGHTS}").read_bytes()))

    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sizes == [WEIGHTS.stat().st_size] * 4
    assert len(list(tmp_path.iterdir())) == 1


def test_what_is_left_of_downloads_that_were_killed_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "CACHE", tmp_path)
    place = digests.of_text(f"file://{WEIGHTS}")
    for name, date in (("old", 1e9), ("new", time.time())):
        (tmp_path / f".{place}-{name}").touch()
        os.utime(tmp_path / f".{place}-{name}", (date, date))
    path = models.downloaded(f"file://{WEIGHTS}")
    assert set(tmp_path.iterdir()) == {path, tmp_path / f".{place}-new"}


def test_a_download_that_fails_for_a_reason_that_passes_says_so(
    web: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "CACHE", tmp_path / "cache")
    address, folder = web
    (folder / "cut-w.pt").write_bytes(b"weights" * 1000)
    with pytest.raises(ModelError) as raised:
        models.downloaded(f"{address}/cut-w.pt")
    assert storage.is_transient(raised.value)
    with pytest.raises(ModelError) as raised:
        models.downloaded(f"{address}/gone.pt")
    assert not storage.is_transient(raised.value)
