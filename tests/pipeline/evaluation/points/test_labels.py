"""Point files: what is kept, what is left out and counted, what is refused."""

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.evaluation.points.descriptions import read_descriptions
from pipeline.evaluation.points.labels import Cleaning, read_labels
from pipeline.evaluation.points.pairs import Label, LabelledPairs


def as_dict(pairs: LabelledPairs) -> dict[tuple[str, str], set[tuple[float, float, bool]]]:
    """(image, label) → points."""
    return {
        (image, p.label.id): set(zip(p.x.tolist(), p.y.tolist(), p.yes.tolist(), strict=True))
        for image, of_image in pairs.of_images(pairs.images).items()
        for p in of_image
    }


def test_rows_by_hand(cleaned: tuple[LabelledPairs, Cleaning]) -> None:
    pairs, cleaning = cleaned
    assert as_dict(pairs) == {
        ("0001", "/m/d"): {
            *((0.1, 0.5, True), (0.2, 1.0, True), (1.0, 0.5, True)),
            *((0.49, 0.5, False), (0.5, 0.5, False)),
        },
        ("0002", "/m/d"): {(0.9, 0.1, True)},
        ("0002", "/m/c"): {(0.0, 0.0, True), (0.2, 0.2, False)},
        ("0002", "/q/own"): {(0.6, 0.5, True)},
        ("0003", "/m/d"): {(0.6, 0.5, True)},
    }
    assert pairs.labels == [
        Label("/m/c", "Cat", ""),
        Label("/m/d", "Dog", ""),
        Label("/q/own", "Green lamp", "Green lamp"),
    ]
    assert cleaning == Cleaning(
        rows=20,
        left_out={
            "unsure": 1,
            "unknown answer": 1,
            "outside the image": 2,
            "label without a name": 1,
            "contradictory": 2,
            "repeated": 1,
            "class has no yes point in the image": 2,
        },
        strange_answers={"maybe": 1},
        named_by_row=["/q/own"],
        unnamed_labels={"/q/none": 1},
    )
    assert sum(cleaning.left_out.values()) + len(pairs.x) == cleaning.rows


def test_names_with_commas(csvs: tuple[str, str]) -> None:
    assert read_descriptions(csvs[1])["/m/b"] == "Bird, small"


def test_columns_in_another_order_and_a_byte_order_mark(tmp_path: Path, csvs: tuple) -> None:
    points = tmp_path / "other.csv"
    points.write_bytes(
        b"\xef\xbb\xbfEstimatedYesNo,Label,Y,X,ImageId\nYES,/m/d,1,0,007\n no ,/m/d,0.5,0,007\n"
    )
    pairs, cleaning = read_labels(str(points), csvs[1])
    assert as_dict(pairs) == {("007", "/m/d"): {(0.0, 1.0, True), (0.0, 0.5, False)}}
    assert cleaning.left_out == {}


@pytest.mark.parametrize(
    "content",
    [
        "ImageId, X, Y, Label, EstimatedYesNo\n a , 0.5, 1, /m/d , yes\na, 0.5, 0,/m/d, no\n",
        '\n\n"ImageId","X","Y","Label","EstimatedYesNo"\r\na,0.5,1,/m/d,yes\r\na,0.5,0,/m/d,no',
        '"a,b",ImageId,X,Y,Label,EstimatedYesNo\n1,a,0.5,1,/m/d,yes\n1,a,0.5,0,/m/d,no\n',
        "ImageId,X,Y,Label,EstimatedYesNo\na,0.5,1,/m/d,yes\na,.5,0,/m/d,no\n ,0,0,/m/d,yes\n",
    ],
)
def test_blanks_and_quotes_are_no_part_of_names(tmp_path: Path, csvs: tuple, content: str) -> None:
    points = tmp_path / "blanks.csv"
    points.write_bytes(content.encode())
    pairs, cleaning = read_labels(str(points), csvs[1])
    assert as_dict(pairs) == {("a", "/m/d"): {(0.5, 1.0, True), (0.5, 0.0, False)}}
    assert cleaning.left_out == ({} if cleaning.rows == 2 else {"no image or label": 1})


@pytest.mark.parametrize(
    "content, words",
    [
        ("", "is empty"),
        (" \n\n", "is empty"),
        ("ImageId,X,Y,Label,EstimatedYesNo\n", "no rows"),
        ("ImageID,X,Y,Label,EstimatedYesNo\na,0,0,/m/d,yes\n", "no column ImageId"),
        ("ImageId,X,Label\na,0,/m/d\n", "no column Y, EstimatedYesNo"),
        ("ImageId,X,Y,Label,EstimatedYesNo\na,left,0,/m/d,yes\n", "left"),
        ("ImageId,X,Y,Label,EstimatedYesNo\na,0\n", "Expected 5 columns"),
    ],
)
def test_files_that_are_refused(
    tmp_path: Path, csvs: tuple[str, str], content: str, words: str
) -> None:
    points = tmp_path / "bad.csv"
    points.write_text(content)
    with pytest.raises(ConfigError, match=words) as caught:
        read_labels(str(points), csvs[1])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "LabelName\n/m/d\n", "/m/d,Dog\n/m/d,Cat\n"])
def test_descriptions_that_are_refused(tmp_path: Path, csvs: tuple, content: str) -> None:
    names = tmp_path / "bad.csv"
    names.write_text(content)
    with pytest.raises(ConfigError, match="--descriptions"):
        read_labels(csvs[0], str(names))


def test_parquet_brings_everything_back(cleaned: tuple[LabelledPairs, Cleaning]) -> None:
    pairs = cleaned[0]
    back = LabelledPairs.from_parquet(pairs.to_parquet())
    assert (back.images, back.labels) == (pairs.images, pairs.labels)
    for name in ("image", "label", "ends", "x", "y", "yes"):
        np.testing.assert_array_equal(getattr(back, name), getattr(pairs, name))
    assert back.yes_counts().tolist() == [3, 1, 1, 1, 1]
    assert back.sizes().tolist() == [5, 2, 1, 1, 1]
    assert list(back.of_images(["none", "0003", "0003"])) == ["0003"]


def reference(path: Path) -> dict[tuple[str, str], set[tuple[float, float, bool]]]:
    """The definition, row by row."""
    said: dict[tuple, set[bool]] = defaultdict(set)
    with path.open(newline="") as stream:
        for row in csv.DictReader(stream):
            x, y, answer = float(row["X"]), float(row["Y"]), row["EstimatedYesNo"]
            known = int(row["Label"].rpartition("/")[2], 16) < 5000
            if answer != "unsure" and 0 <= x <= 1 and 0 <= y <= 1 and known:
                said[row["ImageId"], row["Label"], x, y].add(answer == "yes")
    pairs: dict[tuple[str, str], set] = defaultdict(set)
    for (image, label, x, y), answers in said.items():
        if len(answers) == 1:
            pairs[image, label].add((x, y, *answers))
    return {pair: points for pair, points in pairs.items() if any(p[2] for p in points)}


def test_a_large_file_against_the_definition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.points import write_points

    write_points(tmp_path, rows=20_000, images=300)
    monkeypatch.setattr("pipeline.evaluation.points.labels.BLOCK", 1 << 16)  # many blocks
    pairs, cleaning = read_labels(str(tmp_path / "points.csv"), str(tmp_path / "descriptions.csv"))
    assert as_dict(pairs) == reference(tmp_path / "points.csv")
    assert {"unsure", "repeated", "contradictory", "outside the image"} <= set(cleaning.left_out)
    assert sum(cleaning.left_out.values()) + len(pairs.x) == cleaning.rows == 20_000


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("/m/a,Cat\n/m/b,Dog\n", {"/m/a": "Cat", "/m/b": "Dog"}),
        ("LabelName,DisplayName\n/m/a,Cat\n", {"/m/a": "Cat"}),
        ("\ufeffLabelName,DisplayName\n/m/a,Cat\n", {"/m/a": "Cat"}),
        ("DisplayName,x,LabelName\nCat,1,/m/a\n", {"/m/a": "Cat"}),
        ("mid,display name\n/m/a,Cat\n", {"/m/a": "Cat"}),
        ("class_name,text\n/m/a,Cat\n", {"/m/a": "Cat"}),
        ("007,1e3\n1,true\n", {"007": "1e3", "1": "true"}),
        ('/m/a,"Cat, small"\r\n/m/b,"two\nlines"\n', {"/m/a": "Cat, small", "/m/b": "two\nlines"}),
        ("/m/a, Cat \n\n/m/b,\n", {"/m/a": "Cat"}),
        ("LabelName, DisplayName\n/m/a, Cat\n", {"/m/a": "Cat"}),
        ("displayname,label_name\nCat,/m/a\n", {"/m/a": "Cat"}),
        ("/m/a,Cat\n/m/b,\u200b\n/m/a,Cat\n", {"/m/a": "Cat"}),
    ],
)
def test_a_header_is_not_assumed(tmp_path: Path, content: str, names: dict[str, str]) -> None:
    path = tmp_path / "names.csv"
    path.write_bytes(content.encode())
    assert read_descriptions(str(path)) == names
