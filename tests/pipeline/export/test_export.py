"""What holds for exports of every format, tried with COCO."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco

from jobs import export
from pipeline import storage
from pipeline.errors import ConfigError
from pipeline.export.coco import CocoConfig
from pipeline.outputs.ledger import Ledger
from tests.pipeline.export.made import HARD, SIZE, Made, box, make_run

ROOT = Path(__file__).parents[3]
OLD = ROOT / "tests" / "reference" / "version_1"
WHOLE = box(SIZE, (0, 0, *SIZE))


def many(start: int, count: int = 4) -> list[Made]:
    """Images with a mask each."""
    return [
        Made(f"im{number}.jpg", SIZE, [("dog", 0.5, box(SIZE, (0, 0, 3, number + 1)))])
        for number in range(start, start + count)
    ]


def run(source: Path | str, output: Path | str, *flags: str, format: str = "coco") -> int:
    return export.main([format, "--predictions", str(source), "--output", str(output), *flags])


def read(folder: Path, name: str = "instances.json") -> Any:
    content = json.loads((folder / name).read_text())
    if isinstance(content, dict):
        del content["info"]["date_created"], content["info"]["year"]
    return content


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr."""
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_records_are_as_clients_need_them(tmp_path: Path) -> None:
    make_run(str(tmp_path / "out"), HARD, many(0))
    assert run(tmp_path / "out", tmp_path / "to") == 0
    data = read(tmp_path / "to")
    assert [one["name"] for one in data["categories"]] == ["a zebra", "cat", "dog"]
    assert [one["id"] for one in data["categories"]] == [1, 2, 3]
    names = {image["file_name"]: image for image in data["images"]}
    assert "sub/dir.v2/empty.jpg" in names and "bad.jpg" not in names
    assert (names["two words.jpg"]["height"], names["two words.jpg"]["width"]) == (35, 25)
    assert [one["id"] for one in data["annotations"]] == [*range(1, 9)]
    zebra = next(one for one in data["annotations"] if one["category_id"] == 1)
    assert zebra.pop("segmentation")["size"] == [35, 25]
    assert zebra == {
        **dict(id=4, image_id=names["two words.jpg"]["id"], category_id=1, area=1, iscrowd=0),
        **dict(bbox=[24.0, 34.0, 1.0, 1.0], score=0.75),
    }
    assert run(tmp_path / "out", tmp_path / "list", format="coco-results") == 0
    results = read(tmp_path / "list", "results.json")
    assert len(results) == 8
    assert results[3].keys() == {"image_id", "category_id", "segmentation", "score"}


def test_uncompressed_runs_are_the_same_mask(tmp_path: Path) -> None:
    make_run(str(tmp_path / "out"), HARD)
    assert run(tmp_path / "out", tmp_path / "a") == 0
    assert run(tmp_path / "out", tmp_path / "b", "--rle", "uncompressed") == 0
    for one, other in zip(
        read(tmp_path / "a")["annotations"], read(tmp_path / "b")["annotations"], strict=True
    ):
        packed, plain = one.pop("segmentation"), other.pop("segmentation")
        assert one == other and sum(plain["counts"]) == np.prod(plain["size"])
        again = coco.frPyObjects(plain, *plain["size"])
        assert again["counts"].decode() == packed["counts"]


def test_filters_say_what_they_drop_of_each_class(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    captions = [Made("cap.jpg", SIZE, [(None, 0.75, WHOLE), (None, 0.0, WHOLE)])]
    make_run(str(tmp_path / "out"), HARD, captions)
    assert run(tmp_path / "out", tmp_path / "to", "--select.score", "0.2") == 0
    totals = json.loads((tmp_path / "to" / "export" / "state.json").read_text())["totals"]
    assert totals["taken"] == {"dog": 1, "cat": 1, "a zebra": 1}
    assert totals["dropped"] == [
        ["caption_category", "(caption)", 1],
        ["score", "(caption)", 1],
        ["score", "dog", 1],
    ]
    rows = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if "│" in line]
    assert ["dog", "1", "1", "0"] in [[cell.strip() for cell in row] for row in rows]
    assert len(read(tmp_path / "to")["images"]) == 4
    assert run(tmp_path / "out", tmp_path / "cap", "--caption_category", "scene") == 0
    data = read(tmp_path / "cap")
    assert [one["name"] for one in data["categories"]] == ["a zebra", "cat", "dog", "scene"]
    assert sum(one["category_id"] == 4 for one in data["annotations"]) == 2


def test_a_split_takes_every_image_once_and_follows_from_its_key(tmp_path: Path) -> None:
    make_run(str(tmp_path / "out"), many(0, 10), many(10, 10))
    assert run(tmp_path / "out", tmp_path / "all") == 0
    assert run(tmp_path / "out", tmp_path / "to", "--split", "train=0.7,val=0.3") == 0
    parts = [read(tmp_path / "to", f"instances_{name}.json") for name in ("train", "val")]
    names = [{image["file_name"] for image in part["images"]} for part in parts]
    assert names[0] & names[1] == set() and len(names[0]) > len(names[1]) > 0
    assert names[0] | names[1] == {one["file_name"] for one in read(tmp_path / "all")["images"]}
    for part in parts:
        assert [one["id"] for one in part["annotations"]] == [*range(1, len(part["images"]) + 1)]
    config = CocoConfig("a", "b", split="train=0.7,val=0.3")
    assert names[0] == {f"im{n}.jpg" for n in range(20) if config.part_of(f"im{n}") == "train"}


@given(st.text(max_size=8), st.integers(0, 10**12))
def test_shares_are_kept(prefix: str, start: int) -> None:
    config = CocoConfig("a", "b", split="a=0.5,b=0.25,c=0.25")
    parts = [config.part_of(f"{prefix}{number}") for number in range(start, start + 200)]
    for name, share in config.shares().items():
        assert abs(parts.count(name) / 200 - share) < 0.2


def test_an_interrupted_export_goes_on_and_never_looks_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(str(tmp_path / "out"), *(many(4 * number) for number in range(3)))
    assert run(tmp_path / "out", tmp_path / "whole") == 0
    write, to = storage.write_bytes, tmp_path / "to"
    written: list[str] = []

    def until(stop: Callable[[str], bool]) -> None:
        def fail(location: str, data: bytes) -> None:
            if stop(location):
                raise OSError("no space left")
            written.append(Path(location).name)
            write(location, data)

        monkeypatch.setattr(storage, "write_bytes", fail)

    until(lambda location: "part-1" in location and location.endswith("objects"))
    capsys.readouterr()
    assert run(tmp_path / "out", to) == 2
    assert "no space left; the same command goes on" in said(capsys)
    assert not (to / "instances.json").exists()
    assert json.loads((to / "export" / "state.json").read_text())["state"] == "running"
    written.clear()
    until(lambda location: False)
    assert run(tmp_path / "out", to) == 0
    assert not [name for name in written if name.startswith("part-0")]
    assert read(to) == read(tmp_path / "whole")
    assert json.loads((to / "export" / "state.json").read_text())["state"] == "complete"
    (parts,) = (path for path in (to / "export").iterdir() if path.is_dir())
    assert list(parts.iterdir()) == []
    written.clear()
    assert run(tmp_path / "out", to) == 0
    assert written == []


def test_the_last_file_is_whole_or_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(str(tmp_path / "out"), many(0), many(4))
    read_bytes = storage.read_bytes

    def fail(location: str) -> bytes:
        if location.endswith("objects") and "part-1" in location:
            raise OSError("the disk is gone")
        return read_bytes(location)

    monkeypatch.setattr(storage, "read_bytes", fail)
    assert run(tmp_path / "out", tmp_path / "to") == 2
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["export"]


def test_a_run_that_has_grown_is_exported_again(tmp_path: Path) -> None:
    make_run(str(tmp_path / "out"), many(0))
    assert run(tmp_path / "out", tmp_path / "to") == 0
    make_run(str(tmp_path / "out"), many(0), many(4))
    assert run(tmp_path / "out", tmp_path / "to") == 0
    assert len(read(tmp_path / "to")["annotations"]) == 8


def test_an_object_store_is_as_good_as_a_disk(tmp_path: Path, bucket: Any) -> None:
    for place in (str(tmp_path / "out"), "s3://data/out"):
        make_run(place, HARD, many(0))
    assert run(tmp_path / "out", tmp_path / "to") == 0
    assert run("s3://data/out", "s3://data/to") == 0
    stored = json.loads(storage.read_bytes("s3://data/to/instances.json"))
    assert stored["annotations"] == read(tmp_path / "to")["annotations"]
    assert storage.list_files("s3://data/to/export").keys() == {"state.json"}


def test_outputs_of_version_1_need_a_pattern(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(OLD, tmp_path / "to") == 2
    assert "no file name is known of sample" in said(capsys)
    assert run(OLD, tmp_path / "to", "--file_name", "{key}.jpg") == 0
    assert len(read(tmp_path / "to")["annotations"]) == 11


@pytest.mark.parametrize(
    ("shards", "flags", "message"),
    [
        ([many(0), many(3)], (), "would have the same name (im3.jpg); give a pattern that tells"),
        ([[Made("../a.jpg", SIZE)]], (), "'../a.jpg' is no path below the folder of the images"),
        ([[Made("/a.jpg", SIZE)]], (), "'/a.jpg' is no path below"),
        ([[replace(HARD[0], id=7), replace(HARD[3], id=7)]], (), "have the same image_id 7"),
        ([many(0)], ("--select.score", "0.9"), "no mask is left to export (score drops 4)"),
        ([many(0)], ("--select.categories", "[dgo]"), "no 'dgo' (did you mean dog?)"),
        ([many(0)], ("--split", "train=0.9,val=0.2"), "shares that add up to 1"),
        ([many(0)], ("--split", "train"), "shares that add up to 1"),
        ([many(0)], ("--file_name", "{kee}.jpg"), "not a pattern of {file_name}, {key}"),
        ([many(0)], ("--part_area", "3"), "no effect without --instances components"),
        ([many(0)], ("--output", "{out}"), "is in --predictions, whose readers"),
        ([many(0)], ("--output", "{file}/x"), "not usable"),
    ],
)
def test_what_cannot_be_is_one_line(
    shards: list[list[Made]],
    flags: tuple[str, ...],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    make_run(str(out), *shards)
    (tmp_path / "file").touch()
    given = [flag.replace("{out}", str(out)) for flag in flags]
    given = [flag.replace("{file}", str(tmp_path / "file")) for flag in given]
    assert run(out, tmp_path / "to", *given) == 2
    assert message in said(capsys)
    assert not (tmp_path / "to" / "instances.json").exists()


def test_the_shard_makes_a_name_unique(tmp_path: Path) -> None:
    make_run(str(tmp_path / "out"), many(0), many(3))
    assert run(tmp_path / "out", tmp_path / "to", "--file_name", "{shard}/{file_name}") == 0
    assert len({image["file_name"] for image in read(tmp_path / "to")["images"]}) == 8


def test_a_table_that_is_cut_short_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(str(tmp_path / "out"), many(0))
    (table,) = (tmp_path / "out" / "annotations").iterdir()
    table.write_bytes(table.read_bytes()[:-40])
    assert run(tmp_path / "out", tmp_path / "to") == 2
    assert "annotations/part-0" in said(capsys)


def test_another_export_is_not_mixed_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(str(tmp_path / "out"), many(0))
    assert run(tmp_path / "out", tmp_path / "to") == 0
    assert run(tmp_path / "out", tmp_path / "to", "--select.score", "0.1") == 2
    assert "holds another export (with another select)" in said(capsys)


def test_a_run_with_missing_shards_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(str(tmp_path / "out"), many(0))
    ledger = Ledger(str(tmp_path / "out"))
    ledger.summarise([ledger.commits()[0].shard, "gone"])
    assert run(tmp_path / "out", tmp_path / "to") == 0
    assert "the run is not complete: 1 of its shards are missing" in capsys.readouterr().out


def test_components_become_objects(tmp_path: Path) -> None:
    make_run(str(tmp_path / "out"), HARD)
    flags = ("--instances", "components", "--part_area", "17")
    assert run(tmp_path / "out", tmp_path / "to", *flags) == 0
    data = read(tmp_path / "to")
    assert sorted(one["area"] for one in data["annotations"]) == [100, 270, 1200]
    totals = json.loads((tmp_path / "to" / "export" / "state.json").read_text())["totals"]
    assert totals["dropped"] == [["part_area", "a zebra", 1]]
    assert pq.read_table(tmp_path / "out" / "annotations").num_rows == 4


def test_settings_are_refused_by_the_class_too() -> None:
    with pytest.raises(ConfigError, match="--predictions and --output are needed"):
        CocoConfig()


def test_two_exports_with_other_settings_do_not_mix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both have found an empty place: who began last has it, the other notices."""
    make_run(str(tmp_path / "out"), many(0), many(4))
    assert run(tmp_path / "out", tmp_path / "alone", "--select.min_area", "0.006") == 0
    write, to = storage.write_bytes, tmp_path / "to"
    begun: list[str] = []

    def overtaken(location: str, data: bytes) -> None:
        write(location, data)
        if "part-0" in location and location.endswith("objects") and not begun:
            begun.append(location)
            (to / "export" / "state.json").unlink()  # as if both had looked at one moment
            assert run(tmp_path / "out", to, "--select.min_area", "0.006") == 0

    monkeypatch.setattr(storage, "write_bytes", overtaken)
    assert run(tmp_path / "out", to) == 2
    assert "holds another export (with another select)" in said(capsys)
    assert read(to) == read(tmp_path / "alone")


def test_what_was_refused_may_be_tried_with_other_settings_in_the_same_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(str(tmp_path / "out"), many(0))
    assert run(tmp_path / "out", tmp_path / "to", "--select.score", "0.9") == 2
    assert "no mask is left" in said(capsys)
    assert run(tmp_path / "out", tmp_path / "to", "--select.score", "0.2") == 0


def test_a_file_that_somebody_has_deleted_is_written_again(tmp_path: Path) -> None:
    make_run(str(tmp_path / "out"), many(0))
    assert run(tmp_path / "out", tmp_path / "to") == 0
    before = read(tmp_path / "to")
    (tmp_path / "to" / "instances.json").unlink()
    assert run(tmp_path / "out", tmp_path / "to") == 0
    assert read(tmp_path / "to") == before


def test_files_of_shards_that_are_gone_are_not_left_among_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(str(tmp_path / "out"), many(0), many(4))
    assert run(tmp_path / "out", tmp_path / "to", format="hf") == 0
    commit = sorted((tmp_path / "out" / "commits").iterdir())[1]
    commit.unlink()
    for _ in range(2):
        capsys.readouterr()
        assert run(tmp_path / "out", tmp_path / "to", format="hf") == 2
        assert f"files of 1 shards that the run no longer has ({commit.stem})" in said(capsys)


def test_sigterm_is_answered_in_words(tmp_path: Path) -> None:
    make_run(str(tmp_path / "out"), *(many(4 * number) for number in range(30)))
    places = ["--predictions", str(tmp_path / "out"), "--output", str(tmp_path / "to")]
    command = [sys.executable, "jobs/export.py", "semantic", *places, "--semantic.level", "own"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "to" / "masks").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    stopping, stopped = errors.splitlines()
    assert stopping == "Stopping, as told"
    assert stopped == "export.py semantic: stopped; the same command goes on"
    assert run(tmp_path / "out", tmp_path / "to", "--semantic.level", "own", format="semantic") == 0
    assert len(list((tmp_path / "to" / "masks").iterdir())) == 120
