"""The parts of the benchmarks that can be wrong without anyone noticing. Nothing here is timed."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from open_clip.timm_model import TimmModel
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import legrad
from benchmarks import accelerator, methods, siglip
from benchmarks import run as benchmark
from benchmarks.published import compare as versus
from benchmarks.published import install as published
from benchmarks.published.child import ROOT, Child, ChildError, check_place
from benchmarks.timing import Target, extra_prompt, interleaved, table
from tests.benchmarks.stand_in import TINY, make_stand_in

PLAN = versus.Plan(TINY, layers=(3, 2), rounds=1, processes=2, threads=1, batch=2)


def figures(seconds: float) -> dict[str, float]:
    return {"seconds": seconds, "cpu_seconds": 2 * seconds}


def test_a_further_prompt_is_a_fraction_of_the_forward_pass() -> None:
    assert extra_prompt(1.0, 3.0, more=4, forward=2.0) == 0.25


def test_interleaved_takes_turns_and_returns_medians() -> None:
    order: list[str] = []
    seconds = iter([1.0, 10.0, 3.0, 30.0, 2.0, 20.0])

    def action(name: str) -> dict[str, float]:
        order.append(name)
        return {"seconds": next(seconds)}

    medians = interleaved({"a": lambda: action("a"), "b": lambda: action("b")}, rounds=3)

    assert order == ["a", "b"] * 3
    assert medians == {"a": {"seconds": 2.0}, "b": {"seconds": 20.0}}
    with pytest.raises(ValueError, match="rounds=0"):
        interleaved({}, rounds=0)


def test_a_case_is_judged_by_the_fastest_published_form() -> None:
    forms = {"batch": figures(4.0), "loop": figures(5.0), "reuse": figures(3.0)}
    row = versus.case(12, 5, figures(0.5), forms)
    assert (row["fastest"], row["ratio"], row["cpu_ratio"]) == ("reuse", 6.0, 6.0)
    assert row["ratio_with_image"] == 8.0


@pytest.mark.parametrize(
    ("at_least", "measured", "met"), [(True, 3.9, False), (True, 4.0, True), (False, 4.1, False)]
)
def test_targets_know_their_direction(at_least: bool, measured: float, met: bool) -> None:
    assert Target("x", measured, 4.0, at_least).met is met


def test_table_is_markdown() -> None:
    assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    versus.exchange(PLAN, tmp_path)
    return tmp_path


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    return make_stand_in(tmp_path)


def test_our_side_computes_our_maps_with_the_exchanged_weights(inputs: Path) -> None:
    with Child("ours", sys.executable, inputs, threads=1) as child:
        child.ask("batch", 2, 3, images=2, measure=str(inputs / "maps"))
        assert set(child.ask("forward", 2, 3)) == {"seconds", "cpu_seconds"}

    tensors = load_file(inputs / "inputs.safetensors")
    images, text = tensors.pop("images"), tensors.pop("text")
    model = accelerator.random_tower(TINY, torch.device("cpu"), torch.float32)
    model.visual.load_state_dict(tensors)
    explainer = legrad.build("legrad", model, layers=2)
    raw = explainer(images, text[:3].repeat(2, 1), torch.tensor([0, 0, 0, 1, 1, 1]))
    torch.testing.assert_close(load_file(inputs / "maps")["maps"], legrad.heatmap(raw, (32, 32)))


def test_published_side_agrees_with_itself_in_every_form(inputs: Path, stand_in: Path) -> None:
    with Child("published", str(stand_in), inputs, threads=1) as child:
        maps = []
        for form in versus.FORMS:
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


@pytest.mark.parametrize("name", ["rounds", "processes"])
def test_nothing_cannot_be_measured(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}=0: at least one"):
        replace(PLAN, **{name: 0})


def test_the_whole_comparison_reports_every_case(stand_in: Path) -> None:
    lines: list[str] = []
    results = versus.compare(PLAN, str(stand_in), lines.append)

    assert str(ROOT / "legrad") in lines[0] and "elsewhere" in lines[1]
    assert [(row["layers"], row["prompts"]) for row in results["cases"]] == [
        (3, 1),
        (3, 5),
        (2, 1),
        (2, 5),
    ]
    assert len(results["targets"]) == 2 + 2 + 2
    assert results["agreement"] > 0.01  # a stand-in computes something else, and it shows
    for usage in results["memory"]["bytes"].values():
        assert 0 < usage["before"] <= usage["peak"] < 1 << 32
    json.dumps(results)
    assert versus.markdown(results).count("| 3 |") == 2


def test_every_method_is_timed_both_ways(stand_in: Path) -> None:
    results = methods.compare(str(stand_in), rounds=1, batch_rounds=1, config=TINY)
    for column in ("published", "here", "annotation"):
        assert set(methods.FORMS) <= set(results[column])
        assert min(results[column].values()) > 0
    assert len(results["targets"]) == 5
    json.dumps(results)
    page = methods.markdown(results)
    assert all(f"| {name} |" in page for name in methods.FORMS)


@pytest.fixture
def tiny_siglip() -> TimmModel:
    """No configuration of timm is as small as this, so that the constructor cannot make it."""
    tower = TimmModel.__new__(TimmModel)
    nn.Module.__init__(tower)
    tower.trunk = VisionTransformer(
        img_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=0,
        class_token=False, global_pool="map",
    )  # fmt: skip
    tower.head = nn.Sequential()
    return tower.eval()


def test_prompts_of_siglip_are_timed_and_judged(tiny_siglip: TimmModel) -> None:
    results = siglip.measure(tiny_siglip, 16, rounds=1)
    cases = [(row["images"], row["prompts"]) for row in results["rows"]]
    assert cases == [(b, p) for b in siglip.BATCHES for p in siglip.PROMPTS]
    assert all(row["maps"] > 0 and row["heatmaps"] > 0 for row in results["rows"])
    assert len(results["targets"]) == 4
    assert {target["target"] for target in results["targets"]} == {"≤ 1.3"}
    json.dumps(results)
    assert siglip.markdown(results).count("| 8 | 100 |") == 1


def test_the_most_prompts_are_compared_with_one() -> None:
    rows = [
        {"images": batch, "prompts": prompts, "maps": seconds, "heatmaps": 2 * seconds**2}
        for batch in siglip.BATCHES
        for prompts, seconds in zip(siglip.PROMPTS, (2.0, 9.0, 2.5), strict=True)
    ]
    assert [target.measured for target in siglip.targets(rows)] == [1.25, 1.25**2] * 2
    assert [target.met for target in siglip.targets(rows)] == [True, False] * 2


def test_published_interpreter_is_looked_for_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LEGRAD_PUBLISHED", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="make published"):
        published.find(None)
    cached = published.python_in(published.default_folder())
    cached.parent.mkdir(parents=True)
    cached.touch()
    assert published.find(None) == cached
    monkeypatch.setenv("LEGRAD_PUBLISHED", sys.executable)
    assert published.find(None) == Path(sys.executable)
    assert published.find(str(cached)) == cached


def test_gpu_benchmark_refuses_without_a_device(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert benchmark.main(["gpu"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_gpu_benchmark_runs_on_any_device() -> None:
    results = accelerator.measure(
        torch.device("cpu"),
        torch.bfloat16,
        memory_budget=1 << 20,
        cases=[accelerator.Case("tiny", TINY, batch=2)],
        matrix=32,
        seconds=0,
        say=lambda line: None,
    )
    assert [row["prompts"] for row in results["rows"]] == [None, 1, 5]
    for row in results["rows"]:
        assert row["images_per_second"] == 2 / row["seconds"]
        assert 0 < row["of_peak"]
    assert accelerator.markdown(results).count("| tiny |") == 3


def test_operations_are_those_of_the_modules() -> None:
    """The bare forward pass, against PyTorch's own counter."""
    model = accelerator.random_tower(TINY, torch.device("cpu"), torch.float32)
    # Gradients and this backend keep out the fused kernels, which are not counted on a CPU.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model.visual(torch.zeros(1, 3, 32, 32))
    shape = accelerator.Shape.of(TINY)
    projection = 2 * 32 * 16
    assert shape.operations(None) == counter.get_total_flops() - projection


def test_random_tower_has_finite_output() -> None:
    model = accelerator.random_tower(TINY, torch.device("cpu"), torch.bfloat16)
    with torch.no_grad():
        assert model.visual(torch.randn(2, 3, 32, 32, dtype=torch.bfloat16)).isfinite().all()
