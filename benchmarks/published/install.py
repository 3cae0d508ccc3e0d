"""An interpreter with the published package, kept outside this repository."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

PINS = ("legrad-torch==1.1", "open_clip_torch==2.23.0")


def default_folder() -> Path:
    """Where the interpreter is made and looked for: in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "legrad-annotate" / "published"


def python_in(folder: Path) -> Path:
    """The interpreter of a virtual environment."""
    return folder / "bin" / "python"


def install(folder: Path) -> Path:
    """Make a virtual environment with the published package and our PyTorch in it."""
    torch = [f"{name}=={version(name).split('+')[0]}" for name in ("torch", "torchvision")]
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(python_in(folder)), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "--disable-pip-version-check", *torch, *PINS], check=True)
    return python_in(folder)


def find(given: str | None) -> Path:
    """The interpreter to use: the one given, else LEGRAD_PUBLISHED, else the one in the cache.

    Raises:
        FileNotFoundError: there is none; the message says how to get it.
    """
    named = given or os.environ.get("LEGRAD_PUBLISHED")
    python = Path(named) if named else python_in(default_folder())
    if not python.exists():
        raise FileNotFoundError(
            f"no interpreter with the published package at {python}: `make published` makes one in "
            f"{default_folder()}, --published or LEGRAD_PUBLISHED names another"
        )
    return python
