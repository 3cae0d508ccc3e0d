"""From a command line to a configuration."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from typing import Any, NoReturn, TypeVar

from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from legrad.errors import near
from pipeline import log
from pipeline.config import MethodConfig
from pipeline.config.presets import Preset, settings_of
from pipeline.errors import ConfigError, ModelError, StorageError, unwrapped, without_secrets
from pipeline.inputs.option_texts import with_names

Config = TypeVar("Config")
STDERR = 2
PRESET = "--preset"
STOPPING = log.Event("stopping", "Stopping, as told")
KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "list": "a list, such as '[a, b]'",
    "tuple": "a list, such as '[a, b]'",
    "dict": "a mapping, such as '{a: b}'",
    "NoneType": "null",
}
"""What values of these types are called."""


class ExitCode(IntEnum):
    """What a command's exit code says."""

    DONE = 0
    """Everything is committed or counted, or no more than --allow_failed shards are missing."""
    FINDINGS = 1
    """The file that was to be checked has faults."""
    BAD_SETTING = 2
    """A setting that cannot work, or the model does not load."""
    SHARDS_MISSING = 3
    """Finished, but shards failed; or the output could not be reached for too long."""
    STOPPED = 143
    """Told to stop; as shells have it for SIGTERM."""


def run_command(
    config: type[Config],
    command: str,
    description: str | None,
    arguments: Sequence[str] | None,
    run: Callable[[Config], ExitCode],
    *,
    goes_on: bool = True,
) -> ExitCode:
    """Read a command's settings and run it; what a user can mend is told in one line on stderr.

    Args:
        config: see `parse`, as the three that follow.
        command: its name.
        description: of it.
        arguments: None for those of the process.
        run: does the work; what it returns is the exit code, if it returns.
        goes_on: whether the same command goes on where it was stopped.
    """
    stop_when_terminated()
    with log.restored():
        try:
            return run(parse(config, command, description, arguments))
        except (ConfigError, ModelError, StorageError) as error:
            line = f"{command}: {without_secrets(str(error))}"
            cause = type(error).__name__
            log.say(log.Event("ended", line, "error", cause=cause), sys.stderr)
            away = isinstance(error, StorageError)
            return ExitCode.SHARDS_MISSING if away else ExitCode.BAD_SETTING
        except KeyboardInterrupt:
            then = "goes on" if goes_on else "begins again"
            line = f"{command}: stopped; the same command {then}"
            log.say(log.Event("stopped", line, "warning"), sys.stderr)
            return ExitCode.STOPPED


def stop_when_terminated() -> None:
    """From here on SIGTERM is what Ctrl-C is: the command says that it stops, and ends with 143.

    It says so at once, also where what it is doing takes longer to be left.
    """

    def stop(*_: object) -> NoReturn:
        line = log.as_line(STOPPING, "warning") if log.as_objects() else STOPPING
        os.write(STDERR, f"{line}\n".encode())  # print might be in the middle of a line
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():  # no other may set a handler
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)


def parse(
    config: type[Config], command: str, description: str | None, arguments: Sequence[str] | None
) -> Config:
    """The configuration that the arguments, and the file that --config names, ask for.

    Exits with 2 and a line on stderr for an unknown setting or a value of the wrong type.

    Args:
        config: a dataclass; every field is a dotted flag, its docstring the help text. One with
            `PRESETS` also has --preset, whose settings all others beat.
        command: name of the command, for messages.
        description: of the command; the first line is shown.
        arguments: None for those of the process.

    Raises:
        ConfigError: a value that the dataclass itself refuses, null where that is no value, a key
            that is no text, or a preset that there is not.
    """
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    summary = (description or "").partition("\n")[0]
    parser = _Parser(prog=command, description=summary, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="YAML file of settings; flags beat it")
    parser.add_class_arguments(config)
    presets: Mapping[str, Preset] = getattr(config, "PRESETS", {})
    if presets:
        parser.add_argument(PRESET, type=str, help=f"settings to start from: {', '.join(presets)}")
    given = parser.with_values(list(sys.argv[1:] if arguments is None else arguments))
    parsed = parser.parse_args(given)
    log.use(parsed.get("log", "text"))
    chosen = parsed.get("preset")
    defaults = parser.get_defaults()
    if chosen is not None:
        # As defaults, they come before every flag and every value of a file, wherever it stands.
        parser.set_defaults(dict(settings_of(chosen, presets)))
        parsed = parser.parse_args(given)
        log.use(parsed.get("log", "text"))
        log.say(f"{command}: {_told(chosen, presets[chosen], parsed)}")
    _check_values(parsed, defaults)
    settings = vars(parser.instantiate(parsed))
    for name in ("config", "preset"):
        settings.pop(name, None)
    made = config(**settings)
    return with_names(made) if isinstance(made, MethodConfig) else made


def _told(name: str, preset: Preset, parsed: Namespace) -> str:
    """What a preset says, and what other settings say instead."""
    says = ", ".join(f"{key} {value}" for key, value in preset.items()) or "the defaults"
    others = [f"{key} {parsed[key]}" for key, value in preset.items() if parsed[key] != value]
    return f"preset {name}: {says}" + (f"; but {', '.join(others)}" if others else "")


class _Parser(ArgumentParser):
    """Answers a setting that does not exist with the nearest one that does."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        known = {action.dest for action in self._actions}
        for flag, key in re.findall(r"--([\w.-]+)|[Oo]ption '([\w.-]+)'", message):
            # A file's key comes without its group, so that it is compared with last names too.
            names = known if flag else {name.rpartition(".")[2]: name for name in known}
            if (flag or key) not in names:
                message += near(flag or key, names)
        print(f"{self.prog}: {_plain(unwrapped(message))} (--help lists all)", file=sys.stderr)
        sys.exit(2)

    def with_values(self, arguments: list[str]) -> list[str]:
        """The arguments, with `true` behind switches that stand alone: `--dry_run`."""
        switches = {f"--{action.dest}" for action in self._actions if _is_switch(action)}
        completed: list[str] = []
        for position, argument in enumerate(arguments):
            completed.append(argument)
            following = arguments[position + 1 : position + 2]
            if argument in switches and not (following and following[0] in ("true", "false")):
                completed.append("true")
        return completed


def _check_values(settings: Namespace, defaults: Namespace) -> None:
    """Refuse what the parser lets through: null for what has another default, keys of no text."""
    for name, value in settings.items():
        for key in value if isinstance(value, dict) else ():
            if not isinstance(key, str):
                raise ConfigError(f"--{name}: {key!r} is not a name; give {{name: value}}")
        if value is None and defaults.get(name) is not None:
            raise ConfigError(f"--{name} null: needs a value; leave it out for the default")


def _plain(message: str) -> str:
    """What the parser says of a value of another type, in the words of settings."""
    found = re.search(r'Parser key "([\w.]+)": .*(?:Got value|Given value): (.*)', message)
    kinds = re.findall(r"Expected (?:a )?(?:<class '(\w+)'>|typing\.Literal\[(.*?)\])", message)
    if not found or not kinds:
        return message
    wanted = [
        KINDS.get(kind, kind) or choices.replace("'", "").replace(", ", " or ")
        for kind, choices in kinds
    ]
    return f"--{found[1]} {found[2]}: has to be {' or '.join(dict.fromkeys(wanted))}"


def _is_switch(action: Any) -> bool:
    return getattr(action, "_typehint", None) is bool
