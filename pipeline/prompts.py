"""What to look for in an image: from the sample's fields to text embeddings."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import open_clip
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pipeline.config import PromptConfig
from pipeline.models import Clip
from pipeline.rejects import Reject

TEXT_BATCH = 32
"""Rows of every text forward pass, padded when there are fewer: a text's embedding must not
depend on which other texts happen to be encoded with it."""


@dataclass(frozen=True)
class Prompt:
    """One thing to look for in one image.

    Attributes:
        index: position of the category among those of the sample, from 0.
        category: class name; None for a caption.
        text: what is stored as the prompt.
    """

    index: int
    category: str | None
    text: str


def read_prompts(fields: Mapping[str, bytes], config: PromptConfig) -> list[Prompt]:
    """The prompts of a sample, each class once, in the order of its list.

    Raises:
        Reject: `missing_field` or `bad_prompts`.
    """
    if "json" not in fields:
        raise Reject("missing_field", "no .json")
    try:
        content = json.loads(fields["json"])
    except ValueError as error:
        raise Reject("bad_prompts", f"the .json does not parse: {error}") from error
    if not isinstance(content, dict) or config.field not in content:
        raise Reject("missing_field", f"no {config.field!r} in the .json")
    names = content[config.field]
    if not isinstance(names, list) or not all(isinstance(n, str) and n.strip() for n in names):
        raise Reject("bad_prompts", f"{config.field!r} is not a list of class names")
    unique = dict.fromkeys(name.strip() for name in names)
    return [
        Prompt(index, name, config.templates[0].format(name)) for index, name in enumerate(unique)
    ]


class TextEncoder:
    """Embeds texts with a CLIP's text tower, each distinct one once."""

    def __init__(self, model: Clip, name: str, templates: Sequence[str]) -> None:
        """Take the tokenizer of the open_clip model called `name`."""
        self.model, self.templates = model, tuple(templates)
        self.tokenize: Callable[[list[str]], Tensor] = open_clip.get_tokenizer(name)
        self.known: dict[str, Tensor] = {}

    def __call__(self, prompts: Sequence[Prompt]) -> Float[Tensor, "prompt embed"]:
        """L2-normalised embeddings in float32 on the model's device.

        A class name is put into every template, and the embeddings are averaged and normalised
        again; a prompt without a class is encoded as it is.
        """
        spelled = [self._spellings(prompt) for prompt in prompts]
        self._encode(dict.fromkeys(text for texts in spelled for text in texts))
        known = [torch.stack([self.known[text] for text in texts]) for texts in spelled]
        return F.normalize(torch.stack([rows.mean(0) for rows in known]), dim=-1)

    def _spellings(self, prompt: Prompt) -> list[str]:
        if prompt.category is None:
            return [prompt.text]
        return [template.format(prompt.category) for template in self.templates]

    @torch.inference_mode()
    def _encode(self, texts: Iterable[str]) -> None:
        """Embed the texts that are not known yet, in batches of one fixed shape."""
        new = [text for text in texts if text not in self.known]
        device = next(self.model.parameters()).device
        for start in range(0, len(new), TEXT_BATCH):
            batch = new[start : start + TEXT_BATCH]
            tokens = self.tokenize(batch + [""] * (TEXT_BATCH - len(batch)))
            rows = F.normalize(self.model.encode_text(tokens.to(device)).float(), dim=-1)
            self.known.update(zip(batch, rows, strict=False))
