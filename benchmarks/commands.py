"""Commands of the project in processes of their own, as a user types them, and what their runs measured."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from recipes.runs.files import write_csv

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "results.csv"
"""The metrics of every training of the benchmarks: a row for each metric."""
PARTS = ("parameters", "validation_", "test_")
"""Beginnings of the names of these metrics."""


def command(*arguments: object) -> None:
    """Run a command to its end: what follows `python -m`. What it prints goes to standard error."""
    subprocess.run([sys.executable, "-m", *map(str, arguments)], cwd=ROOT, check=True, stdout=sys.stderr)


def train(recipe: str, run: Path, *flags: str, seed: int = 0, results: Path = RESULTS) -> dict[str, Any]:
    """Train a recipe, add its metrics to the results, and return them.

    Args:
        recipe: Name of the recipe.
        run: Run directory.
        flags: Flags of `recipes train`.
        seed: Seed of the training.
        results: File of the results. Rows of the same recipe, flags and seed are replaced.
    """
    command("recipes", "train", recipe, "--run-dir", run, "--training.seed", seed, *flags)
    metrics = metrics_of(run)
    environment = json.loads((run / "environment.json").read_text())
    packages = environment["packages"]
    key = {"recipe": recipe, "flags": " ".join(flags), "seed": str(seed)}
    where = {
        "seconds": metrics["train_seconds"],
        "machine": f"{environment['cores']} cores, {environment['platform']}",
        "versions": " ".join(f"{name}-{version}" for name, version in packages.items()),
        "git_revision": environment["git_revision"],
    }
    rows = []
    if results.exists():
        with results.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if not key.items() <= row.items()]
    for name, value in metrics.items():
        if name.startswith(PARTS) and isinstance(value, int | float):
            rows.append({**key, "metric": name, "value": value, **where})
    write_csv(results, rows)
    return metrics


def metrics_of(run: Path) -> dict[str, Any]:
    """Return a run's metrics."""
    metrics: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    return metrics
