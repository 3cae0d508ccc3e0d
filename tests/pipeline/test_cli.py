"""Command lines and files of settings."""

from pathlib import Path

import pytest
import yaml

from pipeline.cli import parse
from pipeline.config import AnnotateConfig
from pipeline.errors import ConfigError


def configure(*arguments: str) -> AnnotateConfig:
    return parse(AnnotateConfig, "annotate.py", "Annotate.", arguments)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The message with which the command ends."""
    with pytest.raises(SystemExit) as caught:
        configure(*arguments)
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def write(folder: Path, **settings: object) -> str:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(settings))
    return str(path)


def test_nothing_gives_the_defaults() -> None:
    assert configure() == AnnotateConfig()


def test_every_flag_has_its_place() -> None:
    config = configure(
        *("--input", "a.tar", "--output", "out", "--mask.threshold", "0", "--mask.heat", "false"),
        *(
            "--engine.executor",
            "local",
            "--layers",
            "[0, 2]",
            "--prompts.templates",
            '["a {}", "{}"]',
        ),
        *("--salvage", "true", "--limit_samples", "5"),
    )
    assert (config.input, config.output, config.layers) == ("a.tar", "out", [0, 2])
    assert (config.mask.threshold, config.mask.heat) == (0.0, False)
    assert isinstance(config.mask.threshold, float)
    assert config.prompts.templates == ["a {}", "{}"]
    assert (config.engine.executor, config.salvage, config.limit_samples) == ("local", True, 5)


def test_input_may_be_several_patterns() -> None:
    assert configure("--input", "[a.tar, b.tar]").patterns == ["a.tar", "b.tar"]
    assert configure("--input", "s/{000..127}.tar").patterns == ["s/{000..127}.tar"]


def test_options_of_a_method_are_a_mapping() -> None:
    config = configure("--method", "gradcam", "--options", "{with_cls: false}", "--empty_text", "")
    assert (config.options, config.empty_text) == ({"with_cls": False}, "")


def test_flags_beat_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, output="from-file", mask={"threshold": 0.3, "min_area": 2})
    config = configure("--config", path, "--mask.threshold", "0.7")
    assert (config.output, config.mask.threshold, config.mask.min_area) == ("from-file", 0.7, 2.0)


@pytest.mark.parametrize(
    ("flag", "near"),
    [
        ("--mask.treshold", "mask.threshold"),
        ("--outptu", "output"),
        ("--engine.batchsize", "engine.batch_size"),
        ("--limit-samples", "limit_samples"),
    ],
)
def test_an_unknown_flag_is_answered_with_the_nearest(
    flag: str, near: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"did you mean {near}?" in refused(capsys, flag, "1")


@pytest.mark.parametrize(
    ("settings", "near"),
    [
        ({"mask": {"treshold": 0.5}}, "threshold"),
        ({"engine": {"batchsize": 1}}, "batch_size"),
        ({"outptu": "x"}, "output"),
    ],
)
def test_an_unknown_key_of_a_file_is_answered_with_the_nearest(
    settings: dict[str, object], near: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(capsys, "--config", write(tmp_path, **settings))
    assert f"did you mean {near}?" in message or f"did you mean --{near}?" in message


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--mask.threshold", "half"),
        ("--mask.rule", "median"),
        ("--engine.workers", "1.5"),
        ("--prompts.source", "labls"),
        ("--limit_shards", "all"),
    ],
)
def test_a_value_of_the_wrong_type_names_its_flag(
    flag: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(capsys, flag, value)
    assert flag.removeprefix("--") in message and value in message


@pytest.mark.parametrize(
    ("flag", "value", "says"),
    [
        ("--mask.threshold", "high", "a number"),
        ("--model.image_size", "big", "a whole number or null"),
        ("--engine.batch_size", "1.5", "a whole number"),
        ("--engine.executor", "slurm", "ray or local"),
        ("--options", "3", "a mapping, such as '{a: b}'"),
    ],
)
def test_a_value_of_the_wrong_type_is_told_what_it_has_to_be(
    capsys: pytest.CaptureFixture[str], flag: str, value: str, says: str
) -> None:
    message = refused(capsys, flag, value)
    assert message == f"annotate.py: {flag} {value}: has to be {says} (--help lists all)\n"


def test_a_missing_file_of_settings_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere.yaml" in refused(capsys, "--config", "nowhere.yaml")


def test_a_value_that_cannot_work_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"--mask\.threshold 1\.5"):
        configure("--mask.threshold", "1.5")


@pytest.mark.parametrize(
    "settings",
    [{"empty_text": None}, {"options": None}, {"mask": {"threshold": None}}, {"prompts": None}],
)
def test_null_is_refused_where_it_is_no_value(settings: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--[a-z._]+ null: needs a value") as caught:
        configure("--config", write(tmp_path, **settings))
    assert str(caught.value).startswith(f"--{next(iter(settings))}")


def test_null_is_kept_where_it_is_a_value(tmp_path: Path) -> None:
    path = write(tmp_path, layers=None, model={"image_size": None}, limit_shards=None)
    assert configure("--config", path) == AnnotateConfig()


def test_an_option_without_a_name_is_refused(tmp_path: Path) -> None:
    for arguments in (
        ("--options", "{1: 2}"),
        ("--config", write(tmp_path, options={1: 2})),
    ):
        with pytest.raises(ConfigError, match="--options: 1 is not a name"):
            configure(*arguments)


def test_the_printed_configuration_gives_the_same_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--input", "a", "--mask.threshold", "0.3", "--layers", "2", "--prompts.top_k", "7")
    with pytest.raises(SystemExit) as caught:
        configure(*arguments, "--print_config")
    assert caught.value.code == 0
    (tmp_path / "run.yaml").write_text(capsys.readouterr().out)
    assert configure("--config", str(tmp_path / "run.yaml")) == configure(*arguments)


def test_help_has_the_text_of_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        configure("--help")
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--mask.threshold" in text
    assert "A pixel is foreground where its heat, 0 to 1 over each map, exceeds this." in text
    assert "Take only the first samples of every shard." in text
