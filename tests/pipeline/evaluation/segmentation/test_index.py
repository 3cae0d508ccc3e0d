"""Masks of class numbers, in a folder or beside the images."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import Reject
from pipeline.evaluation.segmentation.truth import IndexTruth
from pipeline.inputs.tars import RawSample

Run = Callable[..., Any]


def test_masks_are_found_by_the_whole_key_first(tmp_path: Path) -> None:
    classes = tmp_path / "classes.yaml"
    classes.write_text("- {id: 1, name: dog}")
    for name, value in (("a", 0), ("sub/a", 1)):
        path = tmp_path / "masks" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4), value, dtype=np.uint8)).save(path)
    truth = IndexTruth(str(tmp_path / "masks"), "", str(classes))
    for key in ("sub/a", "train/sub/a"):
        found = truth(RawSample(0, key, {}))
        assert found is not None and found.image == "sub/a"
    assert truth(RawSample(0, "other/a", {})) is None  # only background

    (tmp_path / "masks" / "other").mkdir()
    (tmp_path / "masks" / "a.png").rename(tmp_path / "masks" / "other" / "a.png")
    (tmp_path / "masks" / "._a.png").write_bytes(b"a Mac's notes")
    truth = IndexTruth(str(tmp_path / "masks"), "", str(classes))
    with pytest.raises(Reject, match="several_truths: a: could be other/a and sub/a"):
        truth(RawSample(0, "a", {}))


def test_index_masks(
    tmp_path: Path, picture: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "classes.yaml").write_text("- {id: 3, name: dog}\n- {id: 4, name: cat}\n")
    png = io.BytesIO()
    Image.fromarray(np.array([[0, 3, 255], [4, 4, 9]], dtype=np.uint8)).save(png, "PNG")
    read = IndexTruth("", "seg.png", str(tmp_path / "classes.yaml"))
    found = read(RawSample(0, "k", {"seg.png": png.getvalue()}))
    assert found is not None and found.names == ["dog", "cat"]
    assert found.masks.sum((1, 2)).tolist() == [1, 2] and found.ignored.sum() == 1
    assert read(RawSample(0, "k", {})) is None
    for bad, why in (
        (png.getvalue()[:30], "bad_mask: "),
        (b"", "bad_mask: not a PNG$"),
        (picture(size=(4, 4), format="PNG"), "bad_mask: 3 axes"),
        (picture(size=(4, 4)), "bad_mask: not a PNG$"),
    ):
        with pytest.raises(Reject, match=why):
            read(RawSample(0, "k", {"seg.png": bad}))
    noted = io.BytesIO()  # by notes beside it, Pillow would refuse it
    profile = np.random.default_rng(0).bytes(100) + bytes(2 << 20)
    Image.open(png).save(noted, "PNG", icc_profile=profile)
    again = read(RawSample(0, "k", {"seg.png": noted.getvalue()}))
    assert again is not None and again.masks.sum((1, 2)).tolist() == [1, 2]
    monkeypatch.setattr("pipeline.evaluation.segmentation.truth.MOST_PIXELS", 5)
    with pytest.raises(Reject, match="bad_mask: 3x2 pixels"):
        read(RawSample(0, "k", {"seg.png": png.getvalue()}))
