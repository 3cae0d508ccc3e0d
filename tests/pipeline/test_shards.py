"""Which shards patterns stand for, and what they are called."""

import hashlib
from pathlib import Path

import pytest

from pipeline.shards import Shard, find_shards

# --- names


def test_the_name_is_the_base_name_and_the_hash_of_the_location(tmp_path: Path) -> None:
    path = tmp_path / "photos-00001.tar"
    path.write_bytes(b"")
    (shard,) = find_shards([str(path)])
    assert shard.uri == str(path)
    assert shard.name == f"photos-00001-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"


def test_a_known_name_never_changes() -> None:
    assert Shard("", "s3://bucket/a/x-0001.tar", 0).name == "x-0001-88c3c30d"


def test_the_way_to_a_shard_is_not_part_of_its_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.tar").write_bytes(b"12")
    monkeypatch.chdir(tmp_path)
    ways = [
        "a/x.tar",
        "./a/../a/x.tar",
        str(tmp_path / "a" / "x.tar"),
        f"file://{tmp_path}/a/x.tar",
    ]
    shards = [find_shards([way])[0] for way in ways]
    assert {(shard.name, shard.size) for shard in shards} == {(shards[0].name, 2)}
    assert len(find_shards(ways)) == 1


def test_data_can_move_with_an_input_root(tmp_path: Path) -> None:
    names = []
    for place in ("here", "there"):
        (tmp_path / place / "a").mkdir(parents=True)
        (tmp_path / place / "a" / "x.tar").write_bytes(b"")
        (shard,) = find_shards([str(tmp_path / place) + "/a"], input_root=str(tmp_path / place))
        assert shard.uri == "a/x.tar"
        names.append(shard.name)
    assert names[0] == names[1]


def test_an_input_root_ends_at_a_folder(tmp_path: Path) -> None:
    (tmp_path / "data-2").mkdir()
    (tmp_path / "data-2" / "x.tar").write_bytes(b"")
    (shard,) = find_shards([str(tmp_path / "data-2")], input_root=str(tmp_path / "data"))
    assert shard.uri == str(tmp_path / "data-2" / "x.tar")


# --- which shards


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("s-000.tar", "s-001.tar", "s-010.tar", "notes.txt"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "s-002.tar").write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("s-{000..001}.tar", ["s-000.tar", "s-001.tar"]),
        ("s-{010,000}.tar", ["s-010.tar", "s-000.tar"]),
        ("s-*.tar", ["s-000.tar", "s-001.tar", "s-010.tar"]),
        ("s-00?.tar", ["s-000.tar", "s-001.tar"]),
        ("s-0[1]0.tar", ["s-010.tar"]),
        ("*/s-*.tar", ["s-002.tar"]),
        ("", ["s-000.tar", "s-001.tar", "s-010.tar"]),
        ("{s-000.tar,deeper}", ["s-000.tar", "s-002.tar"]),
        ("{s-{000,001},deeper/s-002}.tar", ["s-000.tar", "s-001.tar", "s-002.tar"]),
    ],
)
def test_patterns_are_expanded_in_order(folder: Path, pattern: str, names: list[str]) -> None:
    found = find_shards([f"{folder}/{pattern}"])
    assert [Path(shard.location).name for shard in found] == names


def test_a_list_names_patterns_line_by_line(folder: Path) -> None:
    lines = ["# the first two", f"{folder}/s-{{000..001}}.tar", "", f"  {folder}/deeper"]
    (folder / "list.txt").write_text("\n".join(lines))
    found = find_shards([f"@{folder}/list.txt"])
    assert [Path(shard.location).name for shard in found] == ["s-000.tar", "s-001.tar", "s-002.tar"]


@pytest.mark.parametrize("pattern", ["s-{000..002}.tar", "x*.tar", "empty", "no/such.tar"])
def test_a_pattern_that_matches_nothing_is_named(folder: Path, pattern: str) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"--input .*: no shard at "):
        find_shards([f"{folder}/{pattern}"])


def test_a_missing_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"list\.txt"):
        find_shards([f"@{tmp_path}/list.txt"])


def test_a_brace_that_is_never_closed_is_part_of_a_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"a\{0"):
        find_shards([f"{tmp_path}/a{{0..1.tar"])
    (tmp_path / "a{0..1.tar").write_bytes(b"")
    assert len(find_shards([f"{tmp_path}/a{{0..1.tar"])) == 1
