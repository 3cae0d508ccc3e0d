"""One map and one score for every prompt of every sample."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from pipeline.config import AnnotateConfig, PromptConfig
from pipeline.inputs.images import decode
from pipeline.inputs.prompts import Prompt
from pipeline.inputs.samples import Sample
from pipeline.models.clip import Clip
from pipeline.models.demo import create, normalise, tokenize
from pipeline.models.explain import Maps, PromptExplainer


@pytest.fixture(scope="module")
def model() -> Clip:
    return create().requires_grad_(False)


@pytest.fixture
def sample(picture: Callable[..., bytes], explainer: PromptExplainer) -> Callable[..., Sample]:
    """`sample(seed, *prompts)`"""

    def make(seed: int, *prompts: Prompt) -> Sample:
        pixels = explainer.squash(decode(picture(seed), 1 << 20))
        return Sample(seed, f"{seed}", 30, 40, pixels, list(prompts))

    return make


def prompt(index: int, *texts: str) -> Prompt:
    return Prompt(index, texts[0], None, texts)


def image_embedding(model: Clip, sample: Sample) -> torch.Tensor:
    return F.normalize(model.encode_image(normalise(sample.pixels[None].float())), dim=-1)[0]


def text_embedding(model: Clip, text: str) -> torch.Tensor:
    return F.normalize(model.encode_text(tokenize([text])), dim=-1)[0]


def test_scores_are_the_models_cosines(
    explainer: PromptExplainer, sample: Callable[..., Sample], model: Clip
) -> None:
    samples = [sample(0, prompt(0, "dog"), prompt(1, "cat")), sample(1, prompt(0, "car"))]
    for one, maps in zip(samples, explainer(samples), strict=True):
        for text, score in zip(maps.texts, maps.scores, strict=True):
            cosine = image_embedding(model, one) @ text_embedding(model, text)
            assert score == pytest.approx(cosine.item(), abs=1e-5)


def test_a_sample_is_explained_as_if_it_were_alone(
    explainer: PromptExplainer, sample: Callable[..., Sample]
) -> None:
    samples = [
        sample(0, prompt(0, "dog"), prompt(1, "cat", "kitten"), prompt(2, "car")),
        sample(1),
        sample(2, prompt(0, "car")),
    ]
    together = explainer(samples)
    assert [(len(maps.raw), maps.prompts) for maps in together] == [
        (len(one.wanted), one.wanted) for one in samples
    ]
    assert together[1] == Maps([], together[1].raw, [], [], 0)
    for one, maps in zip(samples, together, strict=True):
        if one.wanted:
            (alone,) = explainer([one])
            torch.testing.assert_close(maps.raw, alone.raw)
            assert maps.scores == pytest.approx(alone.scores, abs=1e-5)


def test_of_synonyms_the_stronger_map_and_the_better_score_count(
    explainer: PromptExplainer, sample: Callable[..., Sample]
) -> None:
    words = ["dog", "puppy", "cat"]
    (apart,) = explainer([sample(0, *(prompt(i, word) for i, word in enumerate(words)))])
    (joined,) = explainer([sample(0, prompt(0, "cat"), prompt(1, *words))])
    torch.testing.assert_close(joined.raw[1], apart.raw.amax(0))
    assert not torch.equal(joined.raw[1], joined.raw[0])
    best = max(range(3), key=apart.scores.__getitem__)
    assert joined.scores[1] == pytest.approx(apart.scores[best], abs=1e-6)
    assert joined.texts == ["a photo of a cat.", f"a photo of a {words[best]}."]


def test_a_vector_is_explained_like_the_text_it_stands_for(
    explainer: PromptExplainer, sample: Callable[..., Sample], model: Clip
) -> None:
    vector = text_embedding(model, "a photo of a dog.").numpy()
    bark = Prompt(1, "bark", None, ("bark",), embedding=vector)
    (maps,) = explainer([sample(0, prompt(0, "dog"), bark)])
    torch.testing.assert_close(maps.raw[0], maps.raw[1], rtol=1e-4, atol=1e-7)
    assert maps.texts == ["a photo of a dog.", "bark"]
    assert explainer.embed_width == len(vector)


def test_cut_prompts_are_counted_per_sample(
    explainer: PromptExplainer, sample: Callable[..., Sample]
) -> None:
    long = Prompt(1, None, None, ("dog " * 40,))
    maps = explainer([sample(0, prompt(0, "dog"), long), sample(1, prompt(0, "cat"))])
    assert [of_sample.cut for of_sample in maps] == [1, 0]


# --- presence


@pytest.fixture
def filtering(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[PromptExplainer, list[int]]]:
    """`filtering(presence)`: an explainer of labels, and how many texts it makes maps of."""

    def make(presence: float | None) -> tuple[PromptExplainer, list[int]]:
        explain = PromptExplainer(AnnotateConfig(prompts=PromptConfig(presence=presence)))
        mapped: list[int] = []
        maps = explain._explainer.maps

        def counting(encoding, text, owner):
            mapped.append(len(text))
            return maps(encoding, text, owner)

        monkeypatch.setattr(explain._explainer, "maps", counting)
        return explain, mapped

    return make


def test_no_map_is_made_of_what_is_absent(
    explainer: PromptExplainer,
    sample: Callable[..., Sample],
    filtering: Callable[..., tuple[PromptExplainer, list[int]]],
) -> None:
    long = Prompt(3, None, None, ("dog " * 40,))
    asked = [prompt(0, "cat", "kitten"), prompt(1, "car"), prompt(2, "dog", "puppy"), long]
    samples = [sample(0, *asked), sample(1, prompt(0, "tree"))]
    every = explainer(samples)
    scores = every[0].scores
    levels = [-1.0, 1.0, scores[2] - 1e-3, scores[3] + 1e-3]  # the second and the last are absent
    own = [replace(p, presence=level) for p, level in zip(asked, levels, strict=True)]
    samples = [sample(0, *own), sample(1, prompt(0, "tree"))]
    explain, mapped = filtering(1.0)
    first, second = explain(samples)
    assert mapped == [4]  # two texts of the first, two of the third
    assert (first.prompts, [each.prompt for each in first.absent]) == (own[::2], own[1::2])
    assert first.scores == pytest.approx(scores[::2], abs=1e-5)
    assert [each.score for each in first.absent] == pytest.approx(scores[1::2], abs=1e-5)
    assert first.texts == every[0].texts[::2]
    torch.testing.assert_close(first.raw, every[0].raw[::2])
    assert (first.cut, second.cut) == (1, 0)
    assert (second.prompts, len(second.raw), len(second.absent)) == ([], 0, 1)


@pytest.mark.parametrize("presence", [None, -1.0])
def test_without_a_filter_a_level_of_a_class_is_passed_over(
    presence: float | None,
    sample: Callable[..., Sample],
    filtering: Callable[..., tuple[PromptExplainer, list[int]]],
) -> None:
    explain, _ = filtering(presence)
    (maps,) = explain([sample(0, replace(prompt(0, "dog"), presence=1.0))])
    assert (len(maps.prompts), maps.absent) == (1, [])


# --- vocabulary


NAMES = ["dog", "cat", "car", "tree", "book"]


@pytest.fixture
def vocabulary(tmp_path: Path) -> Callable[..., PromptExplainer]:
    """`vocabulary(top_k=, presence=)`: an explainer that picks from NAMES; dogs may be puppies."""

    def make(**settings: object) -> PromptExplainer:
        lines = [f"- {{id: {10 + i}, name: {name}}}" for i, name in enumerate(NAMES)]
        lines[0] = "- {id: 10, name: dog, prompts: [dog, puppy], threshold: 0.3}"
        (tmp_path / "classes.yaml").write_text("\n".join(lines))
        prompts = PromptConfig("vocabulary", classes=str(tmp_path / "classes.yaml"), presence=-1.0)
        return PromptExplainer(AnnotateConfig(prompts=replace(prompts, **settings)))

    return make


def test_a_vocabulary_gives_the_most_similar_classes(
    vocabulary: Callable[..., PromptExplainer],
    explainer: PromptExplainer,
    sample: Callable[..., Sample],
    model: Clip,
) -> None:
    choose = vocabulary(top_k=3)
    samples = [sample(0), sample(1)]
    assert all(choose.has_prompts(one) for one in samples)
    for one, maps in zip(samples, choose(samples), strict=True):
        cosines = {
            name: max(
                (
                    image_embedding(model, one) @ text_embedding(model, f"a photo of a {text}.")
                ).item()
                for text in ((name, "puppy") if name == "dog" else (name,))
            )
            for name in NAMES
        }
        best = sorted(NAMES, key=lambda name: -cosines[name])[:3]
        assert [p.category for p in maps.prompts] == best
        assert [p.index for p in maps.prompts] == [0, 1, 2]
        assert [p.category_id for p in maps.prompts] == [10 + NAMES.index(name) for name in best]
        assert maps.scores == pytest.approx([cosines[name] for name in best], abs=1e-5)
        # The same pairs as labels have the same maps.
        (as_labels,) = explainer([replace(one, wanted=maps.prompts)])
        torch.testing.assert_close(maps.raw, as_labels.raw)
        assert maps.texts == as_labels.texts


def test_fewer_classes_than_asked_for(
    vocabulary: Callable[..., PromptExplainer], sample: Callable[..., Sample]
) -> None:
    (maps,) = vocabulary(top_k=50)([sample(0)])
    assert len(maps.prompts) == len(NAMES)


def test_classes_below_the_presence_threshold_are_left_out(
    vocabulary: Callable[..., PromptExplainer], sample: Callable[..., Sample]
) -> None:
    (everything,) = vocabulary()([sample(0)])
    bound = everything.scores[2]
    (some,) = vocabulary(presence=bound)([sample(0)])
    assert [p.category for p in some.prompts] == [p.category for p in everything.prompts[:2]]
    assert [(each.prompt, each.score) for each in some.absent] == [
        (prompt, pytest.approx(score, abs=1e-6))
        for prompt, score in zip(everything.prompts[2:], everything.scores[2:], strict=True)
    ]
    nothing = vocabulary(presence=1.0)([sample(0), sample(1)])
    assert [maps.prompts for maps in nothing] == [[], []]
