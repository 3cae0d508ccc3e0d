"""`evaluate.py prompted` on a small data set in the real layout."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from jobs import evaluate
from pipeline.config import ExecutionConfig, ModelConfig
from pipeline.errors import ConfigError, Reject
from pipeline.evaluation.prompted.config import PromptedConfig
from pipeline.evaluation.prompted.hearing import counted_times
from pipeline.evaluation.prompted.stage import published_row
from pipeline.evaluation.prompted.tree import read_label, read_table
from pipeline.inputs.stages import STAGES
from pipeline.models.loading import LoadedClip
from pipeline.outputs.ledger import Ledger
from tests.pipeline.evaluation.ade import CLASSES, label, tone

MODEL = ("--model.name", "imagebind_small", "--model.pretrained", "random")
LOCAL = ("--engine.executor", "local", "--engine.threads", "1")
SMALL = ("--model.image_size", "56")
Write = Callable[..., str]


def scored(output: Path, root: str, *flags: str) -> dict[str, Any]:
    arguments = ["prompted", "--root", root, "--output", str(output), *MODEL, *LOCAL, *flags]
    arguments += [] if "--model.image_size" in flags else SMALL
    assert evaluate.main(arguments) == 0
    found: dict[str, Any] = json.loads((output / "metrics.json").read_text())
    return found


def test_every_class_is_scored(write_ade: Write, tmp_path: Path) -> None:
    found = scored(tmp_path / "sound", write_ade())
    assert list(found["classes"]) == [str(number) for number in CLASSES]
    assert [found["classes"][str(number)]["rows"] for number in CLASSES] == [4, 4, 2]
    assert found["left_out"] == {"no class": 1}
    for commit in Ledger(str(tmp_path / "sound")).commits():
        assert set(commit.stages) == set(STAGES)
        assert commit.stages["model"] > 0 and commit.stages["decode"] > 0
    assert found["images"] == {"scored": 10}
    aps = [entry["ap"] for entry in found["classes"].values()]
    assert found["scores"]["map"] == pytest.approx(np.mean(aps))
    page = (tmp_path / "sound" / "metrics.md").read_text()
    assert "48.00" not in page and "10 pairs of image and class, 3 classes" in page


@pytest.mark.parametrize(
    "flags",
    [
        ("--kind", "speech", "--crop", "true"),
        ("--kind", "speech", "--maps", "tokens"),
        ("--maps", "tokens", "--model.image_size", "224"),
        ("--normalisation", "image", "--heard", "clips", "--engine.batch_size", "3"),
    ],
    ids=["crop", "tokens", "size", "image"],
)
def test_other_ways_to_score(write_ade: Write, tmp_path: Path, flags: tuple[str, ...]) -> None:
    found = scored(tmp_path / "out", write_ade(), *flags)
    speech = "speech" in flags
    assert found["images"]["scored"] == (8 if speech else 10)
    assert found["left_out"].get("no speech", 0) == (2 if speech else 0)
    assert all(0 < entry["iou"] <= 1 for entry in found["classes"].values())


def test_what_cannot_be_scored_is_counted(write_ade: Write, tmp_path: Path) -> None:
    root = Path(write_ade())
    (root / "frames" / "street" / "0.jpg").unlink()
    (root / "annotations" / "street" / "1_seg.png").write_bytes(b"no image")
    (root / "audio" / "3000.wav").write_bytes(tone(300, 0.3))
    found = scored(tmp_path / "out", str(root))
    assert found["rejected"] == {"bad_mask": 3, "missing_file": 2, "short_sound": 1}
    assert found["images"] == {"rejected": 6, "scored": 4}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.long
def test_ray_counts_the_same(write_ade: Write, tmp_path: Path) -> None:
    root = write_ade()
    alone = scored(tmp_path / "alone", root)
    ray = ("--engine.executor", "ray", "--engine.workers", "2")
    assert scored(tmp_path / "ray", root, *ray) == alone
    for table in (tmp_path / "alone" / "counts").iterdir():
        assert (tmp_path / "ray" / "counts" / table.name).read_bytes() == table.read_bytes()


def test_a_table_without_columns_or_rows_is_an_error(write_ade: Write, tmp_path: Path) -> None:
    root = write_ade([])
    with pytest.raises(ConfigError, match="no row has a class and a sound"):
        read_table(root, "sound")
    table = Path(root, "prompted_segmentation.csv")
    table.write_text("image_location,word\na.jpg,dog\n")
    with pytest.raises(ConfigError, match="has no column ade_class_id, vggsound_file"):
        read_table(root, "sound")
    table.unlink()
    with pytest.raises(ConfigError, match="there is no such file"):
        read_table(root, "sound")


def test_patches_are_read_as_open_clip_has_them() -> None:
    """At the model's own size; at others its positional embedding has no row for each patch."""
    engine = ExecutionConfig(device="cpu")
    model = LoadedClip(
        PromptedConfig(root="x", model=ModelConfig("imagebind_small", "random"), engine=engine)
    )
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    visual = model.model.visual
    with torch.no_grad():
        (tokens,) = visual.forward_intermediates(
            images, 1, normalize_intermediates=True, intermediates_only=True
        )["image_intermediates"]
        expected = torch.nn.functional.normalize(tokens.movedim(1, -1) @ visual.proj, dim=-1)
    torch.testing.assert_close(model.patches(images), expected, rtol=0, atol=1e-5)
    assert model.patches(images[..., :56, :84]).shape == (2, 4, 6, 32)


@pytest.mark.parametrize("maps", ["method", "tokens"])
def test_a_size_that_is_no_multiple_of_a_patch_is_one_line(
    write_ade: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str], maps: str
) -> None:
    flags = ("--root", write_ade(), "--output", str(tmp_path / "out"), "--maps", maps)
    assert evaluate.main(["prompted", *flags, *MODEL, *LOCAL, "--model.image_size", "100"]) == 2
    said = capsys.readouterr().err.strip()
    assert "--model.image_size 100: " in said and "\n" not in said


@pytest.mark.parametrize(
    ("row", "said"),
    [
        *(
            (("a.jpg", number, ""), f"ade_class_id {number!r} is not a whole number from 0 to 6655")
            for number in ("dog", "", "nan", "inf", "1e300", "-5", "17.6", "6656")
        ),
        (("", "17", ""), "it has no image_location"),
        *(
            (("a.jpg", "17", timing), "is not [begin, end] in seconds")
            for timing in (
                *("x", "{}", "[]", "0.5", "null", "[0.1]", "[1,2,3]", '["a",2]', '"12"'),
                *('{"1": 0, "2": 1}', "[true, false]", f"[0, 1{'0' * 400}]"),
            )
        ),
        (("a.jpg", "17", "[NaN, 1]"), "timing '[NaN, 1]' is not [begin, end] in seconds"),
        (("a.jpg", "17", "[0, 1e999]"), "is not [begin, end] in seconds"),
    ],
)
def test_a_row_that_says_something_else_is_named(
    write_ade: Write, row: tuple[str, str, str], said: str
) -> None:
    image, number, timing = row
    usual = {"image_location": "a.jpg", "ade_class_id": "17.0", "speech_prompt_file": "b.wav"}
    wrong = {"image_location": image, "ade_class_id": number, "timing": timing}
    root = write_ade([usual, usual | wrong])
    with pytest.raises(ConfigError, match=re.escape(said)) as raised:
        read_table(root, "speech")
    assert "prompted_segmentation.csv, row 3: " in str(raised.value)


def test_files_that_do_not_belong_together_are_left_out(
    write_ade: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(write_ade())
    Image.new("RGB", (90, 30)).save(root / "frames" / "street" / "0.jpg")
    Image.new("RGB", (5000, 3)).save(root / "frames" / "street" / "1.jpg")
    (root / "audio" / "3000.wav").unlink()
    (root / "audio" / "3000.wav").mkdir()
    found = scored(tmp_path / "out", str(root))
    assert found["rejected"] == {"missing_file": 1, "other_size": 2, "too_long": 3}
    said = capsys.readouterr().out
    for words in (
        "left out: street/0.jpg, class 17: other_size: its classes have 40x30 pixels, and the "
        "image 90x30",
        "left out: street/1.jpg, class 517: too_long: 5000x3 pixels",
        "left out: street/3.jpg, class 3000: missing_file: audio/3000.wav",
    ):
        assert words in said
    shutil.rmtree(root / "audio")
    (root / "audio").write_bytes(b"a file where a folder should be")
    flags = ("--root", str(root), "--output", str(tmp_path / "none"))
    assert evaluate.main(["prompted", *flags, *MODEL, *LOCAL, *SMALL]) == 2
    said = capsys.readouterr().err.strip()
    assert "no image could be scored (" in said and "missing_file" in said and "\n" not in said


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"root": ""}, "--root is needed"),
        ({"crop": True}, "--crop is for --kind speech"),
        ({"input": "a.tar"}, "--input: the images are those of --root"),
        ({"model": ModelConfig("ViT-B-32", "random")}, "ViT-B-32 has no audio tower"),
    ],
)
def test_settings_that_do_not_go_together(settings: dict[str, Any], said: str) -> None:
    usual = {"root": "x", "model": ModelConfig("imagebind_small", "random")}
    with pytest.raises(ConfigError, match=said):
        PromptedConfig(**(usual | settings))


PAPERS = ModelConfig("imagebind_huge", "imagebind_huge.pth")


@pytest.mark.parametrize(
    ("settings", "row"),
    [
        ({}, (48.0, 38.9)),
        ({"kind": "speech", "maps": "tokens"}, (20.2, 19.7)),
        ({"model": replace(PAPERS, image_size=224)}, (48.0, 38.9)),
        ({"model": replace(PAPERS, image_size=336)}, (None, None)),
        ({"model": replace(PAPERS, pretrained="random")}, (None, None)),
        ({"model": replace(PAPERS, name="imagebind_small")}, (None, None)),
        ({"heard": "clips"}, (None, None)),
        ({"normalisation": "image"}, (None, None)),
        ({"kind": "speech", "crop": True}, (None, None)),
        ({"layers": 4}, (None, None)),
        ({"method": "gradcam"}, (None, None)),
    ],
)
def test_the_papers_numbers_stand_beside_its_settings_alone(
    settings: dict[str, Any], row: tuple[float | None, float | None]
) -> None:
    assert published_row(PromptedConfig(**{"root": "x", "model": PAPERS} | settings)) == row


def test_labels_are_cropped_as_images_are() -> None:
    """Of 40 x 30 pixels the middle 30 columns are seen; classes begin at 13 and 26."""
    found = read_label(label(17, 517), 517, 30, (30, 40), 1200)
    assert found.shape == (30, 30)
    assert found[0].nonzero()[:, 0].tolist() == list(range(21, 30))
    with pytest.raises(Reject, match="bad_mask"):
        read_label(b"no", 17, 30, (30, 40), 1200)
    with pytest.raises(Reject, match="too_large: 40x30 pixels"):
        read_label(label(17, 517), 517, 30, (30, 40), 1199)


def test_which_times_of_a_sound_count() -> None:
    assert counted_times(164_200, None, 95).all()
    half = counted_times(82_100, None, 95)
    assert half.sum() == 48 and half[:48].all()
    # From (1 - 0.2) / 10.2625 * 95 = 7.4 to (2 + 0.2) / 10.2625 * 95 = 20.4.
    said = counted_times(164_200, (1.0, 2.0), 95)
    assert said.nonzero()[:, 0].tolist() == list(range(7, 21))
    assert counted_times(164_200, (0.0, 20.0), 95).all()
    with pytest.raises(Reject, match="bad_timing"):
        counted_times(164_200, (30.0, 31.0), 95)


def test_maps_of_tokens_are_means_of_products() -> None:
    """The published map, literally, is the product with the mean of the tokens that count."""
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(3, 3, 8, generator=generator)
    tokens = torch.randn(12, 95, 8, generator=generator)
    counts = counted_times(100_000, None, 95)
    products = torch.einsum("hwe,fte->hwft", patches, tokens).mean(2)
    literal = (products * counts).sum(-1) / counts.sum()
    ours = patches @ tokens.mean(0)[counts].mean(0)
    torch.testing.assert_close(ours, literal)
