"""Prompts from every source, and the reason where there are none to be had."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import PromptConfig
from pipeline.errors import ConfigError, Reject
from pipeline.inputs.classes import stable_id
from pipeline.inputs.prompts import Prompt, PromptReader, Prompts

Fields = dict[str, bytes]


@pytest.fixture
def classes(tmp_path: Path) -> str:
    path = tmp_path / "classes.yaml"
    path.write_text(
        "- {id: 17, name: dog, prompts: [dog, puppy], threshold: 0.3}\n- {id: 2, name: cat}"
    )
    return str(path)


def as_json(content: object) -> Fields:
    return {"json": json.dumps(content).encode()}


def as_npy(vectors: object, dtype: type = np.float32) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.asarray(vectors, dtype=dtype))
    return stream.getvalue()


def rejected(config: PromptConfig, fields: Fields, width: int | None = None) -> Reject:
    with pytest.raises(Reject) as caught:
        PromptReader(config, width)(fields)
    return caught.value


# --- labels


def test_labels_are_names_each_once() -> None:
    read = PromptReader(PromptConfig())
    assert read(as_json({"labels": ["dog", " cat ", "dog", "собака"]})) == [
        Prompt(0, "dog", stable_id("dog"), ("dog",)),
        Prompt(1, "cat", stable_id("cat"), ("cat",)),
        Prompt(2, "собака", stable_id("собака"), ("собака",)),
    ]


def test_labels_may_stand_in_another_field() -> None:
    read = PromptReader(PromptConfig(field="objects"))
    assert [p.category for p in read(as_json({"labels": ["a"], "objects": ["b"]}))] == ["b"]


def test_no_labels_are_no_prompts() -> None:
    assert PromptReader(PromptConfig())(as_json({"labels": []})) == []


def test_the_class_file_knows_more_about_a_label(classes: str) -> None:
    read = PromptReader(PromptConfig(classes=classes))
    assert read(as_json({"labels": ["bird", "dog"]})) == [
        Prompt(0, "bird", stable_id("bird"), ("bird",)),
        Prompt(1, "dog", 17, ("dog", "puppy"), 0.3),
    ]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "missing_field"),
        ({"json": b"{}"}, "missing_field"),
        ({"json": b"[]"}, "missing_field"),
        ({"json": b"null"}, "missing_field"),
        ({"json": b""}, "bad_prompts"),
        ({"json": b"{'labels': []}"}, "bad_prompts"),
        ({"json": b"\xff"}, "bad_prompts"),
        ({"json": b"[" * 100_000}, "bad_prompts"),
        ({"json": b'{"labels": ' + b"9" * 5000 + b"}"}, "bad_prompts"),
        (as_json({"labels": "dog"}), "bad_prompts"),
        (as_json({"labels": {"dog": 1}}), "bad_prompts"),
        (as_json({"labels": ["dog", 1]}), "bad_prompts"),
        (as_json({"labels": ["dog", ["cat"]]}), "bad_prompts"),
        (as_json({"labels": ["\ud800"]}), "bad_prompts"),
    ],
)
def test_bad_labels(fields: Fields, reason: str) -> None:
    assert rejected(PromptConfig(), fields).reason == reason


# --- caption


def test_a_caption_is_the_txt_or_a_field() -> None:
    fields = {"txt": b" Ein Hund.\n", **as_json({"caption": "Eine Katze."})}
    assert PromptReader(PromptConfig(source="caption"))(fields) == [
        Prompt(0, None, None, ("Ein Hund.",))
    ]
    by_field = PromptReader(PromptConfig(source="caption", field="caption"))
    assert by_field(fields) == [Prompt(0, None, None, ("Eine Katze.",))]


BLANKS = [None, "", " \n\t", "\u00a0\u2003", "\u200b", "\ufeff", " \u2060\u200d\u00ad "]


@pytest.mark.parametrize("blank", BLANKS)
def test_an_absence_is_one_however_it_is_said(classes: str, blank: str | None) -> None:
    text = (blank or "").encode()
    ways: list[tuple[PromptConfig, Fields]] = [
        (PromptConfig(source="caption"), {"txt": text}),
        (PromptConfig(source="caption"), {"txt": b"\xef\xbb\xbf" + text}),
        (PromptConfig(source="caption", field="c"), as_json({"c": blank})),
        (PromptConfig(source="cls", classes=classes), {"cls": text}),
        (PromptConfig(), as_json({"labels": blank})),
        (PromptConfig(), as_json({"labels": []})),
    ]
    assert [PromptReader(config)(fields) for config, fields in ways] == [[]] * len(ways)
    found = PromptReader(PromptConfig())(as_json({"labels": [blank, "dog", blank, " cat "]}))
    assert isinstance(found, Prompts) and found.blank == 2
    assert [(prompt.index, prompt.category) for prompt in found] == [(0, "dog"), (1, "cat")]
    vectors = {"npy": as_npy([[1, 0], [0, 1]]), **as_json({"labels": [blank, "dog"]})}
    (prompt,) = (found := PromptReader(PromptConfig(source="embeddings"))(vectors))
    assert isinstance(found, Prompts) and found.blank == 1 and prompt.embedding is not None
    assert (prompt.index, prompt.texts, prompt.embedding.tolist()) == (0, ("dog",), [0, 1])


def test_a_byte_order_mark_is_no_content(classes: str) -> None:
    mark = b"\xef\xbb\xbf"
    (caption,) = PromptReader(PromptConfig(source="caption"))({"txt": mark + b"a dog"})
    (label,) = PromptReader(PromptConfig())({"json": mark + b'{"labels": ["dog"]}'})
    (number,) = PromptReader(PromptConfig(source="cls", classes=classes))({"cls": mark + b"17"})
    assert (caption.texts, label.category, number.category_id) == (("a dog",), "dog", 17)


@pytest.mark.parametrize(
    ("field", "fields", "reason"),
    [
        ("", {}, "missing_field"),
        ("", as_json({"caption": "a"}), "missing_field"),
        ("", {"txt": b"\xff\xfe"}, "bad_prompts"),
        ("caption", {"txt": b"a"}, "missing_field"),
        ("caption", as_json({"text": "a"}), "missing_field"),
        ("caption", as_json({"caption": ["a"]}), "bad_prompts"),
        ("caption", as_json({"caption": "\udfff"}), "bad_prompts"),
    ],
)
def test_bad_captions(field: str, fields: Fields, reason: str) -> None:
    assert rejected(PromptConfig(source="caption", field=field), fields).reason == reason


# --- cls


def test_a_class_is_found_by_its_id(classes: str) -> None:
    read = PromptReader(PromptConfig(source="cls", classes=classes))
    for text in (b"17", b" 17\n", b"017"):
        assert read({"cls": text}) == [Prompt(0, "dog", 17, ("dog", "puppy"), 0.3)]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "missing_field"),
        ({"cls": b"1"}, "bad_prompts"),
        ({"cls": b"-17"}, "bad_prompts"),
        ({"cls": b"17.0"}, "bad_prompts"),
        ({"cls": b"dog"}, "bad_prompts"),
        ({"cls": "\u0661\u0667".encode()}, "bad_prompts"),
        ({"cls": b"9" * 5000}, "bad_prompts"),
        ({"cls": b"\xff"}, "bad_prompts"),
    ],
)
def test_bad_classes(classes: str, fields: Fields, reason: str) -> None:
    assert rejected(PromptConfig(source="cls", classes=classes), fields).reason == reason


def test_a_vocabulary_asks_the_image_and_not_the_sample(classes: str) -> None:
    assert PromptReader(PromptConfig(source="vocabulary", classes=classes, presence=0.3))({}) == []


def test_a_vocabulary_needs_to_be_told_when_a_class_is_there(tmp_path: Path, classes: str) -> None:
    silent = PromptConfig(source="vocabulary", classes=classes)
    with pytest.raises(ConfigError, match=r"^--prompts.source vocabulary needs --prompts.presence"):
        PromptReader(silent)
    PromptReader(PromptConfig(source="vocabulary", classes=classes, presence=-1.0))
    PromptReader(PromptConfig(source="labels", classes=classes))
    (tmp_path / "levels.yaml").write_text("- {id: 1, name: dog, presence: 0.3}")
    PromptReader(PromptConfig(source="vocabulary", classes=str(tmp_path / "levels.yaml")))


# --- embeddings


def test_vectors_are_normalised_and_named() -> None:
    read = PromptReader(PromptConfig(source="embeddings"), 2)
    fields = {"npy": as_npy([[3, 4], [0, -2]]), **as_json({"labels": ["bark", "bark"]})}
    first, second = read(fields)
    assert (first.index, second.index) == (0, 1)
    assert (first.category, first.category_id) == ("bark", stable_id("bark"))
    assert first.embedding is not None and second.embedding is not None
    np.testing.assert_allclose(first.embedding, [0.6, 0.8], rtol=1e-6)
    np.testing.assert_array_equal(second.embedding, [0, -1])


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8])
def test_vectors_may_have_any_number_format(dtype: type) -> None:
    fields = {"npy": as_npy([1, 0], dtype), **as_json({"labels": ["one"]})}
    (prompt,) = PromptReader(PromptConfig(source="embeddings"))(fields)
    assert prompt.embedding is not None and prompt.embedding.dtype == np.float32


def test_a_very_long_vector_has_a_direction_too() -> None:
    fields = {"npy": as_npy([[3e30, 4e30]]), **as_json({"labels": ["one"]})}
    (prompt,) = PromptReader(PromptConfig(source="embeddings"))(fields)
    assert prompt.embedding is not None
    np.testing.assert_allclose(prompt.embedding, [0.6, 0.8], rtol=1e-6)


def pickled() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([{}], dtype=object), allow_pickle=True)
    return stream.getvalue()


def huge() -> bytes:
    """A header that promises four petabytes."""
    return as_npy([[1, 2]]).replace(b"(1, 2)", b"(1, 1000000000000000)"[:21], 1)


@pytest.mark.parametrize(
    ("npy", "reason"),
    [
        (None, "missing_field"),
        (b"", "bad_prompts"),
        (b"\x93NUMPY", "bad_prompts"),
        (b"PK\x03\x04rubbish", "bad_prompts"),
        (as_npy([[1, 2]])[:-1], "bad_prompts"),
        (pickled(), "bad_prompts"),
        (huge(), "bad_prompts"),
        (as_npy([["a", "b"]], np.str_), "bad_prompts"),
        (as_npy([["1", "2"]], np.str_), "bad_prompts"),
        (as_npy([[1, 2]], np.complex64), "bad_prompts"),
        (as_npy([[1e300, 2]], np.float64), "bad_prompts"),
        (as_npy([[0, 0]]), "bad_prompts"),
        (as_npy([[1, np.nan]]), "bad_prompts"),
        (as_npy([[1, np.inf]]), "bad_prompts"),
        (as_npy([[[1, 2]]]), "bad_prompts"),
        (as_npy(1.0), "bad_prompts"),
        (as_npy([[1, 2, 3]]), "bad_prompts"),
        (as_npy([[1, 2], [3, 4]]), "bad_prompts"),
        (as_npy(np.empty((0, 2))), "bad_prompts"),
    ],
    ids=range(19),
)
def test_bad_vectors(npy: bytes | None, reason: str) -> None:
    fields = as_json({"labels": ["one"]}) | ({} if npy is None else {"npy": npy})
    assert rejected(PromptConfig(source="embeddings"), fields, 2).reason == reason


def test_vectors_need_names() -> None:
    fields = {"npy": as_npy([[1, 2]])}
    assert rejected(PromptConfig(source="embeddings"), fields).reason == "missing_field"


# --- anything


@given(
    st.sampled_from(["labels", "caption", "embeddings"]),
    st.dictionaries(st.sampled_from(["json", "txt", "npy"]), st.binary(max_size=60)),
)
def test_rubbish_is_rejected_or_read(source: str, fields: Fields) -> None:
    try:
        prompts = PromptReader(PromptConfig(source=source))(fields)
    except Reject as reject:
        assert reject.reason in ("missing_field", "bad_prompts")
        assert " object at 0x" not in reject.detail
    else:
        assert all(text.strip() for prompt in prompts for text in prompt.texts)


@given(st.binary(max_size=300))
def test_a_damaged_npy_is_rejected_or_read(damage: bytes) -> None:
    npy = as_npy([[1, 2]])
    read = PromptReader(PromptConfig(source="embeddings"))
    for data in (npy[:10] + damage, npy[: -len(damage) or None] + damage):
        try:
            read({"npy": data, **as_json({"labels": ["one"]})})
        except Reject as reject:
            assert reject.reason == "bad_prompts"
