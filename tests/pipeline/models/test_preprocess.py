"""Pixels as open_clip's own preprocessing has them."""

import io
from collections.abc import Callable

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from pipeline.inputs.images import decode
from pipeline.models.demo import create
from pipeline.models.preprocess import Preprocess


def test_preprocessing_is_the_models_own(picture: Callable[..., bytes]) -> None:
    model = create(None)
    preprocess = Preprocess.of_clip(model)
    assert preprocess.size == 96
    _, _, theirs = open_clip.create_model_and_transforms("legrad-demo")
    image = picture(1, size=(96, 96), format="PNG")  # no resizing: equal up to rounding
    pixels = preprocess.squash(decode(image, max_pixels=1 << 20))
    ours = preprocess.normalise(pixels[None], torch.device("cpu"), torch.float32)[0]
    torch.testing.assert_close(ours, theirs(Image.open(io.BytesIO(image))))


def test_another_image_size_can_be_asked_for() -> None:
    preprocess = Preprocess.of_clip(create(None), image_size=64)
    pixels = torch.zeros(3, 20, 30, dtype=torch.uint8)
    assert preprocess.squash(pixels).shape == (3, 64, 64)


@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("size", [(96, 200), (200, 97), (64, 64)])
def test_fitting_is_open_clips_own(mode: str, size: tuple[int, int]) -> None:
    model = create(None)
    model.visual.preprocess_cfg |= {"resize_mode": mode, "fill_color": 7}
    coarse = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize(size)
    own = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
    expected = own(image)
    preprocess = Preprocess.of_clip(model)
    fitted = preprocess.fit(torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1))
    found = preprocess.normalise(fitted[None], torch.device("cpu"), torch.float32)[0]
    assert (found - expected).abs().mean() < 0.01  # a grey level is 0.015
