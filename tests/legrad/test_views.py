"""Views against a map that is known, against a mean by hand, and as an explainer among others."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import legrad
from legrad.explainer import Encoding, Explainer
from tests.legrad.conftest import Case, make_case, without_shape_checks


@dataclass(frozen=True)
class Seen(Encoding):
    patches: Tensor


class Brightness(Explainer):
    """A raw map is the mean of each patch's first colour, times the text; it notes what it sees."""

    encoding = Seen

    def __init__(self, patch: tuple[int, int]) -> None:
        self.patch = patch
        self.images: list[Tensor] = []
        self.texts: list[Tensor] = []

    def encode(self, images: Tensor) -> Seen:
        self.images.append(images)
        patches = F.avg_pool2d(images[:, :1], self.patch)[:, 0]
        return Seen(images.mean((2, 3)), (patches.shape[1], patches.shape[2]), patches)

    def _maps(self, encoding: Encoding, text: Tensor, pairs: list[int]) -> Tensor:
        assert isinstance(encoding, Seen)
        self.texts.append(text)
        return encoding.patches[pairs] * text[:, :1, None]


def explained(image: np.ndarray, patch: tuple[int, int], *args: int, **settings: object) -> Tensor:
    """The map of one image, given as one colour."""
    images = torch.from_numpy(image).expand(1, 3, -1, -1)
    views = legrad.Views(Brightness(patch), *args, **settings)
    text = torch.ones(1, 3, dtype=images.dtype)
    return views(images, text, torch.tensor([0]))[0]


def middles(cells: int, pixels: int) -> np.ndarray:
    """Of the cells that a side is divided into, in pixels from its beginning."""
    return (np.arange(cells) + 0.5) * pixels / cells


def field(value: object, height: int, width: int) -> np.ndarray:
    """A function of (down, right) in pixels, in the middle of each pixel."""
    down, right = np.meshgrid(middles(height, height), middles(width, width), indexing="ij")
    return value(down, right)


SHAPES = [((4, 4), (32, 32)), ((4, 6), (24, 48)), ((7, 5), (56, 40))]


@pytest.mark.parametrize(("patch", "size"), SHAPES)
@pytest.mark.parametrize("shifts", [2, 4])
@pytest.mark.parametrize("flip", [False, True])
def test_a_ramp_is_itself_in_every_cell_away_from_the_borders(
    patch: tuple[int, int], size: tuple[int, int], shifts: int, flip: bool
) -> None:
    def ramp(down: np.ndarray, right: np.ndarray) -> np.ndarray:
        return 3 + 0.5 * down - 0.2 * right

    found = explained(field(ramp, *size), patch, shifts, flip=flip).numpy()
    rows, columns = (2 * side // p for side, p in zip(size, patch, strict=True))
    assert found.shape == (rows, columns)
    down, right = np.meshgrid(middles(rows, size[0]), middles(columns, size[1]), indexing="ij")
    inside = np.s_[2:-2, 2:-2]
    np.testing.assert_allclose(found[inside], ramp(down, right)[inside], atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(st.floats(10, 30), st.floats(10, 30), st.sampled_from([2, 4]), st.booleans())
def test_a_bump_is_found_where_it_is(down: float, right: float, shifts: int, flip: bool) -> None:
    """To a fiftieth of a patch; a shift the wrong way would be off by a quarter at least."""

    def bump(y: np.ndarray, x: np.ndarray) -> np.ndarray:
        return np.exp(-((y - down) ** 2 + (x - right) ** 2) / (2 * 3.0**2))

    heat = explained(field(bump, 40, 40), (4, 4), shifts, flip=flip).numpy()
    places = middles(20, 40)
    centre = heat.sum(1) @ places / heat.sum(), heat.sum(0) @ places / heat.sum()
    assert centre == pytest.approx((down, right), abs=0.08)


def test_views_are_nearer_to_the_truth_than_one() -> None:
    """Of a field with details of the size of a patch, at the middles of the finer cells."""

    def waves(down: np.ndarray, right: np.ndarray) -> np.ndarray:
        return np.sin(2 * np.pi * down / 9.5) + np.cos(2 * np.pi * (right + down / 3) / 11)

    image = field(waves, 64, 64)
    truth = field(lambda y, x: waves(2 * y, 2 * x), 32, 32)
    plain = explained(image, (4, 4))[None, None]
    once = F.interpolate(plain, (32, 32), mode="bilinear", align_corners=False)[0, 0]

    def error(found: Tensor) -> float:
        return float((found - torch.from_numpy(truth))[2:-2, 2:-2].square().mean().sqrt())

    errors = [error(explained(image, (4, 4), shifts)) for shifts in (2, 4)]
    assert max(errors) < error(once)


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from([1, 2, 4]),
    st.booleans(),
    st.sampled_from([[1.0], [1, 1.5], [0.5, 1], [1.3, 1, 2]]),
)
def test_what_is_the_same_everywhere_stays_so(shifts: int, flip: bool, scales: list[float]) -> None:
    found = explained(np.full((24, 16), 0.3), (4, 4), shifts, flip=flip, scales=scales)
    torch.testing.assert_close(found, torch.full_like(found, 0.3))


def test_a_mirrored_image_has_the_mirrored_map() -> None:
    case = make_case(dtype=torch.float64)
    views = legrad.Views(legrad.build("legrad", case.model), flip=True)
    raw = views(*case.arguments)
    mirrored = views(case.images.flip(3), case.text, case.image_index)
    torch.testing.assert_close(mirrored, raw.flip(2))


def by_hand(
    explainer: Explainer,
    case: Case,
    moves: Sequence[tuple[int, int]],
    flips: Sequence[bool],
    scales: Sequence[int | float],
) -> np.ndarray:
    """The mean as it is documented, with patches of 4 x 4: pads, loops and `numpy.interp`."""
    height, width = case.images.shape[2:]
    finer = 2 if len(moves) > 1 else 1
    grids = [(round(s * height / 4), round(s * width / 4)) for s in scales]
    target = [finer * max(grid[axis] for grid in grids) for axis in (0, 1)]
    levels, means = [], []
    for grid in grids:
        total, count = np.zeros((len(case.text), *target)), np.zeros(target)
        size = 4 * grid[0], 4 * grid[1]
        images = case.images
        if size != (height, width):
            images = F.interpolate(images, size, mode="bicubic", antialias=True)
        for down, right in moves:
            for flip in flips:
                padded = F.pad(images, (2 * right, 0, 2 * down, 0), mode="replicate")
                view = padded[:, :, : size[0], : size[1]]
                raw = explainer(view.flip(3) if flip else view, case.text, case.image_index)
                raw = raw.flip(2) if flip else raw
                y = (np.arange(target[0]) + 0.5) * size[0] / target[0]
                x = (np.arange(target[1]) + 0.5) * size[1] / target[1]
                seen = np.outer(y + 2 * down <= size[0], x + 2 * right <= size[1])
                ys, xs = np.arange(grid[0]) * 4 + 2, np.arange(grid[1]) * 4 + 2
                for q, one in enumerate(raw.numpy()):
                    rows = np.stack([np.interp(x + 2 * right, xs, row) for row in one])
                    there = np.stack([np.interp(y + 2 * down, ys, col) for col in rows.T]).T
                    total[q] += np.where(seen, there, 0)
                count += seen
        means.append(total / count)
        levels.append(np.abs(means[-1]).mean((1, 2), keepdims=True))
    if len(means) == 1:
        return means[0]
    return levels[0] * np.mean([m / level for m, level in zip(means, levels, strict=True)], axis=0)


@pytest.mark.parametrize(
    ("method", "size", "shifts", "flips", "scales"),
    [
        ("legrad", (8, 24), 2, [False], [1]),
        ("text_span", (16, 16), 4, [False, True], [1]),  # signed maps
        ("legrad", (8, 24), 1, [False], [1, 1.5]),
        ("text_span", (16, 8), 2, [False, True], [1, 2]),
    ],
)
def test_the_mean_is_the_one_by_hand(
    method: str, size: tuple[int, int], shifts: int, flips: list[bool], scales: list[float]
) -> None:
    case = make_case(size=size, dtype=torch.float64)
    explainer = legrad.build(method, case.model)
    moves = {1: [(0, 0)], 2: [(0, 0), (1, 1)], 4: [(0, 0), (0, 1), (1, 0), (1, 1)]}[shifts]
    views = legrad.Views(explainer, shifts, flip=len(flips) > 1, scales=scales[::-1])
    embedding, raw = views.explain(*case.arguments)
    np.testing.assert_allclose(raw, by_hand(explainer, case, moves, flips, scales), rtol=1e-9)
    torch.testing.assert_close(embedding, explainer.encode(case.images).embedding)


SOME: dict[str, object] = {"shifts": 2, "scales": [1, 1.5]}


@pytest.fixture(name="views")
def make_views(case: Case) -> legrad.Views:
    return legrad.Views(legrad.build("legrad", case.model), **SOME)


def test_both_engines_agree() -> None:
    case = make_case(dtype=torch.float64)
    fast, slow = (
        legrad.Views(legrad.build("legrad", case.model, engine=engine), **SOME)(*case.arguments)
        for engine in legrad.ENGINES
    )
    torch.testing.assert_close(fast, slow)


def test_the_two_forms_agree(case: Case, views: legrad.Views) -> None:
    embedding, raw = views.explain(*case.arguments)
    assert raw.shape == (6, 12, 12)
    encoding = views.encode(case.images)
    assert encoding.grid == (12, 12)
    torch.testing.assert_close(encoding.embedding, embedding)
    first, second = (views.maps(encoding, case.text, case.image_index) for _ in range(2))
    assert torch.equal(first, second)
    torch.testing.assert_close(first, raw, rtol=1e-4, atol=1e-5 * float(raw.max()))


def test_pairs_are_independent_and_what_is_not_finite_stays_by_itself(
    case: Case, views: legrad.Views
) -> None:
    expected = views(*case.arguments)
    alone = views(case.images[2:3], case.text[3:4], torch.tensor([0]))
    torch.testing.assert_close(alone[0], expected[3], rtol=1e-4, atol=1e-9)
    images, text = case.images.clone(), case.text.clone()
    images[2, 0, 3, 3], text[4] = torch.nan, torch.nan
    raw = views(images, text, case.image_index)
    assert legrad.degenerate(raw).tolist() == [False, False, False, True, True, False]
    finite = [0, 1, 2, 5]
    torch.testing.assert_close(raw[finite], expected[finite], rtol=1e-4, atol=1e-9)


def test_no_pairs_need_no_view_but_the_plain_one() -> None:
    seen = Brightness((4, 4))
    views = legrad.Views(seen, **SOME)
    images, none = torch.rand(2, 3, 16, 8), torch.zeros(0, dtype=torch.long)
    assert views(images, torch.ones(0, 3), none).shape == (0, 12, 6)
    assert len(seen.images) == 1


def test_texts_are_shared_and_images_without_any_are_seen_once() -> None:
    seen = Brightness((4, 4))
    views = legrad.Views(seen, 4, flip=True)
    images, text = torch.rand(3, 3, 16, 16), torch.rand(2, 3)
    views(images, text, torch.tensor([2, 0]))
    assert [len(view) for view in seen.images] == [3, *[2] * 7]
    assert all(used is text for used in seen.texts)


def test_larger_images_bring_their_details() -> None:
    seen = Brightness((4, 4))
    large = torch.rand(1, 3, 24, 24)
    views = legrad.Views(seen, scales=[1, 1.5], size=(16, 16))
    embedding, _ = views.explain(large, torch.ones(1, 3), torch.tensor([0]))
    plain, larger = seen.images
    assert torch.equal(larger, large)
    expected = F.interpolate(large, (16, 16), mode="bicubic", antialias=True)
    torch.testing.assert_close(plain, expected)
    torch.testing.assert_close(embedding, expected.mean((2, 3)))


def test_works_under_inference_mode_and_in_half_precision(case: Case, views: legrad.Views) -> None:
    expected = views(*case.arguments)
    with torch.inference_mode():
        arguments = [argument.clone() for argument in case.arguments]
        assert torch.equal(views(*arguments), expected)
    half = make_case(dtype=torch.bfloat16)
    found = legrad.Views(legrad.build("legrad", half.model), **SOME)(*half.arguments)
    assert found.dtype == torch.float32 and found.isfinite().all()


def test_an_encoding_of_another_explainer_is_refused(case: Case, views: legrad.Views) -> None:
    encoding = legrad.build("legrad", case.model).encode(case.images)
    with pytest.raises(TypeError, match="Views takes ViewsEncoding, not LayerStates"):
        views.maps(encoding, case.text, case.image_index)


def test_the_empty_prompt_is_taken_out_of_every_view(case: Case) -> None:
    corrected = legrad.build("legrad", case.model, empty_text=case.text[0], empty_threshold=0.5)
    views = legrad.Views(corrected, 2)
    assert views.heat_order is corrected.heat_order
    plain = legrad.Views(legrad.build("legrad", case.model), 2)(*case.arguments)
    raw = views(*case.arguments)
    assert (raw <= plain + 1e-6).all() and (raw < plain - 1e-6).any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shifts": 3}, "shifts=3: give 1"),
        ({"shifts": True}, "shifts=True: give 1, 2 or 4"),
        ({"flip": 1}, "flip is of type int: give True or False"),
        ({"scales": []}, r"scales=\[\]: 1 must be among them"),
        ({"scales": [1.5]}, r"scales=\[1.5\]: 1 must be among them"),
        ({"scales": [1, 1.0]}, "one is listed twice"),
        ({"scales": [1, 0]}, "each must be a number above 0"),
        ({"scales": [1, float("inf")]}, "each must be a number above 0"),
        ({"scales": [1, "2"]}, "a scale in scales='2': give a number"),
        ({"size": (1.5, 2)}, "a side in size=1.5: give whole pixels"),
        ({"explainer": "legrad"}, "explainer is of type str: give what `build` returns"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, object], message: str) -> None:
    given = {"explainer": Brightness((4, 4)), **settings}
    with without_shape_checks(), pytest.raises((TypeError, ValueError), match=message):
        legrad.Views(**given)


def test_cells_that_have_no_half_are_refused(case: Case) -> None:
    for empty in (None, case.text[0]):
        lrp = legrad.build("lrp", case.model, empty_text=empty)
        with pytest.raises(ValueError, match="this method's maps have a cell per pixel"):
            legrad.Views(lrp, 2)
    pixels = legrad.Views(Brightness((1, 2)), 2)
    with pytest.raises(ValueError, match="shifts=2: half a patch of 1x2 pixels is less than a"):
        pixels.encode(torch.rand(1, 3, 4, 4))
    assert legrad.Views(Brightness((1, 2)), flip=True).encode(torch.rand(1, 3, 4, 4)).grid == (4, 2)


def test_images_that_do_not_fit_are_refused_as_without_views(case: Case) -> None:
    explainer = legrad.build("legrad", case.model)
    for size in (None, (16, 16), (16, 18)):
        views = legrad.Views(explainer, 2, size=size)
        for images, message in [
            (torch.ones(3, 16, 16), r"expected \[B, 3, H, W\]"),
            (torch.ones(4, 3, 16, 16).long(), "images is a tensor of int64"),
            (torch.ones(4, 3, 16, 18), "16x18 is not a multiple"),
        ]:
            if size == (16, 16) and images.shape[-1] == 18:
                continue
            arguments = images, case.text, case.image_index
            with without_shape_checks(), pytest.raises((TypeError, ValueError), match=message):
                views.explain(*arguments)
