"""The words of the page about inputs."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from PIL import Image

from pipeline.errors import ConfigError, Reject, ShardError
from pipeline.inputs.samples import Rejected

Row = tuple[str, str, str]


def rejected(sample: Any) -> str:
    """Why a sample is, as the page says it."""
    assert isinstance(sample, Rejected)
    return f"rejected: `{sample.reason}`"


def outcome(ask: Callable[[], Any], hidden: str = "") -> str:
    """What a question is answered with, or refused, without the path of a file."""
    try:
        answer = ask()
    except Reject as reject:
        return f"rejected: `{reject.reason}`"
    except ShardError as error:
        return f"the shard fails: {error}"
    except ConfigError as error:
        text = str(error).replace(hidden, "…" if hidden and not hidden.endswith("/") else "")
        return "exit 2: " + text.replace("|", "\\|")
    return "accepted" if answer is True else str(answer)


def code(names: str) -> str:
    """Names, each in a code span."""
    return " ".join(f"`{name}`" for name in names.split())


def encoded(image: Image.Image, format: str) -> bytes:
    """An image in a format."""
    stream = io.BytesIO()
    image.save(stream, format)
    return stream.getvalue()
