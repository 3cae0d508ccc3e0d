"""What holds for annotate.py and for every metric of evaluate.py, because it is written once."""

import dataclasses
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import legrad
import pipeline.run.run
from jobs import annotate, evaluate, rethreshold
from pipeline import storage
from pipeline.config import AnnotateConfig, RunConfig, since
from pipeline.evaluation.config import EvaluationConfig
from pipeline.models.demo import ASSETS, WEIGHTS
from pipeline.models.loading import LoadedClip
from pipeline.outputs.ledger import Ledger

ROOT = Path(__file__).parents[2]
SHARD = str(ASSETS / "shards" / "demo-00000.tar")
POINTS = (
    *("--points", str(ASSETS / "points.csv")),
    *("--descriptions", str(ASSETS / "class-descriptions.csv")),
)
LABELS = ("--classes", str(ASSETS / "classes.yaml"), "--label_field", "labels")
COCO = ("--coco", str(ASSETS / "instances.json"))
LOCAL = (
    *("--engine.executor", "local", "--engine.threads", "1", "--engine.log_seconds", "1000"),
    *("--input", SHARD, "--limit_samples", "4"),
)
COMMANDS: dict[str, tuple[Callable[..., int], tuple[str, ...]]] = {
    "annotate.py": (annotate.main, ()),
    "evaluate.py points": (evaluate.main, (*POINTS, "--bootstrap", "0")),
    "evaluate.py segmentation": (evaluate.main, COCO),
    "evaluate.py perturbation": (evaluate.main, (*LABELS, "--limit_samples", "16")),
    "evaluate.py layers": (evaluate.main, ("--study", "gradient", *COCO)),
}
RETHRESHOLD = "rethreshold.py"
each_command = pytest.mark.parametrize("command", list(COMMANDS))


def long_but(*short: str) -> list[object]:
    """Every command, of which all but these are long: what they share is seen with these."""
    return [
        name if name in short else pytest.param(name, marks=pytest.mark.long) for name in COMMANDS
    ]


def run(command: str, output: Path, *flags: str) -> int:
    main, own = COMMANDS[command]
    return main([*command.split()[1:], *LOCAL, *own, "--output", str(output), *flags])


@each_command
def test_a_size_that_the_model_cannot_have_is_one_line_before_any_shard(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command, tmp_path / "out", "--model.image_size", "100") == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith(f"{command}: --model.image_size 100: ")
    assert "\n" not in said and "multiple" in said
    ledger = Ledger(str(tmp_path / "out"))
    assert ledger.committed() == ledger.failed() == set()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of annotate.py, which rethreshold.py needs."""
    output = tmp_path_factory.mktemp("annotated") / "source"
    assert run("annotate.py", output) == 0
    return output


def prepared(command: str, source: Path, output: Path) -> Callable[..., int]:
    """`command(*flags)`, with what it needs."""
    if command != RETHRESHOLD:
        return lambda *flags: run(command, output, *flags)
    places = ("--source", str(source), "--output", str(output))
    return lambda *flags: rethreshold.main([*places, *flags])


@pytest.mark.parametrize("command", [*COMMANDS, RETHRESHOLD])
def test_an_output_that_may_not_be_written_is_one_line(
    command: str,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(location: str, data: bytes) -> None:
        raise PermissionError(13, "Permission denied", location)

    main = prepared(command, source, tmp_path / "out")
    monkeypatch.setattr(storage, "write_bytes", refuse)
    capsys.readouterr()
    assert main() == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith(f"{command}: --output {tmp_path}/out: not usable (")
    assert "Permission denied" in said and "\n" not in said


@each_command
def test_weights_on_a_server_that_does_not_answer_are_one_line(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # nobody listens there afterwards
        port = server.getsockname()[1]
    weights = f"http://127.0.0.1:{port}/weights.pt"
    assert run(command, tmp_path / "out", "--model.pretrained", weights) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith(f"{command}: --model.pretrained {weights}: not usable (")
    assert "\n" not in said


@pytest.mark.parametrize(
    "command", [*long_but("annotate.py", "evaluate.py segmentation"), RETHRESHOLD]
)
@pytest.mark.parametrize("kind", [PermissionError, FileNotFoundError])
def test_an_error_in_the_middle_of_a_run_is_not_taken_for_a_setting(
    command: str,
    kind: type[OSError],
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*arguments: object) -> None:
        raise kind("later")

    main = prepared(command, source, tmp_path / "out")
    monkeypatch.setattr(pipeline.run.run, "do_all", fail)
    monkeypatch.setattr(Ledger, "commit", fail)
    with pytest.raises(kind, match="later"):
        main()


@pytest.mark.parametrize("command", long_but("annotate.py", "evaluate.py perturbation"))
def test_a_batch_that_does_not_fit_into_memory_is_halved(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("--model.image_size", "96")
    assert run(command, tmp_path / "whole", *flags) == 0
    build = legrad.build

    def build_small(*args: object, **options: object) -> legrad.Explainer:
        explainer = build(*args, **options)
        explain = explainer.explain

        def refuse(images: torch.Tensor, text: torch.Tensor, index: torch.Tensor) -> object:
            if len(text) > 1:
                raise torch.OutOfMemoryError("more than one pair")
            return explain(images, text, index)

        monkeypatch.setattr(explainer, "explain", refuse)
        return explainer

    embed = LoadedClip.embed

    def embed_few(self: LoadedClip, images: torch.Tensor) -> torch.Tensor:
        if len(images) > 2:  # perturbation, which asks for one pair at a time, embeds nine images
            raise torch.OutOfMemoryError("more than two images")
        return embed(self, images)

    monkeypatch.setattr(LoadedClip, "embed", embed_few)
    monkeypatch.setattr(legrad, "build", build_small)
    assert run(command, tmp_path / "halved", *flags) == 0
    whole, halved = (Ledger(str(tmp_path / name)).commits() for name in ("whole", "halved"))
    assert [commit.degraded for commit in whole + halved] == [False, True]
    assert (whole[0].samples, whole[0].prompts) == (halved[0].samples, halved[0].prompts)


@pytest.mark.long
def test_a_new_setting_of_a_run_is_a_flag_of_every_command_by_being_written_once(
    tmp_path: Path,
) -> None:
    for folder in ("legrad", "pipeline", "jobs"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    source = tmp_path / "pipeline" / "config" / "run.py"
    before = "    model: ModelConfig = "
    text = source.read_text()
    assert text.count(before) == 1
    added = '    spice: int = 7\n    """How much of it."""\n'
    source.write_text(text.replace(before, added + before))
    program = f"""
import contextlib, io, sys
sys.path.insert(0, {str(tmp_path)!r})
import pipeline.run.run
from jobs import annotate, evaluate, rethreshold
from pipeline import storage
for main, own in ((annotate.main, []), *((evaluate.main, [name]) for name in evaluate.COMMANDS)):
    shown = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(shown):
        main([*own, "--help"])
    print("--spice SPICE" in shown.getvalue() and "How much of it." in shown.getvalue())
"""
    python = [sys.executable, "-c", program]
    ended = subprocess.run(python, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["True"] * (1 + len(evaluate.COMMANDS))


@pytest.mark.parametrize("kind", [AnnotateConfig, EvaluationConfig])
def test_a_setting_that_came_later_is_in_the_identity_only_where_it_changes_results(
    kind: type[RunConfig],
) -> None:
    later = dataclasses.make_dataclass(
        "Later", [("spice", int, since(default=7, before=0))], bases=(kind,), frozen=True
    )
    assert later(spice=0).identity() == kind().identity()
    assert later().identity() == kind().identity() | {"spice": 7}


def test_no_command_writes_a_setting_of_runs_again() -> None:
    common = {field.name for field in dataclasses.fields(RunConfig)}
    for kind in (AnnotateConfig, EvaluationConfig):
        assert not common & kind.__annotations__.keys()


def test_what_belongs_to_weights_in_a_file_is_said_once_and_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "weights.safetensors"
    shutil.copy(WEIGHTS, weights)
    flags = ("--model.pretrained", str(weights), "--model.mean", "[0.5, 0.4, 0.3]")
    assert run("annotate.py", tmp_path / "out", *flags) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("weights ")]
    assert len(said) == 1
    assert "mean [0.5, 0.4, 0.3] (from the settings)" in said[0] and str(weights) in said[0]
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert "[0.5, 0.4, 0.3]" in json.dumps(record["results"]["model"]["mean"])
    assert record["config"]["model"]["weight_settings"]["mean"] == [0.5, 0.4, 0.3]
    assert run("annotate.py", tmp_path / "demo") == 0
    assert "weights " not in capsys.readouterr().out
