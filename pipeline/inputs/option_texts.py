"""Class names where an option of a method takes texts: `--options '{background: imagenet}'`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import open_clip

from legrad.build import CONTRASTED
from pipeline.config import BACKGROUND, AnnotateConfig, MethodConfig
from pipeline.errors import ConfigError
from pipeline.inputs.classes import is_text, load_classes

IMAGENET = "imagenet"
LEAST = 2
"""Names of a background: less the mean of one name, that one is found nowhere."""

Config = TypeVar("Config", bound=MethodConfig)


def with_names(config: Config) -> Config:
    """The settings with the names themselves wherever something stands for them.

    So a fingerprint holds what was read, and workers need not find the file.

    Raises:
        ConfigError: what stands there is not as `read_names` wants it.
    """
    read = _given(config)
    return replace(config, options=config.options | read) if read else config


def names_of(config: MethodConfig) -> dict[str, list[str]]:
    """The names of every option with texts.

    A method that contrasts a text with others takes all classes of the run's class file where no
    option says which.

    Raises:
        ConfigError: a value is not as `read_names` wants it, or there is nothing to contrast with.
        FileNotFoundError: there is no such class file.
    """
    read = _given(config)
    if config.method != CONTRASTED:
        return read
    if BACKGROUND not in read and config.class_file:
        read[BACKGROUND] = [category.name for category in load_classes(config.class_file)]
    count = len(set(read.get(BACKGROUND, ())))
    if count < LEAST:
        own = "--prompts.classes, or " if isinstance(config, AnnotateConfig) else ""
        raise ConfigError(
            f"--method {config.method} needs the names of other classes to contrast with, and has "
            f"{count or 'none'}: give {own}--options '{{{BACKGROUND}: classes.yaml}}'"
        )
    return read


def _given(config: MethodConfig) -> dict[str, list[str]]:
    return {option: read_names(option, config.options[option]) for option in config.text_options()}


def read_names(option: str, value: Any) -> list[str]:
    """The names that an option's value stands for.

    Args:
        option: for messages.
        value: `imagenet` for the 1000 names of open_clip, a class file, or the names.

    Raises:
        ConfigError: it is nothing of the kind, or the class file is wrong.
    """
    if isinstance(value, list) and value and all(map(is_text, value)):
        return value
    if value == IMAGENET:
        return list(open_clip.IMAGENET_CLASSNAMES)
    if isinstance(value, str):
        try:
            return [category.name for category in load_classes(value, f"--options {option}")]
        except OSError as error:
            raise _neither(option, value) from error
    raise _neither(option, value)


def _neither(option: str, value: Any) -> ConfigError:
    shown = repr(value) if len(repr(value)) <= 80 else f"{repr(value)[:80]}…"
    return ConfigError(
        f"--options {option}: {shown} is neither {IMAGENET}, nor a class file that is there, nor a "
        "list of names"
    )
