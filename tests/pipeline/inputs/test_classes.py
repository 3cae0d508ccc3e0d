"""The class file, and what is said about one that is wrong."""

from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.inputs.classes import Category, load_classes


def write(folder: Path, text: str) -> str:
    path = folder / "classes.yaml"
    path.write_text(text)
    return str(path)


def test_classes_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = """
    - {id: 7, name: dog, prompts: [dog, puppy, dog], threshold: 0}
    - id: 3
      name: éléphant
      threshold: 0.25
      presence: -1
    - {id: 0, name: "yes"}
    - {id: 9, name: " owl ", prompts: [owl, "barn owl\\t", " owl"]}
    """
    assert load_classes(write(tmp_path, text)) == [
        Category(7, "dog", ("dog", "puppy"), 0.0),
        Category(3, "éléphant", ("éléphant",), 0.25, -1.0),
        Category(0, "yes", ("yes",), None),
        Category(9, "owl", ("owl", "barn owl"), None),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "- {id: 1, name: dog}\n- {id: 2, name: dog}",
            "line 2, entry 2: name 'dog' is there twice, first in line 1, entry 1",
        ),
        ("- {id: 1, name: dog}\n- {id: 1, name: cat}", "id 1 is there twice"),
        ("- {id: 1, name: dog}\n- {id: 2, name: 'dog '}", "name 'dog' is there twice"),
        (
            "- {id: 1, name: dog}\n- {id: 2, name: no}",
            "entry 2: name False is not a text; .* need quotes",
        ),
        ("- {id: 1, name: 2024-01-01}", "entry 1: name datetime.* is not a text"),
        ("- {id: 1, name: ' '}", "entry 1: name ' ' is not a text"),
        ('- {id: 1, name: "\\ud800"}', "name .* is not a text|invalid Unicode character"),
        ("- {id: one, name: dog}", "entry 1: id 'one' is not a whole number"),
        ("- {id: true, name: dog}", "entry 1: id True is not a whole number"),
        ("- {id: 1.0, name: dog}", "entry 1: id 1.0 is not a whole number"),
        ("- {id: -1, name: dog}", "entry 1: id -1 is not a whole number"),
        ("- {id: 2147483648, name: dog}", "entry 1: id 2147483648 is not a whole number"),
        ("- {id: 1, name: dog, prompts: puppy}", "entry 1: prompts 'puppy' is not a list"),
        ("- {id: 1, name: dog, prompts: []}", "entry 1: has neither prompts nor sounds"),
        ("- {id: 1, name: dog, prompts: [], sounds: []}", "entry 1: has neither prompts nor"),
        ("- {id: 1, name: dog, prompts: [1]}", r"entry 1: prompts \[1\] is not a list of texts"),
        ("- {id: 1, name: dog, threshold: 1}", r"entry 1: threshold 1 is not in \[0, 1\)"),
        ("- {id: 1, name: dog, threshold: .nan}", "entry 1: threshold nan is not in"),
        ("- {id: 1, name: dog, threshold: true}", "entry 1: threshold True is not in"),
        ("- {id: 1, name: dog, presence: 1.01}", r"entry 1: presence 1.01 is not in \[-1, 1\]"),
        ("- {id: 1, name: dog, presence: .nan}", "entry 1: presence nan is not in"),
        ("- {id: 1, name: dog, thresold: 0.5}", "entry 1: needs id and name, and may have"),
        ("- {name: dog}", "entry 1: needs id and name"),
        ("- {id: 1, name: dog}\n\n- id: 2\n  name: [cat]", "line 3, entry 2: name"),
        ("- {id: 1, name: 2024-13-45}", "not YAML: month must be"),
        ("- {id: " + "9" * 5000 + ", name: dog}", "not YAML: .*digits"),
        ("- {id: 1, name: dog, thresold: 0.5}", "it has id, name, thresold"),
        ("- {id: 0, name: ox}\n- {id: 1, id: 2, name: cat}", "line 2: id is there twice"),
        ("- id: 1\n  name: dog\n  name: cat", "line 3: name is there twice in one entry"),
        ("- dog", "entry 1: needs id and name"),
        ("dog: 1", "not a list of classes"),
        ("", "not a list of classes"),
        ("[]", "not a list of classes"),
        ("- {id: 1, name: dog", "not YAML: .*expected"),
    ],
)
def test_a_mistake_is_named_unwrapped(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_classes(write(tmp_path, text))
    assert "\n" not in str(caught.value)
    assert "--prompts.classes" in str(caught.value)
    with pytest.raises(ConfigError, match=f"^--classes .*{message}"):
        load_classes(write(tmp_path, text), "--classes")


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "classes.yaml").write_bytes(b"- \xff\xfe\x00")
    with pytest.raises(ConfigError, match="not YAML"):
        load_classes(str(tmp_path / "classes.yaml"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml"):
        load_classes(str(tmp_path / "nowhere.yaml"))
