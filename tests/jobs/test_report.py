"""The command that writes a report."""

from pathlib import Path

import pytest

from jobs import report

OLD = Path(__file__).parents[1] / "reference" / "version_1"


def test_the_page_is_written_and_named_and_missing_images_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report.main(["--predictions", str(OLD), "--output", str(tmp_path)]) == 0
    note, look = capsys.readouterr().out.splitlines()
    assert note.startswith("No pictures of images in shard demo-00001-")
    assert look == f"Look at {tmp_path / 'report.html'}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--predictions and --output are needed"),
        (["--predictions", "nothing/here", "--output", "x"], "no annotation run has committed"),
        (["--predictions", str(OLD), "--output", "x", "--images", "none.tar"], "--images none.tar"),
        (["--predictions", str(OLD), "--outptu", "x"], "did you mean output"),
    ],
)
def test_a_setting_that_cannot_work_is_one_line(
    flags: list[str], message: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    try:
        code = report.main(flags)
    except SystemExit as exit:
        code = exit.code
    said = capsys.readouterr().err.strip()
    assert code == 2 and message in said
    assert said.startswith("report.py: ") and "\n" not in said
