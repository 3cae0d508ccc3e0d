"""Arguments that are wrong in kind work, or are refused in one sentence that says what to give."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

import legrad
from legrad.explainer import select_layers
from tests.legrad.conftest import Case, without_shape_checks

NAN = torch.full((12,), torch.nan)
RAW = torch.rand(2, 3, 4)
Use = Callable[[Case], object]


def built(method: str = "legrad", **arguments: object) -> Use:
    return lambda case: legrad.build(method, case.model, **arguments)


def explained(**changes: object) -> Use:
    """`explain` of a case with some of its arguments changed."""

    def use(case: Case) -> object:
        own = {"images": case.images, "text": case.text, "image_index": case.image_index}
        return legrad.build("legrad", case.model).explain(**{**own, **changes})

    return use


def heated(raw: object = RAW, size: object = (8, 8), **arguments: object) -> Use:
    return lambda case: legrad.heatmap(raw, size, **arguments)


LAYERS = (
    "give None for all blocks, a whole number k for the last k, a part below 1 of them, or a list "
    "of 0-based indices"
)
SIZE = r"give two whole numbers, \(rows, columns\) in pixels"
IMAGES = "give them preprocessed for the model, as a tensor of floats"
TEXT = r"give embeddings \[Q, 12\] as a tensor of floats, not token ids"
INDEX = r"give the image of each text, a tensor \[Q\] of integers"
REFUSED: dict[str, tuple[Use, str]] = {
    "model by name": (
        lambda case: legrad.build("legrad", "ViT-B-16"),
        "model is of type str: give the model itself",
    ),
    "method and model swapped": (
        lambda case: legrad.build(case.model, case.model),
        "method is of type CLIP: give its name",
    ),
    "layers true": (built(layers=True), f"layers=True: {LAYERS}"),
    "layers numpy true": (built(layers=np.True_), f"layers=True: {LAYERS}"),
    "layers text": (built(layers="2"), f"layers='2': {LAYERS}"),
    "layers float": (built(layers=2.0), r"layers=2.0: a part .* a whole number k for the last k"),
    "layers part 1": (built(layers=1.0), "layers=1.0: a part of the blocks lies between 0 and 1"),
    "layers part 0": (built(layers=0.0), "layers=0.0: a part of the blocks lies between 0 and 1"),
    "layers part nan": (built(layers=np.nan), "layers=nan: a part of the blocks lies between"),
    "layers of floats": (built(layers=[0.0, 1.0]), f"a block in layers=0.0: {LAYERS}"),
    "layers of bools": (built(layers=[True]), f"a block in layers=True: {LAYERS}"),
    "layers of a float array": (built(layers=np.ones(2)), f"a block in layers=1.0: {LAYERS}"),
    "layers nested": (built(layers=[[0]]), rf"a block in layers=\[0\]: {LAYERS}"),
    "layers 0": (built(layers=0), r"layers=0: the last k blocks need k in 1..3"),
    "layers 4": (built(layers=4), r"layers=4: the last k blocks need k in 1..3"),
    "layers negative": (built(layers=-2), r"layers=-2: the last k blocks need k in 1..3"),
    "layers empty": (built(layers=[]), r"layers=\[\]: name at least one block"),
    "layers twice": (built(layers=[1, 1]), r"layers=\[1, 1\]: a block is listed twice"),
    "layers too high": (built(layers=[3]), r"layers=\[3\]: 0-based indices must lie in 0..2"),
    "layers below 0": (built(layers=[-1, 2]), r"layers=\[-1, 2\]: 0-based indices"),
    "layers of gem": (built("gem", layers=True), f"layers=True: {LAYERS}"),
    "budget text": (
        built(memory_budget="1GB"),
        "memory_budget='1GB': give a whole number of bytes",
    ),
    "budget float": (built(memory_budget=1e9), "memory_budget=1000000000.0: give a whole number"),
    "empty text list": (
        built(empty_text=[0.0] * 12),
        r"empty_text is of type list: give an embedding \[12\]",
    ),
    "empty text of tokens": (
        built(empty_text=torch.zeros(12, dtype=torch.int64)),
        r"empty_text is a tensor of int64: give an embedding \[12\]",
    ),
    "empty text nan": (built(empty_text=NAN), "empty_text has values that are not finite"),
    "empty threshold text": (
        built(empty_text=torch.ones(12), empty_threshold="0.8"),
        "empty_threshold='0.8': give a number in 0..1",
    ),
    "empty threshold nan": (
        built(empty_text=torch.ones(12), empty_threshold=float("nan")),
        "empty_threshold=nan: must lie in 0..1",
    ),
    "background of tokens": (
        built("text_span", background=torch.zeros(2, 12, dtype=torch.int64)),
        r"background is a tensor of int64: give embeddings \[C, 12\]",
    ),
    "background empty": (
        built("text_span", background=torch.zeros(0, 12)),
        r"background has shape \(0, 12\), expected \[C, 12\]",
    ),
    "background nan": (
        built("text_span", background=NAN[None]),
        "background has values that are not finite",
    ),
    "images uint8": (
        explained(images=torch.zeros(4, 3, 16, 16, dtype=torch.uint8)),
        f"images is a tensor of uint8: {IMAGES}",
    ),
    "images numpy": (
        explained(images=np.zeros((4, 3, 16, 16), np.float32)),
        f"images is of type ndarray: {IMAGES}",
    ),
    "images elsewhere": (
        explained(images=torch.zeros(4, 3, 16, 16, device="meta")),
        "images are on meta, the model on cpu",
    ),
    "text of tokens": (
        explained(text=torch.zeros(6, 77, dtype=torch.int64)),
        f"text is a tensor of int64: {TEXT}",
    ),
    "text as strings": (explained(text=["a dog"]), f"text is of type list: {TEXT}"),
    "index float": (explained(image_index=torch.zeros(6)), f"tensor of float32: {INDEX}"),
    "index bool": (
        explained(image_index=torch.zeros(6, dtype=torch.bool)),
        f"image_index is a tensor of bool: {INDEX}",
    ),
    "index list": (explained(image_index=[0] * 6), f"image_index is of type list: {INDEX}"),
    "images for an encoding": (
        lambda case: legrad.build("legrad", case.model).maps(*case.arguments),
        "ClosedFormLeGrad takes LayerStates, not Tensor: encode the images with the same explainer",
    ),
    "raw of one map": (
        heated(RAW[0]),
        r"raw has shape \(3, 4\): give a single map as raw\[None\]",
    ),
    "raw of four axes": (heated(RAW[None]), r"raw has shape .*, expected \[Q, rows, columns\]"),
    "raw without cells": (heated(RAW[:, :0]), r"\(2, 0, 4\), expected \[Q, rows, columns\]"),
    "raw numpy": (heated(RAW.numpy()), r"raw is of type ndarray: give maps \[Q, rows, columns\]"),
    "raw of whole numbers": (heated(RAW.long()), r"raw is a tensor of int64: give maps"),
    "size of one side": (heated(size=224), f"size=224: {SIZE}"),
    "size of three": (heated(size=(8, 8, 3)), rf"size=\(8, 8, 3\): {SIZE}"),
    "size of floats": (heated(size=(8.0, 8)), f"a side in size=8.0: {SIZE}"),
    "size of bools": (heated(size=(True, 8)), f"a side in size=True: {SIZE}"),
    "size of text": (heated(size="88"), f"size='88': {SIZE}"),
    "size 0": (heated(size=(0, 4)), r"size=\(0, 4\): both sides must be positive"),
    "size negative": (heated(size=(4, -1)), r"size=\(4, -1\): both sides must be positive"),
    "order by name": (
        heated(order="normalise_upsample"),
        "order is of type str: give a HeatOrder, such as an explainer's heat_order",
    ),
    "one map for minmax": (
        lambda case: legrad.minmax(RAW[0]),
        r"give a single map as maps\[None\]",
    ),
    "one map for degenerate": (
        lambda case: legrad.degenerate(RAW[0]),
        r"give a single map as maps\[None\]",
    ),
}


@pytest.mark.parametrize(("use", "message"), REFUSED.values(), ids=REFUSED)
def test_is_refused_in_one_sentence(case: Case, use: Use, message: str) -> None:
    with without_shape_checks(), pytest.raises((TypeError, ValueError), match=message) as refused:
        use(case)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("layers", "chosen"),
    [
        (None, (0, 1, 2, 3)),
        (1, (3,)),
        (4, (0, 1, 2, 3)),
        ([3, 0], (0, 3)),
        ((2,), (2,)),
        (range(1, 3), (1, 2)),
        ({1, 0}, (0, 1)),
        (np.int64(2), (2, 3)),
        (np.array(2), (2, 3)),
        ([np.int32(2), 0], (0, 2)),
        (np.array([1, 0]), (0, 1)),
        (torch.tensor(2), (2, 3)),
        (torch.tensor([1]), (1,)),
        (0.67, (1, 2, 3)),
        (0.5, (2, 3)),
        (0.01, (3,)),
        (0.99, (0, 1, 2, 3)),
        (np.float32(0.67), (1, 2, 3)),
        (torch.tensor(0.5), (2, 3)),
    ],
)
def test_layers_can_be_numbers_of_any_kind(layers: object, chosen: tuple[int, ...]) -> None:
    with without_shape_checks():
        found = select_layers(layers, 4)
    assert found == chosen
    assert all(type(layer) is int for layer in found)


@pytest.mark.parametrize("size", [[9, 8], torch.Size([9, 8]), (np.int64(9), np.int64(8))])
def test_sizes_can_be_whole_numbers_of_any_kind(size: object) -> None:
    with without_shape_checks():
        assert torch.equal(legrad.heatmap(RAW, size), legrad.heatmap(RAW, (9, 8)))


def test_settings_can_be_numbers_of_numpy(case: Case) -> None:
    numbers = {"memory_budget": np.int64(1 << 20), "empty_threshold": np.float32(0.5)}
    empty = case.text[0].clone().requires_grad_()
    with without_shape_checks():
        found = legrad.build("legrad", case.model, empty_text=empty, **numbers)(*case.arguments)
    assert not found.requires_grad
    expected = legrad.build("legrad", case.model, empty_text=case.text[0], empty_threshold=0.5)
    torch.testing.assert_close(found, expected(*case.arguments))


def test_maps_of_a_leaf_that_needs_gradients_are_left_alone() -> None:
    raw = RAW.clone().requires_grad_()
    heat = legrad.heatmap(raw, (8, 8))
    torch.testing.assert_close(heat.detach(), legrad.heatmap(RAW, (8, 8)))
    assert torch.equal(raw.detach(), RAW)
