"""LeGrad x contrasted TextSpan: against NumPy on the maps of both, on the demo's CLIP."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import legrad
from pipeline.demo.quality import bundled_scenes
from pipeline.demo.sprites import CLASSES
from pipeline.models.demo import TEMPLATE, create, normalise, tokenize
from tests.legrad.conftest import Case, make_case


@pytest.fixture(scope="module")
@torch.no_grad()
def scenes() -> tuple[torch.nn.Module, Tensor, Tensor, Tensor, Tensor]:
    """The demo's CLIP in float64, three scenes, what is in them, and all classes."""
    model, scenes = create().double(), bundled_scenes()[:3]
    pixels = torch.stack([torch.from_numpy(scene.image) for scene in scenes]).permute(0, 3, 1, 2)
    side = model.visual.image_size
    images = normalise(F.interpolate(pixels.double(), side, mode="bicubic", antialias=True))
    names = sorted(CLASSES)
    classes = model.encode_text(tokenize([TEMPLATE.format(n) for n in names]), normalize=True)
    pairs = [(i, names.index(name)) for i, scene in enumerate(scenes) for name in scene.masks]
    index, rows = (torch.tensor(column) for column in zip(*pairs, strict=True))
    return model, images, classes[rows], index, classes


def minmax(x: np.ndarray) -> np.ndarray:
    return (x - x.min()) / (x.max() - x.min())


@pytest.mark.parametrize("layers", [None, 4])
def test_heat_is_that_of_the_product_of_both(
    scenes: tuple[torch.nn.Module, Tensor, Tensor, Tensor, Tensor], layers: int | None
) -> None:
    """Each class explained for itself by TextSpan, and the mean taken of 48 maps."""
    model, images, text, index, classes = scenes
    explainer = legrad.build("legrad_text_span", model, layers, background=classes)
    found = legrad.minmax(explainer(images, text, index)).numpy()
    smooth = legrad.build("legrad", model, layers)(images, text, index).numpy()
    span = legrad.build("text_span", model)
    own = span(images, text, index).numpy()
    owners = torch.arange(len(images)).repeat_interleave(len(classes))
    every = span(images, classes.repeat(len(images), 1), owners).numpy()
    every = every.reshape(len(images), len(classes), *own.shape[1:])
    for query, image in enumerate(index.tolist()):
        contrast = np.maximum(own[query] - every[image].mean(axis=0), 0)
        expected = minmax(np.sqrt(minmax(smooth[query]) * minmax(contrast)))
        np.testing.assert_allclose(found[query], expected, rtol=0, atol=1e-6)


def test_raw_maps_of_an_image_are_comparable(
    scenes: tuple[torch.nn.Module, Tensor, Tensor, Tensor, Tensor],
) -> None:
    """They are not stretched each for itself: what is there has higher maps than what is not."""
    model, images, text, index, classes = scenes
    explainer = legrad.build("legrad_text_span", model, background=classes)
    owners = torch.arange(len(images)).repeat_interleave(len(classes))
    every = explainer(images, classes.repeat(len(images), 1), owners).amax((1, 2))
    every = every.view(len(images), len(classes))
    there = torch.zeros_like(every, dtype=torch.bool)
    for image, row in zip(index.tolist(), text, strict=True):
        there[image] |= (classes == row).all(1)
    for of_image, own in zip(every, there, strict=True):
        assert of_image[own].min() > of_image[~own].median()


def test_both_engines_agree() -> None:
    case = make_case(dtype=torch.float64)
    for options in ({}, {"background": case.text[2:]}):
        fast, slow = (
            legrad.build("legrad_text_span", case.model, 2, engine=engine, **options)
            for engine in ("closed_form", "autograd")
        )
        torch.testing.assert_close(
            fast(*case.arguments), slow(*case.arguments), rtol=1e-5, atol=1e-9
        )


def test_layers_are_those_of_legrad() -> None:
    case = make_case(dtype=torch.float64)
    span = legrad.build("text_span", case.model)(*case.arguments).clamp(min=0)
    smooth = legrad.build("legrad", case.model, [1])(*case.arguments)
    expected = [map_ - map_.amin((1, 2), keepdim=True) for map_ in (span, smooth)]
    found = legrad.build("legrad_text_span", case.model, [1])(*case.arguments)
    torch.testing.assert_close(found**2, expected[0] * expected[1], rtol=1e-9, atol=1e-15)


def test_one_forward_pass_serves_both(case: Case) -> None:
    def work(run: object) -> int:
        with FlopCounterMode(display=False) as counter:
            run()
        return counter.get_total_flops()

    forward = work(lambda: case.model.encode_image(case.images))
    alone, both = (
        work(lambda m=method: legrad.build(m, case.model)(*case.arguments))
        for method in ("legrad", "legrad_text_span")
    )
    assert alone < both < alone + forward / 3


def test_a_text_like_all_others_is_found_nowhere(case: Case) -> None:
    explainer = legrad.build("legrad_text_span", case.model, background=case.text[:1])
    raw = explainer(case.images, case.text[:1].expand(6, -1), case.image_index)
    assert not raw.any() and legrad.degenerate(raw).all()


def test_a_correction_clears_its_cells(case: Case) -> None:
    plain = legrad.build("legrad_text_span", case.model)
    raw, empty = plain(*case.arguments), case.text[0]
    hot = legrad.minmax(plain(case.images, empty.expand(6, -1), case.image_index)) > 0.8
    corrected = legrad.build("legrad_text_span", case.model, empty_text=empty)
    assert hot.any()
    torch.testing.assert_close(corrected(*case.arguments), raw.masked_fill(hot, 0))
