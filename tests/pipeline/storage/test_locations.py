"""Paths and URIs, taken apart and put together."""

import os
from pathlib import Path

import pytest

from pipeline import storage


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("/a/b/../c.tar", "/a/c.tar"),
        ("file:///a/c.tar", "/a/c.tar"),
        ("s3://key:secret@bucket/a.tar?endpoint_override=127.0.0.1:5", "s3://bucket/a.tar"),
        ("https://user:pw@host:80/a.tar?token=1#x", "https://host:80/a.tar"),
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
