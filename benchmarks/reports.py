"""What a benchmark says in the end."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def report(text: str, results: dict[str, Any], file: Path | None) -> int:
    """Print the tables and write the figures."""
    print(f"\n{text}")
    if file is not None:
        file.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    return 0


def fail(reason: str) -> int:
    """Say in one line what is missing."""
    print(reason, file=sys.stderr)
    return 2
