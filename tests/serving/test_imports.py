"""What the modules of serving may import, and how they name their classes."""

import ast
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "serving").rglob("*.py"))
OURS = {"serving", "recipes"}
PRIVATE = {
    # TensorFlow's public API can't end the run of a graph: see serving.server.function.Function.
    "tensorflow.python.eager.context",
    "tensorflow.python.eager.execute",
    "tensorflow.python.eager.cancellation.CancellationManager",
    "concrete._inference_function",
    # The only way to exit while a thread loads a model or runs a long operation.
    "os._exit",
}
"""Private names of libraries that are used."""


def imported(tree):
    """Return the full names that a module imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_private(name):
    """Return whether a name is not part of a library's public API; keras.src and tensorflow.python are not."""
    parts = name.split(".")
    return name.startswith(("keras.src", "tensorflow.python")) or any(
        part.startswith("_") and not part.startswith("__") for part in parts
    )


def private_names(tree):
    """Return the private names of libraries that a module imports or reads from other objects than its own."""
    names = {name for name in imported(tree) if is_private(name) and name.split(".")[0] not in OURS}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and isinstance(node.value, ast.Name):
            names.add(f"{node.value.id}.{node.attr}")
    return {name for name in names if not name.startswith(("self.", "cls."))}


def test_private_names_of_libraries_are_used_only_where_there_is_no_other_way():
    used = set().union(*(private_names(ast.parse(path.read_text())) for path in SOURCES))
    assert used == PRIVATE


def test_no_two_classes_have_one_name():
    classes = Counter(
        node.name
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in classes.items() if count > 1] == []
