"""Scenes: the same numbers give the same pixels, and masks are what is to be seen."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.demo import glyphs
from pipeline.demo import scenes as module
from pipeline.demo.bundle import bundle
from pipeline.demo.scenes import HELD_OUT_SEED, TRAIN_SEED, Scene, make_scene, sample_points
from pipeline.demo.sprites import CLASSES, FONT_PATHS, GLYPHS, find_font, load_sprites
from pipeline.evaluation.points.definition import pixel_of
from pipeline.models.demo import ASSETS

SIDE = 96


@pytest.fixture(scope="module")
def sprites() -> dict[str, Image.Image]:
    """Stand-ins for the emoji, whose font need not be installed: opaque discs and bars."""
    drawn = {}
    for number, name in enumerate(["disc", "bar", "square", "frame", "dot", "stripe"]):
        pixels = np.zeros((40, 30 + 10 * number, 4), dtype=np.uint8)
        rows, columns = np.indices(pixels.shape[:2])
        inside = (rows - 20) ** 2 + (columns - pixels.shape[1] / 2) ** 2 < (10 + 3 * number) ** 2
        pixels[inside] = (40 * number, 200 - 30 * number, 90, 255)
        drawn[name] = Image.fromarray(pixels)
    return drawn


@pytest.fixture(scope="module")
def scenes(sprites: dict[str, Image.Image]) -> list[Scene]:
    return [make_scene(sprites, HELD_OUT_SEED, index, SIDE) for index in range(60)]


def same(one: Scene, other: Scene) -> bool:
    return np.array_equal(one.image, other.image) and list(one.masks) == list(other.masks)


def test_the_same_numbers_give_the_same_scene(
    sprites: dict[str, Image.Image], scenes: list[Scene]
) -> None:
    for index in (0, 7, 59):
        again = make_scene(sprites, HELD_OUT_SEED, index, SIDE)
        assert same(again, scenes[index])
        for name, mask in again.masks.items():
            np.testing.assert_array_equal(mask, scenes[index].masks[name])


def test_other_numbers_give_another_scene(
    sprites: dict[str, Image.Image], scenes: list[Scene]
) -> None:
    assert not any(same(scenes[i], scenes[j]) for i in range(20) for j in range(i))
    assert not same(make_scene(sprites, TRAIN_SEED, 0, SIDE), scenes[0])


def test_masks_are_disjoint_and_none_is_empty(scenes: list[Scene]) -> None:
    counts = set()
    for scene in scenes:
        masks = np.stack(list(scene.masks.values()))
        assert masks.shape[1:] == scene.image.shape[:2] == (SIDE, SIDE)
        assert masks.sum(0).max() == 1
        assert masks.any((1, 2)).all()
        counts.add(len(masks))
    assert counts == {1, 2, 3, 4, 5}


def test_every_object_keeps_half_of_its_pixels(
    sprites: dict[str, Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    laid_down = []
    paint = module._paint

    def spy(*arguments: object) -> object:
        laid_down.append(paint(*arguments))
        return laid_down[-1]

    monkeypatch.setattr(module, "_paint", spy)
    for index in range(60):
        make_scene(sprites, HELD_OUT_SEED, index, SIDE)
    kept = [thing.visible.sum() / thing.pixels for thing in laid_down]
    assert min(kept) >= 0.5
    assert min(kept) < 1, "some overlap"


@pytest.mark.parametrize(
    ("names", "caption"),
    [
        (["cat"], "a cat"),
        (["dog", "cat"], "a cat and a dog"),
        (["dog", "cat", "bus"], "a bus, a cat and a dog"),
    ],
)
def test_captions_name_what_is_there(names: list[str], caption: str) -> None:
    masks = dict.fromkeys(names, np.ones((1, 1), dtype=bool))
    assert Scene(np.zeros((1, 1, 3), dtype=np.uint8), masks).caption == caption


def test_points_lie_where_they_say(scenes: list[Scene]) -> None:
    for index, scene in enumerate(scenes):
        points = sample_points(scene, index)
        assert points == sample_points(scene, index)
        assert list(points) == list(scene.masks)
        for name, of_name in points.items():
            assert [point.yes for point in of_name] == [True] * 8 + [False] * 24
            for point in of_name:
                assert scene.masks[name][pixel_of(point, SIDE, SIDE)] == point.yes


def test_the_vocabulary_is_large_enough() -> None:
    assert len(CLASSES) >= 48
    assert len(set(CLASSES.values())) == len(CLASSES)


WITHOUT_GLYPHS = not GLYPHS.is_dir() and not any(path.is_file() for path in FONT_PATHS)
with_glyphs = pytest.mark.skipif(
    WITHOUT_GLYPHS, reason="fonts-noto-color-emoji is not installed, nor are its glyphs bundled"
)


@with_glyphs
def test_every_class_has_a_sprite_of_its_own() -> None:
    sprites = load_sprites()
    assert list(sprites) == list(CLASSES)
    assert len({sprite.tobytes() for sprite in sprites.values()}) == len(CLASSES)
    assert all(min(sprite.size) > 40 for sprite in sprites.values())


@with_glyphs
def test_the_bundled_shards_are_drawn_again_bit_for_bit(tmp_path: Path) -> None:
    bundle(tmp_path)
    for shard in sorted((ASSETS / "shards").iterdir()):
        assert (tmp_path / "shards" / shard.name).read_bytes() == shard.read_bytes()


def test_bundled_glyphs_are_the_sprites_pixel_by_pixel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(0)
    drawn = {
        name: Image.fromarray(draw.integers(0, 256, (9, 7, 4), dtype=np.uint8)) for name in CLASSES
    }
    monkeypatch.setattr(glyphs, "find_font", Path)
    monkeypatch.setattr(glyphs, "draw_sprites", lambda font: drawn)
    licence = tmp_path / "copyright"
    licence.write_text("as it is")
    glyphs.bundle(licence, Path("font"), tmp_path / "glyphs")
    read = load_sprites(None, tmp_path / "glyphs")
    assert list(read) == list(CLASSES)
    for name, sprite in read.items():  # also where alpha is 0, which scenes are blended from
        np.testing.assert_array_equal(np.asarray(sprite), np.asarray(drawn[name]))
    assert (tmp_path / "glyphs" / "OFL.txt").read_text() == "as it is"


def test_a_missing_font_names_the_package() -> None:
    with pytest.raises(FileNotFoundError, match="fonts-noto-color-emoji"):
        find_font("/nowhere.ttf")
