"""The comparison with the published package, with a stand-in for it. Nothing here is timed."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import legrad
from benchmarks import accelerator
from benchmarks.published import figures, install
from benchmarks.published.child import ROOT, Child, ChildError, check_place
from benchmarks.published.compare import compare, mask_iou
from benchmarks.published.plan import FORMS, Plan, write_inputs
from tests.benchmarks.stand_in import TINY, make_stand_in

PLAN = Plan(TINY, layers=(3, 2), rounds=1, processes=1, bfloat16_rounds=1, threads=1, batch=2)


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    write_inputs(PLAN, tmp_path)
    return tmp_path


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    return make_stand_in(tmp_path)


def test_our_side_computes_our_maps_with_the_exchanged_weights(inputs: Path) -> None:
    forms = {"batch": torch.float32, "bfloat16": torch.bfloat16}
    with Child("ours", sys.executable, inputs, threads=1) as child:
        for form in forms:
            child.ask(form, 2, 3, images=2, measure=str(inputs / form))
        assert set(child.ask("forward", 2, 3)) == {"seconds", "cpu_seconds"}

    tensors = load_file(inputs / "inputs.safetensors")
    images, text = tensors.pop("images"), tensors.pop("text")
    model = accelerator.random_tower(TINY, torch.device("cpu"), torch.float32)
    model.visual.load_state_dict(tensors)
    for form, dtype in forms.items():
        explainer = legrad.build("legrad", model.to(dtype), layers=2)
        raw = explainer(images, text[:3].repeat(2, 1), torch.tensor([0, 0, 0, 1, 1, 1]))
        maps, atol = load_file(inputs / form)["maps"], 1e-5 if form == "batch" else 0.1
        torch.testing.assert_close(maps, legrad.heatmap(raw, (32, 32)), rtol=0, atol=atol)
    exact, rounded = (load_file(inputs / form)["maps"] for form in forms)
    assert 1e-4 < (exact - rounded).abs().max() < 0.5


def test_published_side_agrees_with_itself_in_every_form(inputs: Path, stand_in: Path) -> None:
    with Child("published", str(stand_in), inputs, threads=1) as child:
        maps = []
        for form in FORMS:
            child.ask(form, 2, 3, measure=str(inputs / form))
            maps.append(load_file(inputs / form)["maps"])
        assert maps[0].shape == (3, 32, 32)
        assert all(torch.allclose(maps[0], other) for other in maps)
        with pytest.raises(ChildError, match="one image at a time, not 2"):
            child.ask("batch", 2, 3, images=2)


def test_a_side_refuses_another_package(inputs: Path, stand_in: Path) -> None:
    package = next(inputs.glob("elsewhere/legrad/__init__.py"))
    package.write_text("build = None\n")
    with pytest.raises(ChildError, match="is not the published legrad"):
        Child("published", str(stand_in), inputs, threads=1)


def test_each_package_must_come_from_its_own_place(tmp_path: Path) -> None:
    here, elsewhere = ROOT / "legrad" / "__init__.py", tmp_path / "legrad" / "__init__.py"
    check_place("ours", here)
    check_place("published", elsewhere)
    for side, package in (("ours", elsewhere), ("published", here)):
        with pytest.raises(ChildError, match=f"the {side} side imported"):
            check_place(side, package)


def test_an_interpreter_that_is_not_there_is_named(inputs: Path) -> None:
    with pytest.raises(ChildError, match="cannot start the published side"):
        Child("published", str(inputs / "none"), inputs, threads=1)


@pytest.mark.parametrize("name", ["rounds", "processes", "bfloat16_rounds"])
def test_nothing_cannot_be_measured(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}=0: at least one"):
        replace(PLAN, **{name: 0})


@pytest.mark.long
def test_the_whole_comparison_reports_every_case(stand_in: Path) -> None:
    lines: list[str] = []
    results = compare(PLAN, str(stand_in), lines.append)

    assert str(ROOT / "legrad") in lines[0] and "elsewhere" in lines[1]
    assert [(row["layers"], row["prompts"]) for row in results["cases"]] == [
        (3, 1),
        (3, 5),
        (2, 1),
        (2, 5),
    ]
    assert results["agreement"] > 0.01  # a stand-in computes something else, and it shows
    assert all(0 < peak < 1 << 32 for peak in results["memory"]["peaks"].values())
    assert results["bfloat16"]["masks"] == 10
    assert 0.8 < results["bfloat16"]["mask_iou"] < 1
    json.dumps(results)
    assert figures.markdown(results).count("| 3 |") == 2


def turns(**seconds: float) -> dict[str, list[dict[str, float]]]:
    """A round of a pair of processes, in which the forms of 2 layers take half the time."""
    found = {"forward": [{"seconds": 1.0}]}
    for name, value in seconds.items():
        for layers, part in ((3, 1.0), (2, 0.5)):
            for prompts in (1, 5):
                found[f"{name} {layers} {prompts}"] = [{"seconds": value * part * prompts}]
    return found


PAIRS = [
    turns(ours=1.0, batch=2.0, loop=5.0, reuse=1.5),
    turns(ours=1.0, batch=3.0, loop=5.0, reuse=1.5),
    turns(ours=1.2, batch=4.0, loop=5.0, reuse=1.5),
]


def test_ratios_are_those_of_medians_over_all_pairs_of_processes() -> None:
    found = figures.summary(PLAN, PAIRS)
    assert found["cases"][1] == {
        "layers": 3,
        "prompts": 5,
        "ours": 5.0,
        "published": {"batch": 15.0, "loop": 25.0, "reuse": 7.5},
        "ratios": {"batch": 3.0, "loop": 5.0, "reuse": 1.5},
    }
    assert found["cases"][0]["ratios"] == {"batch": 3.0}
    assert found["extra_prompt"] == {3: 1.0, 2: 0.5}
    assert found["spread"] == {"ours": [5.0, 5.0, 6.0], "batch": [10.0, 15.0, 20.0]}


def test_targets_are_the_batched_forms_further_prompts_memory_and_agreement() -> None:
    results = {
        **figures.summary(PLAN, PAIRS),
        "memory": {"ratio": 1.6},
        "agreement": 1e-6,
    }
    assert [(t.limit, t.at_least, t.measured, t.met) for t in figures.targets(results)] == [
        (1.0, True, 3.0, True),
        (2.4, True, 3.0, True),
        (0.5, False, 1.0, False),
        (0.5, False, 0.5, True),
        (1.5, False, 1.6, False),
        (1e-5, False, 1e-6, True),
    ]


def test_mask_iou_by_hand() -> None:
    """Of three cells 1 and 2 are above the threshold in one, 1 and 3 in the other: 1 of 3."""
    heat = torch.tensor([[[0.9, 0.6, 0.5]], [[0.0, 0.2, 0.9]]])
    other = torch.tensor([[[0.9, 0.1, 0.8]], [[0.1, 0.2, 1.0]]])
    assert mask_iou(heat, other) == pytest.approx((1 / 3 + 1) / 2)


def test_published_interpreter_is_looked_for_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LEGRAD_PUBLISHED", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="make published"):
        install.find(None)
    cached = install.python_in(install.default_folder())
    cached.parent.mkdir(parents=True)
    cached.touch()
    assert install.find(None) == cached
    monkeypatch.setenv("LEGRAD_PUBLISHED", sys.executable)
    assert install.find(None) == Path(sys.executable)
    assert install.find(str(cached)) == cached
