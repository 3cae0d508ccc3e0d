"""What cannot be judged by parts is refused."""

import numpy as np
import pytest

from pipeline.calibration.config import CalibrateConfig
from pipeline.calibration.found import cross_validate
from pipeline.calibration.sample import LabelledSample
from pipeline.errors import ConfigError


def test_images_that_a_part_leaves_need_something_that_is_there() -> None:
    """One image of four has all that is there: whoever leaves it out has nothing to go by."""
    image = np.repeat(np.arange(4), 2)
    sample = LabelledSample(
        *(["dog", "cat"], 4, image, np.tile([0, 1], 4), np.linspace(0, 1, 8)),
        *(image == 3, np.zeros(4, np.int64), 0, None, "no places"),
    )
    easy = {"precision": 0.5, "confidence": 0.5}
    config = CalibrateConfig("run", "out", coco="truth.json", folds=4, **easy)
    why = r"^--folds 4: .* all 6 pairs of the 3 images left are absent"
    with pytest.raises(ConfigError, match=why):
        cross_validate(config, sample)
