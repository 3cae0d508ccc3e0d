"""From texts, and sounds beside them, to embeddings in the joint space of a CLIP."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import open_clip
import torch
import torch.nn.functional as F
from jaxtyping import Float32
from torch import Tensor

from pipeline.errors import ConfigError, ModelError, one_line
from pipeline.inputs.prompts import Prompt
from pipeline.inputs.sounds import Sound
from pipeline.models.clip import Clip

Hear: TypeAlias = Callable[[Sequence[Sound]], Float32[Tensor, "sound embed"]]

TEXT_BATCH = 32
"""Rows of every text forward pass, padded when there are fewer: a text's embedding must not
depend on which other texts happen to be encoded with it."""
KEPT = 50_000
"""Texts kept between calls. Class names come again and again; captions hardly do."""
CHARACTERS_PER_TOKEN = 40


@dataclass(frozen=True)
class _Encoded:
    embedding: Float32[Tensor, " embed"]
    cut: bool  # the text was longer than the model's context


def _tokenizer(name: str) -> Any:
    try:
        return open_clip.get_tokenizer(name)
    except ImportError as error:  # those of SigLIP and of multilingual models are not open_clip's
        raise ModelError(
            f"--model.name {name}: its tokenizer needs a package that is not installed "
            f"({error.name}): pip install transformers sentencepiece"
        ) from error
    except Exception as error:  # the hub raises whatever it likes
        cause = one_line(error, kind=True)
        raise ModelError(f"--model.name {name}: its tokenizer does not load: {cause}") from error


class TextEncoder:
    """Embeds texts with a CLIP's text tower, each distinct one once. Not thread-safe."""

    def __init__(
        self, model: Clip, name: str, templates: Sequence[str], hear: Hear | None = None
    ) -> None:
        """Take the tokenizer of the open_clip model called `name`.

        Args:
            model: a CLIP.
            name: of it.
            templates: sentences for names of classes.
            hear: what embeds sounds, where any are asked for.

        Raises:
            ModelError: it does not load.
        """
        self._model, self._templates = model, tuple(templates)
        self._tokenizer = _tokenizer(name)
        self._hear = hear
        self._known: dict[tuple[bool, str], _Encoded] = {}

    def __call__(
        self, prompts: Sequence[Prompt]
    ) -> tuple[Float32[Tensor, "text embed"], list[bool]]:
        """Embed every text of every prompt, and then every sound of it.

        The name of a class is put into every template, and the embeddings are averaged and
        normalised again. A caption is encoded as it is. A vector is taken as it is.

        Returns:
            L2-normalised embeddings on the model's device, in the order of prompts and their
            `wordings`; and of every prompt, whether a text of it did not fit into the model's
            context.
        """
        self._learn(prompts)
        rows: list[Tensor] = []
        cut: list[bool] = []
        for prompt in prompts:
            if prompt.embedding is not None:
                rows.append(torch.from_numpy(prompt.embedding).to(self._device))
                cut.append(False)
                continue
            encoded = [self._known[self._key(prompt, text)] for text in prompt.texts]
            rows += [one.embedding for one in encoded]
            if prompt.sounds:
                rows += self._heard(prompt.sounds)
            cut.append(any(one.cut for one in encoded))
        for key in list(self._known)[: max(0, len(self._known) - KEPT)]:
            del self._known[key]
        if not rows:
            return torch.empty(0, self.embed_width, device=self._device), cut
        return F.normalize(torch.stack(rows), dim=-1), cut

    def _heard(self, sounds: Sequence[Sound]) -> list[Tensor]:
        if self._hear is None:
            raise ConfigError("sounds are looked for, and nothing here embeds them")
        return list(self._hear(sounds))

    def caption(self, text: str) -> Float32[Tensor, " embed"]:
        """The embedding of one text as it is, without a template."""
        embedding: Tensor = self([Prompt(0, None, None, (text,))])[0][0]
        return embedding

    def names(self, names: Sequence[str]) -> Float32[Tensor, "name embed"]:
        """The embeddings of class names, put into the templates."""
        return self([Prompt(i, name, None, (name,)) for i, name in enumerate(names)])[0]

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
        return len(self._encode([""])[""].embedding)

    @property
    def _device(self) -> torch.device:
        device: torch.device = self._model.logit_scale.device
        return device

    def _key(self, prompt: Prompt, text: str) -> tuple[bool, str]:
        return prompt.category is None, text

    def _learn(self, prompts: Iterable[Prompt]) -> None:
        """Encode the texts that are not known yet: the mean over their sentences."""
        new = {
            self._key(prompt, text): self.sentences(prompt, text)
            for prompt in prompts
            if prompt.embedding is None
            for text in prompt.texts
            if self._key(prompt, text) not in self._known
        }
        encoded = self._encode({sentence for sentences in new.values() for sentence in sentences})
        for key, sentences in new.items():
            parts = [encoded[sentence] for sentence in sentences]
            mean = torch.stack([part.embedding for part in parts]).mean(0)
            self._known[key] = _Encoded(mean, any(part.cut for part in parts))

    @torch.inference_mode()
    def _encode(self, texts: Iterable[str]) -> dict[str, _Encoded]:
        """Embed some sentences, in batches of one fixed shape."""
        ordered = sorted(texts)
        context = self._tokenizer.context_length
        # Tokenizers take time that grows faster than the text; what lies so far behind the
        # context cannot matter.
        within = [text[: CHARACTERS_PER_TOKEN * context] for text in ordered]
        encoded: dict[str, _Encoded] = {}
        for start in range(0, len(ordered), TEXT_BATCH):
            batch = within[start : start + TEXT_BATCH]
            padded = batch + [""] * (TEXT_BATCH - len(batch))
            tokens = self._tokenizer(padded)
            rows = self._model.encode_text(tokens.to(self._device)).float()
            # A text that is cut has other tokens where there is more room: at least its end moves.
            longer = self._tokenizer(padded, context_length=context + 1)[:, :context]
            cut = (longer != tokens).any(1).tolist()
            keys = ordered[start : start + TEXT_BATCH]
            for text, row, too_long in zip(keys, rows, cut, strict=False):
                encoded[text] = _Encoded(F.normalize(row, dim=-1), too_long)
        if len(getattr(self._tokenizer, "cache", ())) > KEPT:
            self._tokenizer.cache.clear()  # it remembers every word that it ever saw
        return encoded
