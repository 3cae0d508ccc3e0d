"""The page about inputs says what the readers do."""

from tests.pipeline.inputs.page import BLOCK, PAGE, table


def test_the_page_says_what_is_made_of_inputs() -> None:
    found = BLOCK.search(PAGE.read_text())
    assert found is not None
    written = found[0].removeprefix(found[1]).removesuffix(found[2])
    assert written.splitlines() == table().splitlines()
