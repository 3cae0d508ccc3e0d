"""Embeddings of texts, which must not depend on the company that a text is encoded in."""

import random

import pytest
import torch
import torch.nn.functional as F

from pipeline.config import DEMO_MODEL
from pipeline.errors import ModelError
from pipeline.inputs.prompts import Prompt
from pipeline.models import text as module
from pipeline.models.clip import Clip
from pipeline.models.demo import TEMPLATE, create, tokenize
from pipeline.models.text import TextEncoder

WORDS = [f"word {n} {'and more ' * (n % 7)}" for n in range(90)]


@pytest.fixture(scope="module")
def model() -> Clip:
    return create(None).requires_grad_(False)


def named(*texts: str, index: int = 0) -> Prompt:
    return Prompt(index, texts[0], None, texts)


def caption(text: str) -> Prompt:
    return Prompt(0, None, None, (text,))


def direct(model: Clip, *sentences: str) -> torch.Tensor:
    """The sentences' embeddings, each normalised; averaged and normalised again."""
    embeddings = F.normalize(model.encode_text(tokenize(list(sentences))), dim=-1)
    return F.normalize(embeddings.mean(0), dim=0)


def test_a_name_goes_into_the_template_and_a_caption_does_not(model: Clip) -> None:
    encode = TextEncoder(model, DEMO_MODEL, [TEMPLATE])
    text, cut = encode([named("dog", "puppy"), caption("a dog, running")])
    expected = ["a photo of a dog.", "a photo of a puppy.", "a dog, running"]
    torch.testing.assert_close(text, torch.stack([direct(model, s) for s in expected]))
    assert cut == [False, False]
    assert encode.shown(named("dog", "puppy"), "puppy") == "a photo of a puppy."
    assert encode.shown(caption("a dog"), "a dog") == "a dog"


def test_templates_are_averaged_as_embeddings(model: Clip) -> None:
    encode = TextEncoder(model, DEMO_MODEL, ["a photo of a {}.", "{}", "the {}, again"])
    (text,), _ = encode([named("dog")])
    expected = direct(model, "a photo of a dog.", "dog", "the dog, again")
    torch.testing.assert_close(text, expected)
    assert encode.shown(named("dog"), "dog") == "dog"


def test_other_braces_are_just_braces(model: Clip) -> None:
    encode = TextEncoder(model, DEMO_MODEL, ["a {0} } {} {name}"])
    assert encode.sentences(named("{}{0}"), "{}{0}") == ["a {0} } {}{0} {name}"]


def test_a_vector_is_taken_as_it_is(model: Clip) -> None:
    vector = F.normalize(torch.randn(128), dim=0)
    encode = TextEncoder(model, DEMO_MODEL, [TEMPLATE])
    bark = Prompt(1, "bark", None, ("bark",), embedding=vector.numpy())
    text, cut = encode([named("dog"), bark])
    torch.testing.assert_close(text[1], vector)
    assert cut == [False, False]
    assert encode.shown(bark, "bark") == "bark"


def test_embeddings_do_not_depend_on_the_batch_they_are_encoded_in(model: Clip) -> None:
    alone = [TextEncoder(model, DEMO_MODEL, ["{}"])([caption(word)])[0][0] for word in WORDS[:10]]
    shuffled = random.Random(0).sample(WORDS, len(WORDS))
    together, _ = TextEncoder(model, DEMO_MODEL, ["{}"])([caption(word) for word in shuffled])
    for word, embedding in zip(WORDS[:10], alone, strict=True):
        assert torch.equal(together[shuffled.index(word)], embedding)


def test_a_text_is_encoded_once(model: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []
    encode_text = model.encode_text
    monkeypatch.setattr(model, "encode_text", lambda t: passes.append(len(t)) or encode_text(t))
    encode = TextEncoder(model, DEMO_MODEL, ["{}"])
    first, _ = encode([caption(word) for word in WORDS])
    again, _ = encode([caption(word) for word in reversed(WORDS)])
    assert passes == [32, 32, 32]
    assert torch.equal(first, again.flip(0))


def test_embeddings_that_were_dropped_come_back_the_same(
    model: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT", 5)
    encode = TextEncoder(model, DEMO_MODEL, ["{}"])
    first, _ = encode([caption(word) for word in WORDS[:40]])
    again, _ = encode([caption(word) for word in WORDS[:3]])
    assert torch.equal(first[:3], again)
    assert len(encode._known) == 5


def test_texts_beyond_the_context_are_cut_and_said_to_be(model: Clip) -> None:
    encode = TextEncoder(model, DEMO_MODEL, ["{}", "the {}"])
    fits = " ".join(["dog"] * 30)  # with start and end, just 32 tokens
    text, cut = encode([caption(fits), caption(fits + " dog"), caption(fits + " cat"), named(fits)])
    assert cut == [False, True, True, True]  # of the name, only the longer sentence
    assert torch.equal(text[1], text[2])


def test_prompts_need_not_be_ascii(model: Clip) -> None:
    words = ["собака", "犬", "🐶", "dog", "e\u0301", "\x00"]
    text, _ = TextEncoder(model, DEMO_MODEL, ["{}"])([caption(word) for word in words])
    assert text.isfinite().all()
    assert len({tuple(row.tolist()) for row in text[:4]}) == 4


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ModuleNotFoundError("No module", name="transformers"), "pip install transformers"),
        (OSError("no connection\nand more"), "does not load: OSError: no connection"),
    ],
)
def test_a_tokenizer_that_does_not_load_is_an_error_of_the_model(
    model: Clip, error: Exception, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str) -> None:
        raise error

    monkeypatch.setattr("open_clip.get_tokenizer", fail)
    with pytest.raises(ModelError, match=words) as caught:
        TextEncoder(model, DEMO_MODEL, [TEMPLATE])
    assert "\n" not in str(caught.value)


def test_nothing_has_no_embeddings(model: Clip) -> None:
    text, cut = TextEncoder(model, DEMO_MODEL, ["{}"])([])
    assert (text.shape, cut) == ((0, 128), [])
