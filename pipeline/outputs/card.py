"""README.md of an output: a Hugging Face data-set card, so that `load_dataset` finds the tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.config.weights import licence


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
    return card(TABLES, "Pseudo-masks", with_licence(TEXT, model))


def with_licence(text: str, model: Mapping[str, Any]) -> str:
    """The text of a card, and the licence of a model's weights behind it, if it has to be there."""
    terms = licence(str(model["name"]), str(model["pretrained"]))
    return f"{text}\n{terms}\n" if terms else text


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
