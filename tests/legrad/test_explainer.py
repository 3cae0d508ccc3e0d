"""LeGrad in both engines, beside what holds for every method; and names."""

import pytest
import torch

import legrad
from tests.legrad.conftest import Case, make_case

every_engine = pytest.mark.parametrize("engine", legrad.ENGINES)


@every_engine
def test_scaling_a_text_does_not_change_its_heatmap(engine: str) -> None:
    case = make_case(dtype=torch.float64)
    explainer = legrad.build("legrad", case.model, engine=engine)
    heat = legrad.heatmap(explainer(*case.arguments), size=(9, 9))
    scaled = explainer(case.images, 7.5 * case.text, case.image_index)
    torch.testing.assert_close(legrad.heatmap(scaled, size=(9, 9)), heat, rtol=0, atol=1e-5)


@every_engine
def test_maps_of_layers_average(engine: str) -> None:
    case = make_case(dtype=torch.float64)

    def maps(layers: object) -> torch.Tensor:
        return legrad.build("legrad", case.model, layers, engine=engine)(*case.arguments)

    each = [maps([index]) for index in range(3)]
    torch.testing.assert_close(maps(None), sum(each) / 3)
    torch.testing.assert_close(maps(2), (each[1] + each[2]) / 2)
    torch.testing.assert_close(maps((2, 0)), (each[0] + each[2]) / 2)


@pytest.mark.parametrize(("mine", "other"), [legrad.ENGINES, legrad.ENGINES[::-1]])
def test_an_encoding_of_another_engine_is_refused(case: Case, mine: str, other: str) -> None:
    explainer = legrad.build("legrad", case.model, engine=mine)
    encoding = legrad.build("legrad", case.model, engine=other).encode(case.images)
    with pytest.raises(TypeError, match="encode the images with the same explainer"):
        explainer.maps(encoding, case.text, case.image_index)


def test_unknown_names_are_answered_with_the_known_ones(case: Case) -> None:
    with pytest.raises(ValueError, match=r"'grad_cam' \(did you mean gradcam\?\); known: legrad, "):
        legrad.build("grad_cam", case.model)
    with pytest.raises(ValueError, match="'fast'; known: closed_form, autograd"):
        legrad.build("legrad", case.model, engine="fast")
    with pytest.raises(ValueError, match="memory_budget=0"):
        legrad.build("legrad", case.model, memory_budget=0)


def test_public_names() -> None:
    assert legrad.METHODS == (
        "legrad", "legrad_text_span", "raw_attention", "rollout", "gradcam", "attention_cam",
        "chefer_cam", "transformer_attribution", "lrp", "partial_lrp", "text_span",
        "maskclip", "sclip", "naclip", "gem",
    )  # fmt: skip
    assert set(legrad.__all__) == {
        "ENGINES", "METHODS", "Encoding", "Explainer", "HeatOrder", "UnsupportedModelError",
        "Views", "build", "check_options", "clips", "degenerate", "heatmap", "minmax", "options_of",
    }  # fmt: skip
