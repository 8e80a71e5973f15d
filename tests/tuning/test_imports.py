"""The search uses keras-tuner's public names only."""

import ast
from pathlib import Path

import pytest

import tuning

SOURCES = sorted(Path(tuning.__file__).parent.rglob("*.py"))


def imported_names(source: Path) -> set[str]:
    """Return the full names that a module imports."""
    names = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_no_private_name_of_another_package_is_used(source):
    private = [
        name
        for name in imported_names(source)
        if name.startswith("keras_tuner.src") or any(map(is_private, name.split(".")))
    ]
    assert private == []
    tree = ast.parse(source.read_text())
    attributes = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and is_private(node.attr)
        # os._exit is documented.
        and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "os"))
    }
    assert attributes == set()
