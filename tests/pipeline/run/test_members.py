"""Who stays where nothing is left to be begun."""

from pipeline.run.members import Member, superfluous


def member(node: str, busy: bool = False) -> Member:
    made = Member(actor=None, placing=None if node else "asked", node=node, has_model=bool(node))
    made.trials = {"ref": None} if busy else {}  # type: ignore[dict-item]  # nobody looks at it
    return made


def test_spares_are_on_as_many_nodes_as_there_are() -> None:
    busy, waiting = member("a", busy=True), member("")
    a, also_a, b, c = member("a"), member("a"), member("b"), member("c")
    members = [busy, waiting, a, also_a, b, c]
    assert superfluous(members, 3) == [waiting, also_a]
    assert superfluous(members, 2) == [waiting, a, also_a]  # what fails on a is tried elsewhere
    assert superfluous(members, 1) == [waiting, a, also_a, c]
    assert superfluous(members, 4) == [waiting]
    assert superfluous([busy, a, also_a], 1) == [also_a]


def test_who_loads_or_is_in_doubt_stays() -> None:
    loading, doubtful = member("a"), member("b")
    loading.has_model, loading.loading = False, "asked"
    doubtful.placing = "asked again"
    assert superfluous([loading, doubtful], 0) == []
