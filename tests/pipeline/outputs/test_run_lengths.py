"""Pixels looked up in run lengths are those of the decoded mask."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from pipeline.outputs.masks import decode, encode
from pipeline.outputs.run_lengths import pixels_set, run_ends


@given(
    arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 1)),
    st.integers(1, 50),
)
def test_every_pixel(mask: np.ndarray, scale: int) -> None:
    mask = mask.repeat(scale, axis=0)  # long runs take several digits
    (segmentation,) = encode(np.asfortranarray(mask[..., None]))
    rows, columns = (axis.ravel() for axis in np.indices(mask.shape))
    found = pixels_set(segmentation, rows, columns)
    np.testing.assert_array_equal(found.reshape(mask.shape), decode(segmentation))


def test_run_ends_by_hand() -> None:
    mask = np.array([[0, 1, 1], [0, 0, 1]], dtype=np.uint8)  # down the columns: 0 0 1 0 1 1
    (segmentation,) = encode(np.asfortranarray(mask[..., None]))
    assert run_ends(segmentation["counts"]).tolist() == [2, 3, 4, 6]
