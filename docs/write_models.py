"""Write docs/models.md: which of open_clip's models LeGrad explains, `python docs/write_models.py`.

Image towers are built from their configurations on the meta device: nothing is downloaded, and no
memory is taken. Text towers are not built; some of them need a hub.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import open_clip
import torch
from jsonargparse import auto_cli
from open_clip.model import _build_vision_tower

import legrad
from legrad.errors import UnsupportedModelError
from legrad.towers.open import open_tower
from legrad.towers.tower import Tower
from pipeline.config.weights import of_tags

PAGE = Path(__file__).parents[1] / "docs" / "models.md"

WEIGHTS = Path(__file__).with_name("weights.md.txt")
"""The section on weights from files, as it is written by hand."""


@dataclass(frozen=True)
class Finding:
    """What is known about one model name.

    Attributes:
        name: as open_clip lists it.
        pooling: how its image is read, where it is supported.
        methods: the methods that explain it.
        reason: why it is refused; empty where it is supported.
    """

    name: str
    pooling: str = ""
    methods: tuple[str, ...] = ()
    reason: str = ""


def survey(names: Sequence[str]) -> list[Finding]:
    """What becomes of each name, in the order given."""
    return [_examine(name) for name in names]


def _examine(name: str) -> Finding:
    config = open_clip.get_model_config(name)
    with torch.device("meta"):
        visual = _build_vision_tower(config["embed_dim"], config["vision_cfg"])
    try:
        tower = open_tower(visual)
    except UnsupportedModelError as error:
        return Finding(name, reason=error.reason)
    methods = tuple(method for method in legrad.METHODS if _explains(method, visual))
    return Finding(name, _pooling(tower), methods)


def _explains(method: str, visual: torch.nn.Module) -> bool:
    try:
        legrad.build(method, visual, engine="autograd")  # which folds no weights
    except UnsupportedModelError:
        return False
    return True


def _pooling(tower: Tower) -> str:
    if tower.pooler is None:
        return "average" if tower.average else "CLS"
    return "map (SigLIP)" if tower.is_siglip else "first query (CoCa)"


def disagreements() -> dict[str, list[str]]:
    """What the tags of a name do not agree on, for every name of open_clip that has such tags."""
    found = {name: sorted(of_tags(name)[1]) for name in open_clip.list_models()}
    return {name: keys for name, keys in found.items() if keys}


def markdown(findings: Sequence[Finding]) -> str:
    """The page: a table of what is supported, and one of what is refused and why."""
    supported = [finding for finding in findings if not finding.reason]
    refused = [finding for finding in findings if finding.reason]
    kinds = {finding.pooling: finding.methods for finding in supported}
    lines = [
        "# Models",
        "",
        "Written by `python docs/write_models.py`, which builds the image tower of every name that "
        f"open_clip {open_clip.__version__} lists. {len(supported)} of {len(findings)} are "
        "supported. timm's vision transformers are explained as classifiers too, with or without "
        "registers and rotary positions, which LRP and its kin have no rule for.",
        "",
        "| read by | methods |",
        "|---|---|",
        *(f"| {kind} | {', '.join(kinds[kind])} |" for kind in sorted(kinds)),
        "",
        "## Supported",
        "",
        "| model | read by |",
        "|---|---|",
        *(f"| {finding.name} | {finding.pooling} |" for finding in supported),
        "",
        "## Refused",
        "",
        "| model | because |",
        "|---|---|",
        *(f"| {finding.name} | {finding.reason} |" for finding in refused),
        "",
        *WEIGHTS.read_text().splitlines(),
        *(f"| {name} | {', '.join(keys)} |" for name, keys in disagreements().items()),
        "",
    ]
    return "\n".join(lines)


def main(output: Path = PAGE) -> None:
    """Survey every model and write the page.

    Args:
        output: the file to write.
    """
    findings = survey(open_clip.list_models())
    output.parent.mkdir(exist_ok=True)
    output.write_text(markdown(findings))
    print(f"wrote {output}")


if __name__ == "__main__":
    sys.exit(auto_cli(main))
