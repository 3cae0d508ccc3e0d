"""From texts to embeddings in the joint space of a CLIP."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import open_clip
import torch
import torch.nn.functional as F
from jaxtyping import Float32
from torch import Tensor

from pipeline.models import Clip
from pipeline.prompts import Prompt

TEXT_BATCH = 32
"""Rows of every text forward pass, padded when there are fewer: a text's embedding must not
depend on which other texts happen to be encoded with it."""
KEPT = 20_000
"""Embeddings kept between calls. Class names come again and again; captions hardly do."""


@dataclass(frozen=True)
class _Encoded:
    embedding: Float32[Tensor, " embed"]
    cut: bool  # the text was longer than the model's context


class TextEncoder:
    """Embeds texts with a CLIP's text tower, each distinct one once. Not thread-safe."""

    def __init__(self, model: Clip, name: str, templates: Sequence[str]) -> None:
        """Take the tokenizer of the open_clip model called `name`."""
        self._model, self._templates = model, tuple(templates)
        self._tokenizer = open_clip.get_tokenizer(name)
        self._known: dict[str, _Encoded] = {}

    def __call__(
        self, prompts: Sequence[Prompt]
    ) -> tuple[Float32[Tensor, "text embed"], list[bool]]:
        """Embed every text of every prompt.

        The name of a class is put into every template, and the embeddings are averaged and
        normalised again. A caption is encoded as it is. A vector is taken as it is.

        Returns:
            L2-normalised embeddings on the model's device, in the order of prompts and their
            texts; and of every prompt, whether a text of it did not fit into the model's context.
        """
        self._encode({s for p in prompts for text in p.texts for s in self.sentences(p, text)})
        rows: list[Tensor] = []
        cut: list[bool] = []
        for prompt in prompts:
            encoded = [[self._known[s] for s in self.sentences(prompt, t)] for t in prompt.texts]
            cut.append(any(one.cut for several in encoded for one in several))
            if prompt.embedding is not None:
                rows.append(torch.from_numpy(prompt.embedding).to(self._device))
            else:
                rows += [torch.stack([one.embedding for one in s]).mean(0) for s in encoded]
        for text in list(self._known)[: max(0, len(self._known) - KEPT)]:
            del self._known[text]
        if not rows:
            return torch.empty(0, self.embed_width, device=self._device), cut
        return F.normalize(torch.stack(rows), dim=-1), cut

    def sentences(self, prompt: Prompt, text: str) -> list[str]:
        """What is encoded for one text of a prompt; nothing for a vector."""
        if prompt.embedding is not None:
            return []
        if prompt.category is None:
            return [text]
        return [template.replace("{}", text) for template in self._templates]

    def shown(self, prompt: Prompt, text: str) -> str:
        """What is stored as the prompt: the sentence, or the bare name where there are several."""
        sentences = self.sentences(prompt, text)
        return sentences[0] if len(sentences) == 1 else text

    @cached_property
    def embed_width(self) -> int:
        """Length of an embedding."""
        self._encode([""])
        return len(self._known[""].embedding)

    @property
    def _device(self) -> torch.device:
        device: torch.device = self._model.logit_scale.device
        return device

    @torch.inference_mode()
    def _encode(self, texts: Iterable[str]) -> None:
        """Embed the texts that are not known yet, in batches of one fixed shape."""
        new = sorted(text for text in texts if text not in self._known)
        context = self._tokenizer.context_length
        for start in range(0, len(new), TEXT_BATCH):
            batch = new[start : start + TEXT_BATCH]
            padded = batch + [""] * (TEXT_BATCH - len(batch))
            embeddings = self._model.encode_text(self._tokenizer(padded).to(self._device))
            longer = self._tokenizer([*batch, ""], context_length=context + 1)[:, -1]
            cut = (longer[:-1] != longer[-1]).tolist()  # the empty text ends in padding
            for text, row, too_long in zip(batch, embeddings.float(), cut, strict=False):
                self._known[text] = _Encoded(F.normalize(row, dim=-1), too_long)
