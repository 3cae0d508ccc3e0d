"""Paths and URIs, taken apart and put together."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import storage


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("/a/b/../c.tar", "/a/c.tar"),
        ("file:///a/c.tar", "/a/c.tar"),
        ("s3://key:secret@bucket/a.tar?endpoint_override=127.0.0.1:5", "s3://bucket/a.tar"),
        ("https://user:pw@host:80/a.tar?token=1#x", "https://host:80/a.tar"),
        ("s3://bucket/run#1/0.tar", "s3://bucket/run#1/0.tar"),
        ("https://host/run#1/0.tar?x=1", "https://host/run#1/0.tar"),
        ("s3://bucket/a%20b ü.tar", "s3://bucket/a%20b ü.tar"),
        ("file:///a%20b/c%23.tar", "/a b/c#.tar"),
        ("file:///run#1/0.tar", "/run#1/0.tar"),
        ("/run#1/a%20b?.tar", "/run#1/a%20b?.tar"),
        ("~/a.tar", os.path.expanduser("~/a.tar")),
        ("./~/a.tar", os.path.abspath("~/a.tar")),
    ],
)
def test_normalise_keeps_what_identifies_the_data(location: str, expected: str) -> None:
    assert storage.normalise(location) == expected


def test_join_goes_before_the_query() -> None:
    assert (
        storage.join("s3://b/out?scheme=http", "a", "b.json") == "s3://b/out/a/b.json?scheme=http"
    )
    assert storage.join("out", "a", "b.json") == os.path.join("out", "a", "b.json")


@pytest.mark.parametrize(
    ("location", "directory", "name"),
    [
        ("s3://b/out/a.json?scheme=http", "s3://b/out?scheme=http", "a.json"),
        ("s3://b/a#1.tar", "s3://b", "a#1.tar"),
        ("out/a?.json", "out", "a?.json"),
        ("a.json", "", "a.json"),
    ],
)
def test_split_undoes_join(location: str, directory: str, name: str) -> None:
    assert storage.split(location) == (directory, name)


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("s3://key:secret@bucket/a?endpoint_override=127.0.0.1:5", "s3://bucket/a"),
        ("https://host/a.tar?token=1", "https://host/a.tar"),
        ("out/../a b", "out/../a b"),
    ],
)
def test_what_is_shown_of_a_location_has_no_secrets(location: str, shown: str) -> None:
    assert storage.public(location) == shown


def test_a_path_can_be_made_absolute_and_a_uri_is_so() -> None:
    assert storage.absolute("a/../b") == os.path.join(os.getcwd(), "b")
    assert storage.absolute("s3://key@bucket/a/../b") == "s3://key@bucket/a/../b"


@pytest.mark.parametrize(
    ("location", "folder", "inside"),
    [
        ("/a/b", "/a/b/", True),
        ("/a/b/c/../d", "/a/b", True),
        ("/a/bc", "/a/b", False),
        ("/a", "/a/b", False),
        ("s3://key:secret@data/out/x", "s3://data/out", True),
        ("s3://data/out-2", "s3://data/out", False),
    ],
)
def test_what_is_inside_of_a_folder(location: str, folder: str, inside: bool) -> None:
    assert storage.is_inside(location, folder) is inside


def test_people_see_paths_below_them_as_relative_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage.shown(str(tmp_path / "out" / "demo")) == "out/demo"
    assert storage.shown("/elsewhere/out") == "/elsewhere/out"
    assert storage.shown("s3://key:secret@data/out?x=1") == "s3://data/out"


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(
    lambda name: name not in (".", "..") and not set("/?") & set(name)
)


@given(folder=NAMES, name=NAMES)
@pytest.mark.parametrize("root", ["s3://key:secret@bucket", "http://host:1", "/data", "file:///d"])
def test_no_letter_of_a_name_is_lost(root: str, folder: str, name: str) -> None:
    """Of object stores, disks and web servers: a name is what was given, and no two are one."""
    location = storage.join(root, folder, name)
    assert storage.split(location)[1] == name
    assert storage.normalise(location).endswith(f"/{folder}/{name}")
    assert storage.normalise(storage.join(location, "x")).endswith(f"/{folder}/{name}/x")
