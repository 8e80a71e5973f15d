"""Check the order of magnitude of every table in docs/results, in minutes and without a network.

    python -m benchmarks.quick

Each recipe is trained for a moment on an offline sample; then a model is pruned, searched, exported and served. A
figure outside of its range ends the command with exit status 1.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.commands import command, metrics_of, train
from benchmarks.tables import print_header, print_row
from recipes.catalog import CATALOG
from recipes.config import ImageRecipe, TableRecipe, TextRecipe

SHORT_TEXT = ["--training.epochs", "1", "--training.steps-per-epoch", "20", "--data.source", "pydoc"]


@dataclass(frozen=True)
class Check:
    """A figure, and the range in which it is of the right order of magnitude."""

    what: str
    figure: str
    value: float
    low: float
    high: float

    @property
    def passed(self) -> bool:
        """Whether the value is in the range; NaN is not."""
        return self.low <= self.value <= self.high


def trained(folder: Path) -> Iterator[Check]:
    """Train every recipe of the catalog for a moment."""
    for name, entry in CATALOG.items():
        flags, figure, low, high = short_training(name, entry.recipe)
        metrics = train(name, folder / name, *flags, results=folder / "results.csv")
        yield Check(name, figure, metrics[figure], low, high)
        yield Check(name, "parameters", metrics["parameters"], entry.parameters / 2, entry.parameters * 2)


def short_training(name: str, recipe: Any) -> tuple[list[str], str, float, float]:
    """Return the flags of a short training, and the range of a metric after it."""
    if isinstance(recipe, ImageRecipe):
        epochs = (
            10 if recipe.pruning.sparsity or recipe.pretraining.epochs else 2
        )  # masks and few labels take longer
        return ["--training.epochs", str(epochs), "--data.source", "digits"], "test_accuracy", 0.5, 1
    if isinstance(recipe, TextRecipe):
        return SHORT_TEXT, "test_loss", 1, 4.2
    if isinstance(recipe, TableRecipe):
        return ["--data.source", "diabetes"], "test_r2", 0.2, 0.7
    return ["--training.epochs", "1"], "test_loss", 0, 4


def pruned(folder: Path) -> Iterator[Check]:
    """Prune the units of a trained model."""
    run = folder / "pruned"
    command(
        "recipes",
        "prune",
        folder / "mnist-fast",
        "--steps",
        "1",
        "--epochs",
        "1",
        "--tolerance",
        "5",
        "--run-dir",
        run,
    )
    sizes = metrics_of(run)["compression"]
    for figure, high in (("parameters", 4), ("multiply_adds", 4)):
        yield Check(
            "mnist-fast, pruned",
            f"{figure}, times fewer",
            sizes["before"][figure] / sizes["after"][figure],
            1.1,
            high,
        )


def searched(folder: Path) -> Iterator[Check]:
    """Search batch size and learning rate of a model."""
    from tuning.directory import SearchDirectory

    search = folder / "search"
    command(
        "tuning", "search", "mnist-fast", "--trials", "3", "--data.source", "digits", "--search-dir", search
    )
    values = [trial.known_value for trial in SearchDirectory(search).trials()]
    yield Check("search of mnist-fast", "best validation accuracy", max(values), 0.5, 1)


def served(folder: Path) -> Iterator[Check]:
    """Export a model and measure the server's answers."""
    from benchmarks import serving
    from serving.client import Client
    from serving.load import measure, random_request

    command("serving", "export", folder / "mnist-cnn", "--models", folder / "models")
    with (
        serving.server(f"--model_base_path={folder}/models/{serving.MODEL}"),
        Client(serving.ADDRESS) as client,
    ):
        request = random_request(client.metadata(serving.MODEL), serving.MODEL, 1)
        rate = measure(serving.ADDRESS, request, 1, 2.0).requests_per_second
    yield Check("mnist-cnn, served", "requests/s, 1 client", rate, 60, 6000)


def main() -> int:
    """Print a row for each figure; return 1 if one is out of its range."""
    started = time.monotonic()
    print_header("what", "figure", "value", "range", "")
    passed = True
    with tempfile.TemporaryDirectory() as temporary:
        for part in (trained, pruned, searched, served):
            for check in part(Path(temporary)):
                limits = f"{check.low:,.6g} to {check.high:,.6g}"
                print_row(
                    check.what, check.figure, f"{check.value:,.6g}", limits, "" if check.passed else "FAILED"
                )
                passed = passed and check.passed
    print(f"{time.monotonic() - started:.0f} s")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
