"""Make the shard with sounds: `python -m pipeline.demo.heard`.

The first scenes of the bundle, as its first shard has them, each with the sounds of what is in it.
Nothing is drawn or encoded anew, so that the bytes are the same wherever it is made.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from jsonargparse import auto_cli

from pipeline.demo.bundle import write_tar
from pipeline.demo.timbres import SOUNDS, file_name
from pipeline.inputs.tars import read_samples
from pipeline.models.demo import ASSETS

FIRST_SHARD = ASSETS / "shards" / "demo-00000.tar"
HEARD_SHARD = ASSETS / "demo-heard.tar"
"""Not among the shards, all of which `make demo` annotates."""
SCENES = 16


def write(output: Path = HEARD_SHARD) -> None:
    """Write the shard.

    Args:
        output: the .tar to write.
    """
    write_tar(output, _members())


def _members() -> Iterator[tuple[str, bytes]]:
    """Of each scene the image, the names of what is in it, and a sound for each name, in order."""
    with FIRST_SHARD.open("rb") as stream:
        for sample in islice(read_samples(stream), SCENES):
            for field in ("jpg", "json"):
                yield f"{sample.key}.{field}", sample.fields[field]
            for name in json.loads(sample.fields["json"])["labels"]:
                sound = file_name(name)
                yield f"{sample.key}.{sound}", (SOUNDS / sound).read_bytes()


if __name__ == "__main__":
    auto_cli(write)
