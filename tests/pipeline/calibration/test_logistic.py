"""Probabilities against another library, and their error against figures made by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from pipeline.calibration.logistic import (
    calibration_error,
    fit_logistic,
    probabilities,
    reliability,
)
from pipeline.errors import ConfigError
from pipeline.inputs.calibration import Calibration, load_calibration


def test_the_curve_is_the_one_that_another_library_finds() -> None:
    """Platt's softened truth is a pair of both kinds, each with its weight."""
    rng = np.random.default_rng(0)
    score = rng.normal(0.3, 0.1, 400)
    present = rng.random(400) < 1 / (1 + np.exp(-40 * (score - 0.35)))
    there = int(present.sum())
    weight = np.where(present, (there + 1) / (there + 2), 1 / (400 - there + 2))
    theirs = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(
        np.tile(100 * score, 2)[:, None],
        np.repeat([1, 0], 400),
        sample_weight=np.concatenate([weight, 1 - weight]),
    )
    found = fit_logistic(score, present)
    assert found.slope == pytest.approx(100 * theirs.coef_[0, 0], rel=1e-4)
    assert found.intercept == pytest.approx(theirs.intercept_[0], rel=1e-4)
    np.testing.assert_allclose(
        probabilities(found, score), [found.probability(one) for one in score], rtol=1e-12
    )


def test_scores_that_tell_everything_apart_have_a_curve_too() -> None:
    score = np.array([0.1, 0.11, 0.12, 0.3, 0.31])
    found = fit_logistic(score, score > 0.2)
    # Two of two, softened, are three quarters; none of three are a fifth.
    assert probabilities(found, score).sum() == pytest.approx(2 * 3 / 4 + 3 / 5)
    assert found.probability(0.31) > 0.7 and found.probability(0.1) < 0.25


def test_scores_that_are_all_the_same_say_nothing() -> None:
    found = fit_logistic(np.full(4, 0.25), np.array([True, False, False, False]))
    assert found.probability(0.25) == pytest.approx((2 / 3 + 3 / 5) / 4)


def test_extreme_scores_have_a_probability() -> None:
    steep = Calibration(1e6, 0.0)
    assert [steep.probability(score) for score in (-1.0, 0.0, 1.0)] == [0.0, 0.5, 1.0]
    assert np.isnan(steep.probability(float("nan")))


def test_the_calibration_error_by_hand() -> None:
    probability = np.array([0.05, 0.05, 0.92, 0.98, 1.0])
    present = np.array([False, True, True, True, False])
    counts, means, parts = reliability(probability, present)
    assert counts.tolist() == [2, 0, 0, 0, 0, 0, 0, 0, 0, 3]
    assert (means[0], parts[0]) == (0.05, 0.5)
    assert np.isnan(means[1]) and means[9] == pytest.approx(2.9 / 3)
    # (2 · |0.05 − 0.5| + 3 · |2.9 / 3 − 2 / 3|) / 5
    assert calibration_error(probability, present) == pytest.approx((0.9 + 0.9) / 5)


IDENTITY: dict[str, Any] = {
    "model": {"name": "a", "pretrained": "b", "precision": "float32", "image_size": None},
    "prompts": {"source": "labels", "templates": ["{}"], "classes": ""},
}
MADE_FOR = {
    **{"model": "a", "pretrained": "b", "image_size": None, "weight_settings": {}},
    **{"largest_scale": 1.0, "source": "names", "templates": ["{}"]},
}
GOOD = {
    "format": 2,
    "made_for": MADE_FOR,
    "probability": {"slope": 2.0, "intercept": -1.0},
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"made_for": MADE_FOR | {"model": "c"}}, "was made for another model, whose"),
        ({"format": 1}, "not what jobs/calibrate.py writes .*format 1"),
        ({"made_for": []}, "not what jobs/calibrate.py writes .*made_for is no object"),
        ({"made_for": None}, "not what jobs/calibrate.py writes .*made_for is no object"),
        ({"probability": {"slope": "steep"}}, "not what jobs/calibrate.py writes"),
        ({"probability": {"slope": float("nan"), "intercept": 0}}, "that is no number"),
    ],
)
def test_a_file_that_does_not_do_is_refused(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(GOOD))
    assert load_calibration(str(path), IDENTITY) == Calibration(2.0, -1.0)
    path.write_text(json.dumps(GOOD | changes))
    with pytest.raises(ConfigError, match=f"^--prompts.calibration .*{message}"):
        load_calibration(str(path), IDENTITY)
    assert load_calibration("", IDENTITY) is None


@pytest.mark.parametrize(
    ("changes", "another"),
    [
        ({"model": {"image_size": 448}}, "image_size"),
        ({"model": {"mean": [0.5, 0.5, 0.5]}}, "weight_settings"),
        ({"model": {"quick_gelu": True}}, "weight_settings"),
        ({"views": {"scales": [1.0, 1.5]}}, "largest_scale"),
        ({"prompts": {"source": "caption"}}, "source"),
        ({"prompts": {"source": "embeddings"}}, "source"),
        ({"model": {"image_size": 448}, "prompts": {"templates": ["a {}"]}}, "image_size, another"),
        ({"model": {"precision": "bfloat16"}}, None),
        ({"views": {"shifts": 4, "flip": True, "scales": [1.0, 0.5]}}, None),
        ({"prompts": {"source": "vocabulary", "classes": "digest of another"}}, None),
        ({"method": "gradcam", "mask": {"threshold": 0.3}}, None),
    ],
)
def test_a_calibration_serves_runs_with_the_same_scores(
    tmp_path: Path, changes: dict[str, Any], another: str | None
) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(GOOD))
    identity = dict(IDENTITY)
    for name, value in changes.items():
        identity[name] = {**IDENTITY.get(name, {}), **value} if isinstance(value, dict) else value
    if another is None:
        assert load_calibration(str(path), identity) == Calibration(2.0, -1.0)
        return
    with pytest.raises(ConfigError, match=f"was made for another {another}"):
        load_calibration(str(path), identity)
