"""Print the tables of smaller models in docs/results.

    TFDS_DATA_DIR=... python -m benchmarks.pruning weights     both LeNets pruned in training, 3 seeds
    TFDS_DATA_DIR=... python -m benchmarks.pruning units       mnist-cnn pruned step by step, 3 seeds
    TFDS_DATA_DIR=... python -m benchmarks.pruning language    lm-transformer without heads and feed-forward units

Each run is a command as a user would type it. Accuracies are of the test part, scored once for each
model; the choice of the model is validation's. Times are medians of calls in turns, dense and pruned.
"""

import argparse
import functools
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.commands import command, metrics_of, train
from benchmarks.tables import mean_and_spread, print_header, print_row

UNITS = ["--epochs", "4", "--fraction", "0.3", "--steps", "8"]
BATCH_SIZE = 256
LENETS = ("mnist-lenet-300-100-pruned", "mnist-lenet-5-pruned")
PUBLISHED = """\
| dense | 1 ×, 1.64 | 1 ×, 0.80 |
| Han et al. 2015 | 12 ×, 1.59 | 12 ×, 0.77 |
| Dynamic Network Surgery, 2016 | 56 ×, 1.99 | 108 ×, 0.91 |
| soft weight sharing, 2017 | 23 ×, 1.94 | 200 ×, 0.97 |
| sparse variational dropout, 2017 | 68 ×, 1.92 | 280 ×, 0.75 |"""


def exported(run: Path, models: Path) -> Path:
    """Export a run and return its SavedModel."""
    command("serving", "export", run, "--models", models, "--name", run.name)
    return models / run.name / "1"


def signature_seconds(paths: list[Path], inputs: dict[str, Any]) -> list[float]:
    """Return the median time of a call of each SavedModel's default signature, in turns."""
    import tensorflow as tf

    from recipes.compression.comparison import median_seconds

    calls = [tf.saved_model.load(str(path)).signatures["serving_default"] for path in paths]
    tensors = {name: tf.constant(value) for name, value in inputs.items()}
    return median_seconds([functools.partial(call, **tensors) for call in calls])


def bytes_of(path: Path) -> int:
    """Return the size of all files in a folder."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def weights(seeds: int, folder: Path) -> None:
    """Print how far the LeNets' weights can be pruned, beside what was published."""
    print_header("compression and test error, %", "LeNet-300-100", "LeNet-5")
    print(PUBLISHED, flush=True)
    cells, seconds = [], []
    for recipe in LENETS:
        runs = [folder / f"{recipe}-{seed}" for seed in range(seeds)]
        metrics = [train(recipe, run, "--data.source", "mnist", seed=seed) for seed, run in enumerate(runs)]
        errors = [100 - 100 * each["test_accuracy"] for each in metrics]
        least = min(each["parameters"] / each["nonzero_parameters"] for each in metrics)
        cells.append(f"{least:.1f} ×, {mean_and_spread(errors)}")
        seconds.append(statistics.mean(each["train_seconds"] for each in metrics))
    print_row(f"ours, mean of {seeds} seeds", *cells)
    print(f"training: {seconds[0]:.0f} s and {seconds[1]:.0f} s a run")


def units(seeds: int, folder: Path) -> None:
    """Print what pruning the units of mnist-cnn gives."""
    import numpy as np

    accuracies = ("dense accuracy, %", "pruned, %")
    speeds = ("faster, batch of 256", "the same exported")
    print_header("seed", *accuracies, "fewer multiply-adds", "parameters", *speeds, "SavedModel, bytes")
    images = np.random.default_rng(0).uniform(0, 255, (BATCH_SIZE, 28, 28, 1)).astype(np.float32)
    rows = []
    for seed in range(seeds):
        rows.append(_prune_units(seed, folder, {"image": images}))
        _print_units(str(seed), rows[-1])
    _print_units("mean", {name: statistics.mean(row[name] for row in rows) for name in rows[0]})


def _prune_units(seed: int, folder: Path, batch: dict[str, Any]) -> dict[str, float]:
    """Train and prune mnist-cnn; return what it was before and after, and how many times less or faster."""
    dense, pruned = folder / f"dense-{seed}", folder / f"pruned-{seed}"
    train("mnist-cnn", dense, "--data.source", "mnist", seed=seed)
    command("recipes", "prune", dense, *UNITS, "--run-dir", pruned)
    before, after = (metrics_of(pruned)["compression"][name] for name in ("before", "after"))
    paths = [exported(run, folder / "models") for run in (dense, pruned)]
    seconds = signature_seconds(paths, batch)
    return {
        "dense": 100 * metrics_of(dense)["test_accuracy"],
        "pruned": 100 * metrics_of(pruned)["test_accuracy"],
        "multiply_adds": before["multiply_adds"] / after["multiply_adds"],
        "parameters_before": before["parameters"],
        "parameters_after": after["parameters"],
        "speed": after["examples_per_second"] / before["examples_per_second"],
        "exported_speed": seconds[0] / seconds[1],
        "bytes_before": bytes_of(paths[0]),
        "bytes_after": bytes_of(paths[1]),
    }


def _print_units(name: str, row: dict[str, float]) -> None:
    print_row(
        name,
        f"{row['dense']:.2f}",
        f"{row['pruned']:.2f}",
        f"{row['multiply_adds']:.1f}",
        f"{row['parameters_before']:,.0f} → {row['parameters_after']:,.0f}",
        f"{row['speed']:.1f}",
        f"{row['exported_speed']:.1f}",
        f"{row['bytes_before']:,.0f} → {row['bytes_after']:,.0f}",
    )


def language(folder: Path) -> None:
    """Print what a Transformer without a quarter of its heads and half of its feed-forward units is."""
    from recipes.command_line import quiet_tensorflow

    with quiet_tensorflow():
        import keras

        from recipes.compression.importance import least, magnitude
        from recipes.compression.shrink import shrink, silence
        from recipes.compression.units import find_units
        from recipes.models.saved import copy_without_optimizer

    dense, smaller = folder / "dense", folder / "smaller"
    short = ["--training.epochs", "2", "--training.steps-per-epoch", "100", "--model.heads", "4"]
    train("lm-transformer", dense, "--data.source", "tiny_shakespeare", *short)
    model = keras.models.load_model(dense / "model.keras")
    found = find_units(model)
    silence(found, least(found, magnitude(found), {"heads": 0.25, "feed-forward": 0.5}))
    shutil.copytree(dense, smaller)
    copy_without_optimizer(shrink(model)).save(smaller / "model.keras")
    paths = [exported(run, folder / "models") for run in (dense, smaller)]
    command("recipes", "generate", smaller, "--prompt", "ROMEO:", "--max-new-tokens", "80")
    shrunk = keras.models.load_model(smaller / "model.keras")
    print(f"heads and feed-forward units of each block: {[list(sizes) for sizes in shrunk.sizes]}")
    print(f"parameters {model.count_params():,} → {shrunk.count_params():,}")
    print(f"SavedModel {bytes_of(paths[0]):,} → {bytes_of(paths[1]):,} bytes")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", choices=["weights", "units", "language"])
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, from 0")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        if chosen.table == "weights":
            weights(chosen.seeds, Path(temporary))
        elif chosen.table == "units":
            units(chosen.seeds, Path(temporary))
        else:
            language(Path(temporary))


if __name__ == "__main__":
    main()
