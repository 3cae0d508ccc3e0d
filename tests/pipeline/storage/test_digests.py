"""Digests, which outputs of earlier versions are recognised by."""

from pathlib import Path

import pytest

from pipeline.storage import digests

OF_ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
"""sha256 of `abc`, from FIPS 180-2, appendix B.1."""


def test_a_digest_is_the_beginning_of_the_standard_s_example() -> None:
    assert digests.of_bytes(b"abc", digests.FULL) == OF_ABC
    assert digests.of_text("abc") == OF_ABC[:16]
    assert digests.of_parts([b"a", b"", b"bc"], 8) == OF_ABC[:8]


def test_a_file_has_the_digest_of_its_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "BLOCK", 2)
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert digests.of_file(str(path)) == OF_ABC[:16]


def test_a_folder_has_another_digest_when_a_file_in_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "one.png"
    path.write_bytes(b"abc")
    before = digests.of_folder(str(tmp_path))
    assert digests.of_folder(str(tmp_path)) == before
    path.write_bytes(b"abcd")
    assert digests.of_folder(str(tmp_path)) != before
