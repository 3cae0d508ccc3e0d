"""README.md of an output: a Hugging Face data-set card, so that `load_dataset` finds the tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.config.weights import IMAGEBIND, LICENCE


def card(tables: Mapping[str, str], title: str, text: str) -> bytes:
    """A card.

    Args:
        tables: name → pattern of its files, the default first.
        title: its heading.
        text: what follows.
    """
    configs = "".join(
        f"- config_name: {name}\n  data_files: {files}\n" for name, files in tables.items()
    )
    return f"---\nconfigs:\n{configs}---\n\n# {title}\n\n{text}".encode()


def annotations_card(model: Mapping[str, Any]) -> bytes:
    """The card of a run, with the licence of its weights where that binds what is made with them.

    Args:
        model: the settings of the run's model.
    """
    name, random = str(model["name"]), model["pretrained"] == "random"
    bound = name.startswith(IMAGEBIND) and not random
    return card(TABLES, "Pseudo-masks", f"{TEXT}\n{LICENCE}\n" if bound else TEXT)


TABLES = {
    "annotations": "annotations/*.parquet",
    "images": "images/*.parquet",
    "shards": "shards.parquet",
}
TEXT = """\
Made by a model, not by people: masks of what it was asked for, by the gradient of the similarity of
image and text. Their shapes are coarse, and a mask is there even where the thing is not: look at
`score`.

| table | a row per |
|---|---|
| `annotations` | mask: image, prompt, category, score, box, COCO run lengths |
| `images` | sample of the input, rejected ones and those without a mask too |
| `shards` | tar file that is done, and where it lies |

```python
from datasets import load_dataset
from pycocotools import mask

for row in load_dataset("PATH/OF/THIS/FOLDER", "annotations", split="train"):
    pixels = mask.decode(row["segmentation"])  # uint8 [height, width]
```

`run.json` has the settings, `categories.json` the ids.
"""
