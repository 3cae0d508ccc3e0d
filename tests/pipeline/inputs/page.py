"""What is made of every kind of input: `python -m tests.pipeline.inputs.page` writes the table.

Each row is an example that the readers are given; the last column is what they make of it.
"""

from __future__ import annotations

import io
import re
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

from tests.pipeline.inputs.page_files import files, places, truths, weights
from tests.pipeline.inputs.page_samples import images, members, prompts

PAGE = Path(__file__).parents[3] / "docs" / "inputs.md"
BLOCK = re.compile(r"(<!-- inputs: begin.*?-->\n).*?(<!-- inputs: end -->)", re.DOTALL)
HEADER = "| what | example | what is made of it |\n|---|---|---|\n"


def table() -> str:
    """All rows, as the page has them."""
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        made = [*members(Path(folder)), *images(), *prompts(), *files(Path(folder))]
        made += [*truths(Path(folder)), *weights(Path(folder)), *places(Path(folder))]
    return HEADER + "".join(
        f"| {what} | {example} | {result} |\n" for what, example, result in made
    )


if __name__ == "__main__":
    text = PAGE.read_text()
    PAGE.write_text(BLOCK.sub(lambda found: found[1] + table() + found[2], text))
