"""Print the tables of image recipes in docs/results, peers and ours side by side.

    TFDS_DATA_DIR=... python -m benchmarks.mnist                      test accuracy of all image recipes
    TFDS_DATA_DIR=... python -m benchmarks.mnist --recipes mnist-mlp  of some of them
    TFDS_DATA_DIR=... python -m benchmarks.mnist time                 mnist-fast and Keras's example: who has 99 % when
    TFDS_DATA_DIR=... python -m benchmarks.mnist labels               mnist-pretrained and the same network from scratch

Each run of ours is `python -m recipes train RECIPE --data.source mnist --training.seed SEED` as a user
would type it, one after the other; its epoch is chosen on validation and the test part is scored once.
What others published was mostly chosen on the test part. For the two pruned recipes see benchmarks.pruning.
"""

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import keras_mnist_convnet
from benchmarks.commands import train
from benchmarks.tables import mean_and_spread, print_header, print_row
from recipes.catalog import CATALOG
from recipes.config import ImageRecipe

IMAGES = [
    name
    for name, entry in CATALOG.items()
    if isinstance(entry.recipe, ImageRecipe)
    and not entry.recipe.pruning.sparsity
    and not entry.recipe.pretraining.epochs
]
SEEDS = {"mnist-fast": 5, "mnist-tiny": 5}  # 3 for the others
PUBLISHED = """\
| Keras's mnist_convnet | 34,826 | 99.22 | | 15 | |
| PyTorch's mnist | 1,199,882 | 99.19 | | 14 | |
| Flax's mnist | 825 k | 99.17 to 99.25 | | 10 | |
| MnistSimpleCNN M3 (An et al. 2020) | 1,124,180 | 99.72 to 99.74 | | 150 | |"""


def train_on_mnist(recipe: str, seed: int, folder: Path, *flags: str) -> dict[str, Any]:
    """Train a recipe and return its metrics."""
    run = folder / "-".join([recipe, str(seed), *flags])
    return train(recipe, run, "--data.source", "mnist", *flags, seed=seed)


def percent(runs: Sequence[dict[str, Any]], part: str) -> list[float]:
    """Return the accuracies of a part, in %."""
    return [100 * run[f"{part}_accuracy"] for run in runs]


def accuracy(recipes: Sequence[str], seeds: int | None, folder: Path) -> None:
    """Print test accuracy and training time of recipes, under what others published."""
    print_header(
        "recipe", "parameters", "test accuracy, %", "validation accuracy, %", "epochs", "training, s"
    )
    print(PUBLISHED, flush=True)
    for recipe in recipes:
        runs = [train_on_mnist(recipe, seed, folder) for seed in range(seeds or SEEDS.get(recipe, 3))]
        print_row(
            f"`{recipe}`",
            f"{runs[0]['parameters']:,}",
            mean_and_spread(percent(runs, "test")),
            f"{statistics.mean(percent(runs, 'validation')):.2f}",
            runs[0]["epochs"],
            f"{statistics.mean(run['train_seconds'] for run in runs):.0f}",
        )


def time(seeds: int, folder: Path) -> None:
    """Print how long mnist-fast trains, and how long Keras's example until it has 99 %, in turns."""
    columns = ("seed", "mnist-fast, test accuracy, %", "training, s", "Keras's example to 99 %, s")
    print_header(*columns, "epochs", "ratio")
    ours, theirs, ratios = [], [], []
    for seed in range(seeds):
        ours.append(train_on_mnist("mnist-fast", seed, folder))
        theirs.append(keras_mnist_convnet.measure(seed))
        ratios.append(ours[-1]["train_seconds"] / theirs[-1]["seconds"])
        print_row(
            seed,
            f"{100 * ours[-1]['test_accuracy']:.2f}",
            f"{ours[-1]['train_seconds']:.1f}",
            f"{theirs[-1]['seconds']:.1f}",
            theirs[-1]["epochs"],
            f"{ratios[-1]:.3f}",
        )
    print_row(
        "mean",
        mean_and_spread(percent(ours, "test")),
        mean_and_spread([run["train_seconds"] for run in ours], 1),
        mean_and_spread([run["seconds"] for run in theirs], 1),
        f"{statistics.mean(run['epochs'] for run in theirs):.1f}",
        f"{statistics.mean(ratios):.3f}",
    )


def labels(seeds: int, per_class: Sequence[int], folder: Path) -> None:
    """Print the accuracy with and without pre-training; all validation labels choose the epoch of both."""
    print_header("labels per class", "pre-trained, test accuracy, %", "from scratch")
    for count in per_class:
        few = ("--data.labels-per-class", str(count))
        pretrained = [train_on_mnist("mnist-pretrained", seed, folder, *few) for seed in range(seeds)]
        scratch = [
            train_on_mnist("mnist-pretrained", seed, folder, *few, "--pretraining.epochs", "0")
            for seed in range(seeds)
        ]
        print_row(count, *(mean_and_spread(percent(runs, "test")) for runs in (pretrained, scratch)))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", nargs="?", choices=["accuracy", "time", "labels"], default="accuracy")
    parser.add_argument("--recipes", nargs="+", choices=IMAGES, default=IMAGES, help="rows of accuracy")
    parser.add_argument("--seeds", type=int, help="number of seeds, from 0 (5 or 3)")
    parser.add_argument("--labels", type=int, nargs="+", default=[10, 100], help="rows of labels")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        if chosen.table == "accuracy":
            accuracy(chosen.recipes, chosen.seeds, Path(temporary))
        elif chosen.table == "time":
            time(chosen.seeds or 5, Path(temporary))
        else:
            labels(chosen.seeds or 3, chosen.labels, Path(temporary))


if __name__ == "__main__":
    main()
