"""The command: what it says, what it leaves, and with which code it ends."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs.annotate import main
from pipeline import storage
from pipeline.demo.run import SHARDS
from pipeline.inputs.shards import Shard, find_shards
from pipeline.models.demo import ASSETS
from pipeline.outputs.ledger import Ledger

ROOT = Path(__file__).parents[2]
LOCAL = ("--engine.executor", "local", "--engine.threads", "1")
DEMO = ("--input", str(SHARDS / "demo-00000.tar"), "--limit_samples", "3", *LOCAL)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """`refused(arguments)`: the one line with which the command ends with 2."""

    def run(*arguments: str) -> str:
        assert main(arguments) == 2
        captured = capsys.readouterr()
        assert captured.err.startswith("annotate.py: ")
        assert captured.err.count("\n") == 1
        assert "Traceback" not in captured.err
        return captured.err

    return run


# --- what it refuses


def test_no_shards(refused: Callable[..., str], tmp_path: Path) -> None:
    message = refused("--input", f"{tmp_path}/*.tar", "--output", str(tmp_path / "out"), *LOCAL)
    assert "no shard at" in message and str(tmp_path) in message
    assert not (tmp_path / "out").exists()


def test_no_output(refused: Callable[..., str]) -> None:
    assert "--output is needed" in refused("--input", str(SHARDS), *LOCAL)


def test_a_threshold_that_cannot_work(refused: Callable[..., str]) -> None:
    assert "--mask.threshold 1.5" in refused("--mask.threshold", "1.5")


def test_an_unknown_model(refused: Callable[..., str], tmp_path: Path) -> None:
    message = refused(*DEMO, "--output", str(tmp_path), "--model.name", "ViT-bigG14",
                      "--model.pretrained", "random")  # fmt: skip
    assert "ViT-bigG14" in message and "ViT-bigG-14" in message


@pytest.mark.parametrize(
    ("pretrained", "says"),
    [("laion9b", "laion2b_s34b_b88k"), ("/nowhere.safetensors", "neither a file nor a tag")],
)
def test_weights_that_are_not_there(
    refused: Callable[..., str], tmp_path: Path, pretrained: str, says: str
) -> None:
    message = refused(*DEMO, "--output", str(tmp_path), "--model.name", "ViT-B-16",
                      "--model.pretrained", pretrained)  # fmt: skip
    assert pretrained in message and says in message


def test_weights_of_another_model(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"\x08" + bytes(20))
    message = refused(*DEMO, "--output", str(tmp_path / "out"), "--model.pretrained",
                      str(tmp_path / "broken.safetensors"))  # fmt: skip
    assert "--model" in message


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--method", "no-such-method"), ("--layers", "99"), ("--layers", "[7]"), ("--layers", "0")],
)
def test_a_method_that_does_not_fit_the_model(
    refused: Callable[..., str], tmp_path: Path, flag: str, value: str
) -> None:
    message = refused(*DEMO, "--output", str(tmp_path), flag, value)
    assert value.strip("[]") in message


def test_an_option_that_the_method_does_not_have(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    message = refused(*DEMO, "--output", str(tmp_path / "out"), "--method", "gradcam",
                      "--options", "{with_clss: true}")  # fmt: skip
    assert "gradcam has no option 'with_clss' (did you mean with_cls?); known: with_cls" in message
    assert not (tmp_path / "out").exists()


def test_an_image_size_that_does_not_fit_the_patches(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    message = refused(*DEMO, "--output", str(tmp_path), "--model.image_size", "100")
    assert "100" in message


def test_a_class_file_with_a_duplicate_name(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "classes.yaml").write_text("- {id: 1, name: dog}\n- {id: 2, name: dog}\n")
    message = refused(*DEMO, "--output", str(tmp_path / "out"), "--prompts.classes",
                      str(tmp_path / "classes.yaml"))  # fmt: skip
    assert "name 'dog' is there twice" in message


def test_a_class_file_that_is_a_folder(refused: Callable[..., str], tmp_path: Path) -> None:
    for dry_run in ("true", "false"):
        message = refused(*DEMO, "--output", str(tmp_path / "out"), "--prompts.classes",
                          str(tmp_path), "--dry_run", dry_run)  # fmt: skip
        assert f"--prompts.classes {tmp_path}: not usable ({tmp_path}: is a directory" in message


@pytest.mark.parametrize(
    ("below", "why"), [("", "is a file; name a directory"), ("/deeper", "not usable")]
)
def test_an_output_that_is_a_file(
    refused: Callable[..., str], tmp_path: Path, below: str, why: str
) -> None:
    (tmp_path / "file").write_text("mine")
    message = refused(*DEMO, "--output", f"{tmp_path}/file{below}")
    assert f"--output {tmp_path}/file{below}: {why}" in message
    assert (tmp_path / "file").read_text() == "mine"


def test_a_missing_class_file(refused: Callable[..., str], tmp_path: Path) -> None:
    message = refused(*DEMO, "--output", str(tmp_path / "out"), "--prompts.source", "cls",
                      "--prompts.classes", "/nowhere.yaml")  # fmt: skip
    assert "/nowhere.yaml" in message


# --- what it does


def run(tmp_path: Path, *arguments: str) -> int:
    return main([*LOCAL, "--limit_samples", "3", "--output", str(tmp_path / "out"), *arguments])


@pytest.fixture
def shards(tmp_path: Path) -> str:
    """Two good shards, and a cut one between them."""
    folder = tmp_path / "shards"
    folder.mkdir()
    data = (SHARDS / "demo-00000.tar").read_bytes()
    for name, content in (("a", data), ("b", data[:10_000]), ("c", data)):
        (folder / f"{name}.tar").write_bytes(content)
    return str(folder)


def test_a_dry_run_says_everything_and_writes_nothing(
    shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "--input", shards, "--dry_run", "true") == 0
    text = capsys.readouterr().out
    assert "3 shards: 0 committed" in text
    assert re.findall(r"^to do +(\w)-[0-9a-f]{8} ", text, re.M) == ["a", "b", "c"]
    assert re.search(r"fingerprint [0-9a-f]{16} ", text)
    assert "segmentation: struct<size" in text and "without_mask: list<" in text
    assert not (tmp_path / "out").exists()


def test_a_dry_run_prints_the_schemas_of_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--prompts.calibration", str(ASSETS / "calibration.json"), "--prompts.presence", "0.1")
    for flags in ((), more):
        assert main([*DEMO, *flags, "--output", str(tmp_path / "out"), "--dry_run"]) == 0
        _, annotations, images = re.split(r"\n\n\w+/<shard>.parquet\n", capsys.readouterr().out)
        for printed, column in ((annotations, "probability: float"), (images, "absent: list<")):
            assert (f"\n{column}" in printed) == bool(flags)


def test_a_failed_shard_shows_in_the_exit_code(
    shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ("--input", shards, "--engine.max_attempts", "1")
    assert run(tmp_path, *settings) == 3
    text = capsys.readouterr().out
    assert re.search(r"not committed: b-[0-9a-f]{8}: .*cut short", text)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["shards"], len(summary["missing"])) == (2, 1)

    assert run(tmp_path, *settings) == 3, "it is not tried again"
    assert "1 given up before" in capsys.readouterr().out
    assert run(tmp_path, *settings, "--allow_failed", "1") == 0

    (tmp_path / "shards" / "b.tar").write_bytes((SHARDS / "demo-00000.tar").read_bytes())
    assert run(tmp_path, *settings, "--retry_failed", "true") == 0
    assert not list((tmp_path / "out" / "failed").iterdir())


def test_a_run_goes_on_or_is_refused_or_starts_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ("--input", str(SHARDS / "demo-00000.tar"))
    assert run(tmp_path, *settings) == 0
    (commit,) = (tmp_path / "out" / "commits").iterdir()
    before = commit.read_bytes()
    assert run(tmp_path, *settings) == 0
    assert "1 committed" in capsys.readouterr().out
    assert commit.read_bytes() == before

    changed = (*settings, "--mask.threshold", "0.6")
    assert run(tmp_path, *changed) == 2
    message = capsys.readouterr().err
    assert "mask.threshold: 0.5 there, 0.6 now" in message and "--on_mismatch redo" in message
    assert run(tmp_path, *changed, "--dry_run", "true") == 0
    assert "another configuration" in capsys.readouterr().out
    assert commit.read_bytes() == before

    assert run(tmp_path, *changed, "--on_mismatch", "redo") == 0
    assert commit.read_bytes() != before


def test_a_dry_run_reads_every_commit_once(
    shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, "--input", shards, "--engine.max_attempts", "1")
    (tmp_path / "out" / "shards.parquet").unlink()  # which spares reading those that are not young
    read: list[str] = []
    read_bytes = storage.read_bytes

    def counted(location: str) -> bytes:
        read.append(location)
        return read_bytes(location)

    monkeypatch.setattr(storage, "read_bytes", counted)
    assert run(tmp_path, "--input", shards, "--dry_run") == 0
    commits = [location for location in read if "/commits/" in location]
    assert len(commits) == len(set(commits)) == 2


def test_status_of_a_run(shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, "--input", shards, "--engine.max_attempts", "1")
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    capsys.readouterr()
    assert main(["--status", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert "2 of 3" in text and "not committed: b-" in text
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("damage", [None, "", "[]", "{", '{"state": "running"}'])
def test_status_without_a_summary_is_that_of_the_commits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str | None
) -> None:
    ledger = Ledger(str(tmp_path / "out"))
    ledger.open({"a": 1}, {}, [])
    ledger.fail(Shard("b", "b", 1), "cut short")
    path = tmp_path / "out" / "summary.json"
    if damage is not None:
        path.write_text(damage)
    assert main(["--status", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert "the last run: unknown (" in text and "summary.json" in text
    assert "0 of 1" in text and "cut short" in text


def test_status_counts_what_was_not_reached(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = Ledger(str(tmp_path / "out"))
    ledger.open({"a": 1}, {}, [])
    ledger.summarise(["a", "b", "c"], "stopped")
    assert main(["--status", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert "the last run: stopped" in text and "0 of 3" in text


def test_status_of_nothing(refused: Callable[..., str], tmp_path: Path) -> None:
    assert "there is no run" in refused("--status", str(tmp_path))


def test_the_first_shards_only(shards: str, tmp_path: Path) -> None:
    assert run(tmp_path, "--input", shards, "--limit_shards", "1") == 0
    assert [p.name[0] for p in (tmp_path / "out" / "commits").iterdir()] == ["a"]


def test_options_and_the_empty_text_make_other_maps(
    shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They reach the method, are written down, and belong to the fingerprint."""
    method = ("--input", shards, "--limit_shards", "1", "--method", "gradcam", "--layers", "[1]")
    assert run(tmp_path, *method) == 0
    (table,) = (tmp_path / "out" / "annotations").iterdir()
    peaks = pq.read_table(table)["raw_max"].to_pylist()
    for name, text, value in (
        ("options", "{with_cls: false}", {"with_cls": False}),
        ("empty_text", "a drawing", "a drawing"),
    ):
        changed = (*method, f"--{name}", text)
        assert run(tmp_path, *changed) == 2
        assert name in capsys.readouterr().err
        assert run(tmp_path, *changed, "--on_mismatch", "redo") == 0
        assert pq.read_table(table)["raw_max"].to_pylist() != peaks
        assert json.loads((tmp_path / "out" / "run.json").read_text())["results"][name] == value
        assert json.loads(pq.read_metadata(table).metadata[b"config"])[name] == value


@pytest.mark.slow
def test_a_stopped_run_ends_with_143_and_soon(tmp_path: Path) -> None:
    """What is queued is left for the next run; what is in flight may end."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for number in range(60):
        (folder / f"{number:02}.tar").symlink_to(SHARDS / "demo-00000.tar")
    output = tmp_path / "out"
    process = subprocess.Popen(
        [
            *(sys.executable, "jobs/annotate.py", *LOCAL, "--limit_samples", "8"),
            *("--input", str(folder), "--output", output),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        while not list(output.glob("commits/*.json")):
            assert process.poll() is None
            signal.sigtimedwait([], 0.1)
        process.terminate()
        process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 143
    assert len(list(output.glob("commits/*.json"))) < 30


def test_a_failure_that_cannot_be_recorded_does_not_end_the_run(
    shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (shard,) = find_shards([f"{shards}/b.tar"])
    place = tmp_path / "out" / "failed" / f"{shard.name}.json"
    place.mkdir(parents=True)
    settings = ("--input", shards, "--engine.max_attempts", "1")
    assert run(tmp_path, *settings) == 3
    text = capsys.readouterr().out
    assert f"not recorded: {shard.name}: IsADirectoryError" in text and "2 of 3" in text
    assert re.search(rf"not committed: {shard.name}: .*cut short", text)

    assert main(["--status", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert "the last run: finished" in text and "2 of 3" in text
    assert f"not committed: {shard.name}: no record says why; the same command" in text

    assert run(tmp_path, *settings) == 3, "it is tried again"
    assert "2 committed, 0 given up before" in (text := capsys.readouterr().out)
    assert "1 to do" in text
