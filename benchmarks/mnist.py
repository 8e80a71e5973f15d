"""Print the README's table of image recipes: test accuracy as mean and spread over seeds.

    TFDS_DATA_DIR=... python -m benchmarks.mnist                      all image recipes, seeds 0 to 2
    TFDS_DATA_DIR=... python -m benchmarks.mnist --recipes mnist-mlp  some of them

Each run is `python -m recipes train RECIPE --data.source mnist --training.seed SEED` as a user would
type it, one after the other; its epoch is chosen on validation and the test part is scored once.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from recipes.catalog import CATALOG
from recipes.config import ImageRecipe

IMAGES = [name for name, entry in CATALOG.items() if isinstance(entry.recipe, ImageRecipe)]
ROOT = Path(__file__).parent.parent


def train(recipe: str, seed: int, folder: Path) -> dict[str, Any]:
    """Train a recipe in a process of its own and return its metrics."""
    path = folder / f"{recipe}-{seed}"
    command = [sys.executable, "-m", "recipes", "train", recipe, "--run-dir", str(path)]
    flags = ["--data.source", "mnist", "--training.seed", str(seed)]
    subprocess.run([*command, *flags], cwd=ROOT, check=True, stdout=sys.stderr)
    metrics: dict[str, Any] = json.loads((path / "metrics.json").read_text())
    return metrics


def table_row(recipe: str, runs: list[dict[str, Any]]) -> str:
    """Return a row of the table: accuracy in %, training time in seconds."""
    accuracies = [100 * run["test_accuracy"] for run in runs]
    seconds = statistics.mean(run["train_seconds"] for run in runs)
    spread = f" ± {statistics.stdev(accuracies):.2f}" if len(runs) > 1 else ""
    return (
        f"| `{recipe}` | {runs[0]['parameters']:,} | {statistics.mean(accuracies):.2f}{spread} "
        f"| {statistics.mean(100 * run['validation_accuracy'] for run in runs):.2f} "
        f"| {runs[0]['epochs']} | {seconds:.0f} |"
    )


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipes", nargs="+", choices=IMAGES, default=IMAGES)
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, from 0")
    arguments = parser.parse_args()
    print("| recipe | parameters | test accuracy, % | validation accuracy, % | epochs | training, s |")
    print("|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for recipe in arguments.recipes:
            runs = [train(recipe, seed, Path(folder)) for seed in range(arguments.seeds)]
            print(table_row(recipe, runs), flush=True)


if __name__ == "__main__":
    main()
