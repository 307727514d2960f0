"""Imports point down: one picture of the house, kept true by reading every file."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Lower floors first; a module may import its own floor's package and every floor below.
FLOORS = [
    ["seqjax.core.kernels", "seqjax.core.common"],
    ["seqjax.core"],
    ["seqjax.ops"],
    ["seqjax.nn"],
    ["seqjax.data"],
    ["seqjax.testing", "seqjax.tasks", "seqjax.answers"],
    ["seqjax.layers"],
    ["seqjax.zoo"],
    ["seqjax.stacks"],
    ["seqjax.hf", "seqjax.learn"],
    ["seqjax.train"],
    ["seqjax.theory"],
    ["seqjax.recipes", "seqjax.models"],
    ["seqjax.tools"],
    ["experiments"],
]
FLOOR = {name: level for level, names in enumerate(FLOORS) for name in names}
# beside the tower: they import nothing of it but the small things every floor needs
ALONE = {
    "seqjax.answers": {"seqjax.answers", "seqjax.core.common", "seqjax.core"},
    "seqjax.data": {"seqjax.data", "seqjax.core.common"},
    "seqjax.tasks": {
        "seqjax.tasks",
        "seqjax.answers",
        "seqjax.data",
        "seqjax.core.common",
        "seqjax.core",
    },  # fmt: skip
    "seqjax.core.kernels": {"seqjax.core.kernels"},
}


def floor_of(module: str) -> str | None:
    parts = module.split(".")
    names = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
    return next((name for name in names if name in FLOOR), None)


def modules():
    for path in sorted([*(ROOT / "seqjax").rglob("*.py"), *(ROOT / "experiments").rglob("*.py")]):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if name != "seqjax":  # the package itself re-exports
            yield pytest.param(path, name, id=name)


def imported(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path, name", list(modules()))
def test_imports_point_down(path, name):
    mine = floor_of(name)
    assert mine is not None, f"{name} stands on no floor: give it one in FLOORS"
    for module in imported(path):
        theirs = floor_of(module)
        if theirs is None or theirs == mine:
            continue
        assert FLOOR[theirs] <= FLOOR[mine], f"{name} imports upward: {module}"
        assert theirs in ALONE.get(mine, {theirs}), f"{mine} stands alone, it imports {module}"


def test_no_file_is_too_long():
    """A file is a page one can hold in the head."""
    long = {
        str(path.relative_to(ROOT)): count
        for folder in ("seqjax", "experiments", "tests")
        for path in (ROOT / folder).rglob("*.py")
        if (count := len(path.read_text().splitlines())) > 420
    }
    assert not long, f"over 400 lines: {long}"
