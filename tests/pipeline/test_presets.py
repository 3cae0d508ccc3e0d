"""Named bundles of settings, from Python and at the command line."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest
import yaml

from jobs import annotate
from pipeline.cli import parse
from pipeline.config import AnnotateConfig, MaskConfig, PromptConfig, RunConfig
from pipeline.config.presets import PRESETS, Preset, expand
from pipeline.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Configured(AnnotateConfig):
    PRESETS: ClassVar[Mapping[str, Preset]] = {
        "plain": {},
        "some": {"layers": [2, 3], "mask.threshold": 0.4, "mask.min_area": 5.0},
    }


def configure(*arguments: str) -> Configured:
    return parse(Configured, "command", "About.", arguments)


def write(folder: Path, **settings: object) -> str:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(settings))
    return str(path)


def test_a_preset_is_its_settings(capsys: pytest.CaptureFixture[str]) -> None:
    expected = Configured(layers=[2, 3], mask=MaskConfig(threshold=0.4, min_area=5.0))
    assert configure("--preset", "some") == expected
    told = "command: preset some: layers [2, 3], mask.threshold 0.4, mask.min_area 5.0\n"
    assert capsys.readouterr().out == told


def test_what_it_expands_to_is_what_a_run_is_known_by() -> None:
    chosen = configure("--preset", "some")
    spelled = configure(
        *("--layers", "[2, 3]", "--mask.threshold", "0.4", "--mask.min_area", "5"),
    )
    assert chosen.fingerprint() == spelled.fingerprint()
    assert chosen.public() == spelled.public()
    assert chosen.public()["mask"]["threshold"] == 0.4
    assert chosen.fingerprint() != configure().fingerprint()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--preset", "some", "--mask.threshold", "0.3"),
        ("--mask.threshold", "0.3", "--preset", "some"),
        ("--mask.threshold=0.3", "--preset=some"),
    ],
)
def test_a_flag_beats_it_wherever_it_stands(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert configure(*arguments).mask == MaskConfig(threshold=0.3, min_area=5.0)
    assert capsys.readouterr().out.endswith("; but mask.threshold 0.3\n")


def test_a_flag_at_the_default_beats_it() -> None:
    assert configure("--preset", "some", "--mask.threshold", "0.5").mask.threshold == 0.5


@pytest.mark.parametrize("last", [True, False])
def test_a_file_beats_it_wherever_it_stands(tmp_path: Path, last: bool) -> None:
    preset = ("--preset", "some")
    file = ("--config", write(tmp_path, layers=1, mask={"threshold": 0.2}))
    config = configure(*preset, *file) if last else configure(*file, *preset)
    assert (config.layers, config.mask) == (1, MaskConfig(threshold=0.2, min_area=5.0))


def test_a_file_may_name_it(tmp_path: Path) -> None:
    path = write(tmp_path, preset="some", mask={"min_area": 7})
    assert configure("--config", path).mask == MaskConfig(threshold=0.4, min_area=7.0)
    assert configure("--config", path, "--preset", "plain").mask == MaskConfig(min_area=7.0)


def test_an_unknown_one_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert annotate.main(["--preset", "nonsense"]) == 2
    line = "annotate.py: --preset nonsense: there is paper, balanced, fine, "
    line += "balanced_contrast, fine_contrast\n"
    assert capsys.readouterr() == ("", line)
    with pytest.raises(ConfigError, match=r"did you mean some\?"):
        configure("--preset", "smoe")


def test_commands_without_presets_do_not_know_the_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(RunConfig, "command", "About.", ["--preset", "paper"])
    assert caught.value.code == 2
    assert "--preset" in capsys.readouterr().err


def test_paper_changes_nothing() -> None:
    chosen = parse(AnnotateConfig, "command", "About.", ["--preset", "paper"])
    assert chosen == AnnotateConfig() == expand("paper", AnnotateConfig)
    assert chosen.fingerprint() == AnnotateConfig().fingerprint()


@pytest.mark.parametrize("name", PRESETS)
def test_python_and_the_command_line_say_the_same(name: str) -> None:
    chosen = parse(AnnotateConfig, "c", "", ["--preset", name, "--mask.min_area", "9"])
    assert chosen == expand(name, AnnotateConfig, **{"mask.min_area": 9.0})


def test_others_beat_it_in_python_too() -> None:
    config = expand("balanced", AnnotateConfig, output="out", **{"mask.threshold": 0.3})
    assert (config.output, config.mask.threshold) == ("out", 0.3)
    prompts = PromptConfig(top_k=3)
    assert expand("balanced", AnnotateConfig, prompts=prompts).prompts == prompts


def test_a_whole_group_may_not_hide_what_it_says() -> None:
    with pytest.raises(ConfigError, match="mask: beside preset balanced, give its settings one by"):
        expand("balanced", AnnotateConfig, mask=MaskConfig(min_area=3.0))
    with pytest.raises(ConfigError, match="--preset balnced: there is paper"):
        expand("balnced", AnnotateConfig)


def test_null_beats_it_where_null_is_a_value() -> None:
    found = configure("--preset", "some", "--layers", "null")
    assert (found.layers, found.mask.threshold) == (None, 0.4)
