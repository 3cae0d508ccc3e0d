"""The command."""

import pytest

from jobs import export


def test_without_a_format_the_commands_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert export.main(["--help"]) == 0
    assert export.main(["cocoa"]) == 2
    assert export.main([]) == 0
    listed = "Commands: coco, coco-results, semantic, hf, webdataset, yolo, validate"
    assert capsys.readouterr().out.count(listed) == 3


@pytest.mark.parametrize("name", [*export.FORMATS, "validate"])
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        export.main([name, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert ("--file FILE" if name == "validate" else "--select.score") in said


@pytest.mark.parametrize("name", export.FORMATS)
def test_every_format_needs_a_run_and_a_place(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export.main([name]) == 2
    assert f"export.py {name}: --predictions and --output are needed" in capsys.readouterr().err
