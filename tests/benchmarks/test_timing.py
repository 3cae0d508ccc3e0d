"""Medians, ratios, turns and tables. Nothing here is timed."""

import pytest

from benchmarks.timing import Target, extra_prompt, interleaved, table, target_table


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


@pytest.mark.parametrize(
    ("at_least", "measured", "met"), [(True, 3.9, False), (True, 4.0, True), (False, 4.1, False)]
)
def test_targets_know_their_direction(at_least: bool, measured: float, met: bool) -> None:
    assert Target("x", measured, 4.0, at_least).met is met


def test_tables_are_markdown() -> None:
    assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
    checks = target_table([Target("error", 2e-6, 1e-5, at_least=False).as_dict()])
    assert checks.splitlines()[2] == "| error | ≤ 1e-05 | 2e-06 | yes |"
