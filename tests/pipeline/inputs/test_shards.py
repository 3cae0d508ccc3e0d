"""Which shards patterns stand for, and what they are called."""

import hashlib
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline import storage
from pipeline.errors import ConfigError
from pipeline.inputs import patterns, shards
from pipeline.inputs.shards import Shard, find_shards

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
    with pytest.raises(ConfigError, match=r"--input .*: no shard at "):
        find_shards([f"{folder}/{pattern}"])


def test_a_missing_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--input @.*list\.txt: not usable"):
        find_shards([f"@{tmp_path}/list.txt"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"caf\xe9.tar", "the list is not UTF-8 text"),
        (b"@{here}", "the list @.* names itself"),
        (b"@{here}/../more.txt", "the list @.* names itself"),
        (b"", "no shard is named"),
        (b"# later\n\n", "no shard is named"),
        (b"a\n{0..9999999}.tar", "more than 10,000,000 names"),
    ],
)
def test_a_list_that_is_none(
    tmp_path: Path, content: bytes, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if b"9999" in content:
        monkeypatch.setattr(patterns, "MOST_NAMES", 10)
        message = "more than 10 names"
    path = tmp_path / "list.txt"
    path.write_bytes(content.replace(b"{here}/..", bytes(tmp_path)).replace(b"{here}", bytes(path)))
    (tmp_path / "more.txt").write_text(f"@{path}")
    with pytest.raises(ConfigError, match=message) as caught:
        find_shards([f"@{path}"])
    assert str(caught.value).startswith("--input") and "\n" not in str(caught.value)


@pytest.mark.parametrize("named", [[], [""]])
def test_no_pattern_is_no_shard(named: list[str]) -> None:
    with pytest.raises(ConfigError, match="--input: no shard is named"):
        find_shards(named)


def test_what_stands_behind_an_empty_default_counts(folder: Path) -> None:
    assert len(find_shards(["", f"{folder}/s-000.tar"])) == 1


@pytest.mark.parametrize(
    "pattern",
    [
        "a-{00000..99999999999}.tar",
        "{0..9999}{0..9999}",
        "{x{0..9999}{0..9999},y}.tar",
        "{{0..99999999999}",
    ],
)
def test_too_many_names_are_refused_at_once(pattern: str) -> None:
    with pytest.raises(ConfigError, match=r"stands for more than 10,000,000 names"):
        find_shards([pattern])


def test_a_list_in_brackets_that_is_none_gets_a_hint(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="quotes around what begins with @"):
        find_shards([f"[{tmp_path}/a.tar, @{tmp_path}/list.txt]"])


def test_a_search_for_what_is_not_there_ends(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "ENOUGH_MISSING", 3)
    message = r"at least 3 of 1,000 names have no shard, the first .*s-002\.tar$"
    with pytest.raises(ConfigError, match=message):
        find_shards([f"{folder}/s-{{000..999}}.tar"])


def test_a_brace_that_is_never_closed_is_part_of_a_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a\{0"):
        find_shards([f"{tmp_path}/a{{0..1.tar"])
    (tmp_path / "a{0..1.tar").write_bytes(b"")
    assert len(find_shards([f"{tmp_path}/a{{0..1.tar"])) == 1


# --- at what price


@pytest.fixture
def tars(bucket: Any) -> Any:
    """Five shards in the bucket's folder `in`, a note and a folder of two more."""
    for name in (*(f"{i}.tar" for i in range(5)), "notes.txt", "more/5.tar", "more/6.tar"):
        bucket.put_object(Bucket="data", Key=f"in/{name}", Body=name.encode())
    return bucket


def names(found: list[Shard]) -> list[str]:
    return [shard.uri.removeprefix("s3://data/in/") for shard in found]


def test_a_directory_of_many_names_is_listed(
    tars: Any, requests: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "LISTED_FROM", 4)
    found = find_shards(["s3://data/in/{4,{0..2}}.tar"])
    assert names(found) == ["4.tar", "0.tar", "1.tar", "2.tar"]
    assert {shard.size for shard in found} == {5}
    assert len(requests) == 1 and "list-type=2" in requests[0]


def test_few_names_are_looked_up_one_by_one(tars: Any, requests: list[str]) -> None:
    assert names(find_shards(["s3://data/in/{4,0}.tar"])) == ["4.tar", "0.tar"]
    assert sorted(line.split()[:2] for line in requests) == [
        ["HEAD", "/data/in/0.tar"],
        ["HEAD", "/data/in/4.tar"],
    ]


def test_what_a_listing_does_not_have_is_looked_up(
    tars: Any, requests: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shards, "LISTED_FROM", 3)
    lines = ["s3://data/in/{0..2}.tar", "s3://data/in/more", "s3://data/in/[34].tar"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    expected = ["0.tar", "1.tar", "2.tar", "more/5.tar", "more/6.tar", "3.tar", "4.tar"]
    assert names(find_shards([f"@{tmp_path}/list.txt"])) == expected


@pytest.mark.parametrize("listed_from", [1, 1000])
def test_missing_names_are_counted_and_the_first_is_named(
    tars: Any, monkeypatch: pytest.MonkeyPatch, listed_from: int
) -> None:
    monkeypatch.setattr(shards, "LISTED_FROM", listed_from)
    at = r"^--input s3://data/in/\{3\.\.%d\}\.tar: "
    with pytest.raises(ConfigError, match=at % 5 + r"no shard at s3://data/in/5\.tar$"):
        find_shards(["s3://data/in/{3..5}.tar"])
    message = at % 8 + r"4 of 6 names have no shard, the first s3://data/in/5\.tar$"
    with pytest.raises(ConfigError, match=message):
        find_shards(["s3://data/in/{3..8}.tar"])


def test_a_directory_that_may_not_be_listed_can_still_be_read(
    tars: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(directory: str) -> dict[str, int]:
        raise PermissionError(directory)

    monkeypatch.setattr(shards, "LISTED_FROM", 1)
    monkeypatch.setattr(storage, "list_files", refuse)
    assert names(find_shards(["s3://data/in/{0..2}.tar"])) == ["0.tar", "1.tar", "2.tar"]


def test_a_web_server_is_asked_several_things_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(shards.LOOKUPS, timeout=30)

    def find(location: str, suffix: str) -> dict[str, storage.Found]:
        together.wait()
        time.sleep(0.01 * (location[-5] == "0"))  # the order is that of the pattern all the same
        return {location: storage.Found(1, "")}

    monkeypatch.setattr(shards, "LISTED_FROM", 1)
    monkeypatch.setattr(storage, "find", find)
    found = find_shards([f"https://host/{{00..{shards.LOOKUPS - 1}}}.tar"])
    assert [shard.uri[-6:-4] for shard in found] == [f"{i:02}" for i in range(shards.LOOKUPS)]


# --- names of every kind


def test_a_number_sign_is_a_letter(tmp_path: Path) -> None:
    for run in ("run#1", "run#2"):
        (tmp_path / run).mkdir()
        (tmp_path / run / "0.tar").write_bytes(b"")
    for root in (str(tmp_path), f"file://{tmp_path}"):
        first, second = find_shards([f"{root}/run#1/0.tar", f"{root}/run#2/0.tar"])
        assert first.name != second.name and first.uri.endswith("run#1/0.tar")
        assert len(find_shards([f"{root}/run#*/*.tar"])) == 2


def test_what_is_hidden_is_found_only_by_its_name(tmp_path: Path) -> None:
    for name in ("a.tar", "._a.tar", ".b.tar"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "c.tar").write_bytes(b"")

    def names(pattern: str) -> list[str]:
        return [Path(shard.uri).name for shard in find_shards([f"{tmp_path}/{pattern}"])]

    assert names("") == names("*.tar") == ["a.tar"]
    assert names(".*.tar") == ["._a.tar", ".b.tar"]
    assert names(".git/*.tar") == names(".g*/*.tar") == ["c.tar"]
    with pytest.raises(ConfigError, match="no shard at"):
        names("*/*.tar")


@pytest.mark.parametrize("pattern", ["", "*.tar", "?.tar", "b.tar"])
def test_a_link_to_nothing_is_named(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "a.tar").write_bytes(b"")
    (tmp_path / "b.tar").symlink_to(tmp_path / "gone.tar")
    with pytest.raises(ConfigError, match=r"b\.tar"):
        find_shards([f"{tmp_path}/{pattern}"])


def test_brackets_in_a_name_get_a_hint(tmp_path: Path) -> None:
    (tmp_path / "a [1]").mkdir()
    (tmp_path / "a [1]" / "0.tar").write_bytes(b"")
    assert len(find_shards([f"{tmp_path}/a [1]"])) == 1
    assert len(find_shards([f"{tmp_path}/a [1]/0.tar"])) == 1
    assert len(find_shards([f"{tmp_path}/a [[]1]/*.tar"])) == 1
    with pytest.raises(ConfigError, match=r"where a name has a \[, write \[\[\]"):
        find_shards([f"{tmp_path}/a [1]/*.tar"])


def test_a_list_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"")
    (tmp_path / "list.txt").write_text(f"{tmp_path}/a.tar\n", encoding="utf-8-sig")
    assert len(find_shards([f"@{tmp_path}/list.txt"])) == 1


@pytest.mark.parametrize("stem", ["x" * 250, "ü" * 120, "☃" * 80, "x" * 300])
def test_names_that_are_written_have_a_bounded_length(tmp_path: Path, stem: str) -> None:
    name = Shard("", f"s3://bucket/{stem}.tar", 0).name
    other = Shard("", f"s3://bucket/{stem}x.tar", 0).name
    assert name != other and stem.startswith(name.rpartition("-")[0])
    storage.write_bytes(str(tmp_path / "out" / f"{name}.parquet"), b"")


@pytest.mark.parametrize(
    "pattern",
    [
        "s3://key:hush@none/{a,b}.tar?endpoint_override=127.0.0.1:1",
        "http://user:hush@127.0.0.1:1/a.tar?signature=hush",
        "http://user:hush@127.0.0.1:1/{0..99999999}.tar?signature=hush",
        "@http://user:hush@127.0.0.1:1/list.txt?signature=hush",
    ],
)
def test_no_message_has_a_secret_of_a_location(pattern: str) -> None:
    with pytest.raises(ConfigError) as raised:
        find_shards([pattern])
    assert "hush" not in str(raised.value)
