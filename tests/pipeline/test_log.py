"""Lines for people, or an object for every line."""

from __future__ import annotations

import json
import sys
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from jobs.annotate import main
from pipeline import log
from pipeline.demo.run import SHARDS
from pipeline.log import Event, say

LOCAL = ("--engine.executor", "local", "--engine.threads", "1", "--engine.log_seconds", "0.05")
DEMO = ("--input", str(SHARDS / "demo-00000.tar"), "--limit_samples", "3", *LOCAL)


def objects(text: str) -> list[dict[str, Any]]:
    """Every line of a log, each of which has to be an object with a time and a level."""
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        assert datetime.fromisoformat(line["time"]).tzinfo is not None
        assert line["level"] in ("info", "warning", "error")
        assert line["event"] and line["message"]
    return lines


def test_an_event_is_its_line_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    say(Event("failed", "failed: a", "warning", shard="a"))
    assert capsys.readouterr().out == "failed: a\n"


def test_every_line_is_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    with log.restored():
        log.use("json")
        assert log.as_objects()
        say(Event("failed", "failed: a", "warning", shard="a", attempt=2))
        print("of a library\nin two lines, ", end="")
        print("in parts")
        print("\x1b[36m(_ShardActor pid=12, ip=10.0.0.7)\x1b[0m no\x1b[0m room", file=sys.stderr)
        print("not ended", end="")
    assert not log.as_objects()
    print("as before")
    captured = capsys.readouterr()
    *lines, last = captured.out.splitlines()
    assert last == "as before"
    failed, *others = objects("\n".join(lines))
    wanted = {"event": "failed", "message": "failed: a", "shard": "a", "attempt": 2}
    assert failed.items() >= {**wanted, "level": "warning"}.items()
    messages = ["of a library", "in two lines, in parts", "not ended"]
    assert [(line["event"], line["message"]) for line in others] == [
        ("output", message) for message in messages
    ]
    (worker,) = objects(captured.err)
    about = {"event": "worker", "actor": "_ShardActor", "pid": 12, "ip": "10.0.0.7"}
    assert worker.items() >= {**about, "level": "warning", "message": "no room"}.items()


def test_threads_do_not_mix_their_lines(capsys: pytest.CaptureFixture[str]) -> None:
    def speak(letter: str) -> None:
        for _ in range(50):
            print(letter, letter, letter)

    with log.restored():
        log.use("json")
        threads = [threading.Thread(target=speak, args=(letter,)) for letter in "abc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    said = [line["message"] for line in objects(capsys.readouterr().out)]
    assert sorted(said) == ["a a a"] * 50 + ["b b b"] * 50 + ["c c c"] * 50


def test_a_run_says_everything_in_objects(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    price = ("--engine.price", "2")
    assert main([*DEMO, *price, "--output", str(tmp_path / "out"), "--log", "json"]) == 0
    said = {line["event"]: line for line in objects(capsys.readouterr().out)}
    assert said["plan"].items() >= {"shards": 1, "committed": 0, "to_do": 1}.items()
    assert said["progress"].items() >= {"shards": 1, "of_shards": 1, "images": 3}.items()
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert said["summary"]["cost"] == summary["cost"] and said["summary"]["missing"] == 0
    assert summary["cost"]["unit"] == "worker" and summary["cost"]["images"] == 3
    assert summary["cost"]["money"] == pytest.approx(2 * summary["cost"]["hours"], abs=2e-6)
    assert summary["bound_by"] in summary["busy"]
    assert main(["--status", str(tmp_path / "out")]) == 0
    status = " ".join(capsys.readouterr().out.split())
    assert "bound by" in status and "price per million images" in status


def test_what_ends_a_command_is_an_object_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = ("--input", f"{tmp_path}/*.tar", "--output", str(tmp_path / "out"))
    assert main([*nowhere, *LOCAL, "--log", "json"]) == 2
    (line,) = objects(capsys.readouterr().err)
    assert line.items() >= {"event": "ended", "level": "error", "cause": "ConfigError"}.items()
    assert line["message"].startswith("annotate.py: ")
