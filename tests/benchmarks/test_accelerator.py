"""The benchmark of one accelerator, run on a CPU, and the operations it counts."""

import pytest
import torch
from open_clip.model import CLIP
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import accelerator
from benchmarks import run as benchmark
from legrad.engines.folded import FoldedBlock
from legrad.towers.attention import attention, block_output, fused_step
from legrad.towers.open import open_tower
from pipeline.models.operations import Shape
from tests.benchmarks.stand_in import TINY

SHAPE = Shape.of(TINY)


def tiny() -> CLIP:
    return accelerator.random_tower(TINY, torch.device("cpu"), torch.float32)


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


def test_operations_of_a_forward_pass_are_those_of_the_modules() -> None:
    model = tiny()
    # Gradients and this backend keep out the fused kernels, which are not counted on a CPU.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model.visual(torch.zeros(1, 3, 32, 32))
    projection = 2 * 32 * 16
    assert SHAPE.forward() == counter.get_total_flops() - projection


def test_the_package_goes_back_from_the_output_of_each_block_to_its_attention() -> None:
    block = open_tower(tiny()).blocks[0]
    x = torch.randn(1, SHAPE.tokens, SHAPE.width)
    weights = attention(block, x).detach().requires_grad_()
    output = block_output(block, x, weights)
    with FlopCounterMode(display=False) as counter:
        torch.autograd.grad(output.sum(), weights)
    each = SHAPE.forward() + SHAPE.layers * counter.get_total_flops()
    assert [SHAPE.published(prompts) for prompts in (1, 5)] == [each, 5 * each]


@torch.no_grad()
def test_a_prompt_of_the_closed_form_is_a_product_by_f_and_one_with_the_values() -> None:
    block = open_tower(tiny()).blocks[0]
    step = fused_step(block, torch.randn(1, SHAPE.tokens, SHAPE.width))
    folded = FoldedBlock.of(block)

    def product(_: torch.Size, x: torch.Size, y: torch.Size, **out: object) -> int:
        return 2 * x[0] * x[1] * y[1]

    def counted(prompts: int) -> int:
        mapping = {torch.ops.aten.addmm_: product}  # which the counter does not know
        g = torch.randn(1, prompts, SHAPE.width)
        with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
            folded.relevance(step.attended, step.preactivations, step.values, g)
        return counter.get_total_flops()

    # u, b and c are a vector per prompt: not worth counting.
    tokens, width, hidden = SHAPE.tokens, SHAPE.width, SHAPE.hidden
    vectors = 2 * (width * hidden + width * width + hidden * tokens)
    shared = SHAPE.closed_form(0) - SHAPE.forward()
    for prompts in (1, 4):
        layers = SHAPE.closed_form(prompts) - SHAPE.forward()
        assert counted(prompts) - prompts * vectors == layers / SHAPE.layers
    assert counted(2) - counted(1) - vectors == counted(1) - vectors - shared / SHAPE.layers


def test_random_tower_has_finite_output() -> None:
    model = accelerator.random_tower(TINY, torch.device("cpu"), torch.bfloat16)
    with torch.no_grad():
        assert model.visual(torch.randn(2, 3, 32, 32, dtype=torch.bfloat16)).isfinite().all()
