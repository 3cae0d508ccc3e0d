"""How the code is laid out, in numbers: `python tests/structure.py [CHECKOUT ...]`.

Prints the folders, modules and lines of a checkout of this project, the imports that run backwards
and the circles. `test_policies.py` holds the code to the same numbers.

A module may import what stands before its own place in `ORDER`: the packages first, then the rooms
(a folder, or a module beside the folders) of `legrad` and of `pipeline`. Checkouts from before
there were rooms have the order of the packages only.
"""

import ast
import functools
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("legrad", "pipeline", "jobs", "benchmarks", "docs")
ITSELF = ""  # what lies in a package and in none of its rooms that are named
ORDER = {
    "": PACKAGES,
    "legrad": (
        "errors", "arguments", "options", "heatmap", "towers", "explainer", "correction", "views",
        "engines", "baselines", "contrast", "build", ITSELF,
    ),
    "pipeline": (
        ITSELF, "errors", "log", "storage", "config", "inputs", "cli", "models", "outputs", "run",
        "evaluation", "calibration", "export", "loading", "report", "figures", "demo", "student",
    ),
    "pipeline.evaluation": (
        ITSELF, "points", "segmentation", "perturbation", "layers", "funnybirds", "prompted",
    ),
}  # fmt: skip
ROOMS = Path("pipeline", "inputs")  # in every checkout since there are rooms


@dataclass(frozen=True)
class Module:
    """A file of ours; `imports` are the modules of ours that it imports, wherever in it."""

    path: Path
    lines: int
    imports: frozenset[str]


@functools.cache
def parse(path: Path) -> ast.Module:
    """The syntax of a file, read once."""
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def modules(root: Path = ROOT) -> dict[str, Module]:
    """Every module of a checkout, by its dotted name."""
    paths = [path for package in PACKAGES for path in sorted((root / package).rglob("*.py"))]
    names = {dotted(path.relative_to(root)): path for path in paths}
    found = {}
    for name, path in names.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        imports = {ours for ours in imported(parse(path), package, names) if ours != name}
        lines = len(path.read_text(encoding="utf-8").splitlines())
        found[name] = Module(path, lines, frozenset(imports))
    return found


def dotted(path: Path) -> str:
    """pipeline/run/run.py → pipeline.run.run; a folder's __init__.py has the folder's name."""
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def imported(tree: ast.Module, package: str, known: Mapping[str, object]) -> Iterator[str]:
    """Those of the `known` modules that a module in `package` imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: 1 - node.level or None] if node.level else []
            source = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                full = f"{source}.{alias.name}"
                if full in known or source in known:
                    yield full if full in known else source


def has_place(name: str) -> bool:
    """Whether the room of a module is one of those in `ORDER`."""
    package, *rest = name.split(".")
    return not rest or package not in ORDER or rest[0] in ORDER[package]


def is_backwards(importer: str, imports: str) -> bool:
    """Whether an import runs against `ORDER`."""
    modules = importer.split("."), imports.split(".")
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(*modules, strict=False)))
    order = ORDER.get(".".join(modules[0][:shared]), (ITSELF,))
    names = ("".join(parts[shared : shared + 1]) for parts in modules)
    own, other = (order.index(name if name in order else ITSELF) for name in names)
    return other > own


def backwards(found: Mapping[str, Module], with_rooms: bool = True) -> list[tuple[str, str]]:
    """The imports, from and to, that run against `ORDER`, or against that of the packages only."""
    return sorted(
        (name, other)
        for name, module in found.items()
        for other in module.imports
        if is_backwards(name, other)
        and (with_rooms or name.partition(".")[0] != other.partition(".")[0])
    )


def circles(found: Mapping[str, Module]) -> list[list[str]]:
    """The largest groups of modules that all lead to each other."""
    reached = {name: reachable(found, name) for name in found}
    groups = {
        tuple(sorted(other for other in reached[name] if name in reached[other])) for name in found
    }
    return sorted(list(group) for group in groups if group)


def reachable(found: Mapping[str, Module], name: str) -> set[str]:
    """What a module imports, and what that imports, and so on."""
    reached: set[str] = set()
    ahead = [name]
    while ahead:
        new = found[ahead.pop()].imports - reached
        reached |= new
        ahead += new
    return reached


def in_folders(found: Mapping[str, Module]) -> Counter[Path]:
    """How many modules lie right in each folder."""
    return Counter(module.path.parent for module in found.values())


def report(root: Path) -> str:
    """The numbers of a checkout."""
    found = modules(root)
    if not found:
        raise SystemExit(f"{root} is no checkout of this project: it has none of {PACKAGES}")
    with_rooms = (root / ROOMS).is_dir()
    folders = in_folders(found).most_common(1)
    longest = max(found.values(), key=lambda module: module.lines)
    against, round_and_round = backwards(found, with_rooms), circles(found)
    order = "packages and rooms" if with_rooms else "packages only: there are no rooms yet"
    lines = [
        f"{root}",
        f"  folders   {len(in_folders(found)):5}",
        f"  modules   {len(found):5}   at most {folders[0][1]} in a folder "
        f"({folders[0][0].relative_to(root)})",
        f"  lines     {sum(module.lines for module in found.values()):5}   at most {longest.lines} "
        f"in a module ({longest.path.relative_to(root)})",
        f"  backwards {len(against):5}   against the order of {order}",
        *(f"              {name} imports {other}" for name, other in against),
        f"  circles   {len(round_and_round):5}",
        *(f"              {' - '.join(circle)}" for circle in round_and_round),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    for checkout in sys.argv[1:] or [str(ROOT)]:
        print(report(Path(checkout).resolve()))
