"""Print the README's tables of language models: losses on tiny Shakespeare, time to nanoGPT's loss, tokens a second.

    TFDS_DATA_DIR=... python -m benchmarks.language_model                      all tables, hours
    TFDS_DATA_DIR=... python -m benchmarks.language_model losses --recipes lm-lstm --seeds 1
    TFDS_DATA_DIR=... python -m benchmarks.language_model time
    python -m benchmarks.language_model cache
    python -m benchmarks.language_model serving --run runs/lm-transformer/latest

Losses are of the last 10 % of tiny Shakespeare, in nats a character: TFDS's validation and test
parts, which nanoGPT calls validation. Epochs and settings were chosen on the validation part alone.
Each run is `python -m recipes train RECIPE --data.source tiny_shakespeare --training.seed SEED`.
"""

import argparse
import csv
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.commands import ROOT, command, metrics_of
from recipes.catalog import CATALOG
from recipes.config import TextRecipe

TEXT_RECIPES = [name for name, entry in CATALOG.items() if isinstance(entry.recipe, TextRecipe)]
NANOGPT_CPU_LOSS = 1.88
PEERS = """| nanoGPT on CPU (published) | 804,096 | 1.54 M | 1.88 | | |
| nanoGPT on GPU (published) | 10.75 M | 82 M | 1.4697 | | |"""
# nanoGPT's settings for a CPU, in the textbook recipe.
TEXTBOOK = [
    "--data.block-size",
    "64",
    "--training.batch-size",
    "12",
    "--training.epochs",
    "10",
    "--training.steps-per-epoch",
    "200",
    "--model.positions",
    "learned",
    "--optimizer.learning-rate",
    "0.001",
    "--schedule.final-fraction",
    "0.1",
]

SHORT = [
    "--model.width",
    "96",
    "--model.feed-forward",
    "384",
    "--model.layers",
    "3",
    "--model.heads",
    "2",
    "--optimizer.learning-rate",
    "0.02",
    "--training.epochs",
    "4",
    "--training.steps-per-epoch",
    "64",
    "--schedule.warmup",
    "0.1",
]


def train(recipe: str, folder: Path, name: str, *flags: str) -> Path:
    """Train a recipe in a process of its own and return its run directory."""
    path = folder / name
    command("recipes", "train", recipe, "--run-dir", path, *flags, "--data.source", "tiny_shakespeare")
    return path


def losses(recipes: list[str], seeds: int, folder: Path) -> None:
    """Print parameters, training tokens, loss and time of each recipe."""
    print("| recipe | parameters | training tokens | loss, last 10 % | validation loss | training, s |")
    print("|---|---|---|---|---|---|")
    print(PEERS, flush=True)
    for recipe in recipes:
        runs = [
            metrics_of(train(recipe, folder, f"{recipe}-{seed}", "--training.seed", str(seed)))
            for seed in range(seeds)
        ]
        both = [run["validation_and_test_loss"] for run in runs]
        spread = f" ± {statistics.stdev(both):.4f}" if seeds > 1 else " (one seed)"
        print(
            f"| `{recipe}` | {runs[0]['parameters']:,} | {runs[0]['train_tokens'] / 1e6:.2f} M "
            f"| {statistics.mean(both):.4f}{spread} "
            f"| {statistics.mean(run['validation_loss'] for run in runs):.4f} "
            f"| {statistics.mean(run['train_seconds'] for run in runs):.0f} |",
            flush=True,
        )


def time_to_loss(folder: Path) -> None:
    """Print the time of nanoGPT's 2,000 steps in the textbook recipe, and ours to nanoGPT's loss.

    Times are tokens over the median tokens a second of the epochs after the first, so that neither
    compilation nor validation counts. Ours is a network of its own, with a schedule that ends there.
    """
    textbook = train("lm-transformer-classic", folder, "textbook", *TEXTBOOK)
    ours = train("lm-transformer-small", folder, "short", *SHORT)
    print("| recipe | parameters | training tokens | loss, last 10 % | steps alone, s |")
    print("|---|---|---|---|---|")
    seconds = []
    for name, run in [
        ("textbook at nanoGPT's settings", textbook),
        ("a third of `lm-transformer-small`", ours),
    ]:
        metrics = metrics_of(run)
        rows = list(csv.DictReader((run / "history.csv").open()))
        speed = statistics.median(float(row["tokens_per_second"]) for row in rows[1:])
        seconds.append(metrics["train_tokens"] / speed)
        print(
            f"| {name} | {metrics['parameters']:,} | {metrics['train_tokens'] / 1e6:.2f} M "
            f"| {metrics['validation_and_test_loss']:.4f} | {seconds[-1]:.1f} |"
        )
    print(
        f"{NANOGPT_CPU_LOSS} is reached in {seconds[1] / seconds[0]:.2f} of the textbook's time", flush=True
    )


def cache(context: int = 256, tokens: int = 128) -> None:
    """Print tokens a second with and without the cache, at a full window, one text at a time."""
    import keras
    import numpy as np
    import tensorflow as tf

    from recipes import generation
    from recipes.models.transformer import TransformerLanguageModel

    recipe = CATALOG["lm-transformer"].recipe
    keras.utils.set_random_seed(0)
    model = TransformerLanguageModel(recipe.model, 65, context)
    prompt = np.random.default_rng(0).integers(0, 65, (1, context - tokens)).astype(np.int32)
    each = (tf.zeros(1), tf.zeros(1, tf.int32), tf.ones(1))
    whole = tf.function(lambda ids: tf.argmax(model(ids)[:, -1], axis=1))
    begin = tf.function(lambda ids, lengths: generation.begin(model, ids, lengths))
    extend = tf.function(lambda state, draws: generation.extend(model, state, draws, *each)[0])

    def without() -> None:
        for _ in range(tokens):
            whole(tf.zeros((1, context), tf.int32)).numpy()

    def cached() -> None:
        state = begin(tf.constant(prompt), tf.constant([context - tokens]))
        extend(state, tf.zeros((1, tokens))).numpy()

    print("| generation, window of 256, one text | tokens/s |")
    print("|---|---|")
    speeds = []
    for name, run in [("with the cache", cached), ("the whole window for each token", without)]:
        run()
        speeds.append(tokens / min(_seconds(run) for _ in range(5)))
        print(f"| {name} | {speeds[-1]:,.0f} |")
    print(f"with the cache {speeds[0] / speeds[1]:.1f} times as many", flush=True)


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def serving(run: Path) -> None:
    """Print tokens a second through the embedded server at 1 and 8 callers."""
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    from serving.client import Client

    with tempfile.TemporaryDirectory() as folder:
        command("serving", "export", run, "--models", folder)
        address = f"unix:{folder}/socket"
        serve = [
            sys.executable,
            "-m",
            "serving",
            "serve",
            "--model_name=lm",
            f"--model_base_path={folder}/lm",
        ]
        flags = [
            f"--grpc_socket_path={folder}/socket",
            "--port=0",
            "--rest_api_port=0",
            "--enable_batching=true",
        ]
        with subprocess.Popen([*serve, *flags], cwd=ROOT, stderr=subprocess.DEVNULL) as server:
            one: dict[str, Any] = {
                "prompt": np.array([b"ROMEO:"], np.object_),
                "max_new_tokens": np.array([200], np.int32),
                "temperature": np.array([0.8], np.float32),
                "top_k": np.array([0], np.int32),
                "top_p": np.array([1.0], np.float32),
                "seed": np.array([0]),
            }

            def call(_: int) -> None:
                with Client(address, timeout=120) as client:
                    for _ in range(5):
                        client.predict("lm", signature="generate", **one)

            while not Path(folder, "socket").exists():
                time.sleep(0.1)
            call(0)
            print("| callers | tokens/s |")
            print("|---|---|")
            for callers in (1, 8):
                with ThreadPoolExecutor(callers) as pool:
                    seconds = _seconds(lambda: list(pool.map(call, range(callers))))  # noqa: B023 - called at once
                print(f"| {callers} | {callers * 5 * 200 / seconds:,.0f} |", flush=True)
            server.terminate()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", nargs="?", choices=["losses", "time", "cache", "serving"])
    parser.add_argument("--recipes", nargs="+", choices=TEXT_RECIPES, default=TEXT_RECIPES)
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, from 0")
    parser.add_argument("--run", type=Path, help="a finished language model, for the table of serving")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if arguments.table in (None, "losses"):
            losses(arguments.recipes, arguments.seeds, folder)
        if arguments.table in (None, "time"):
            time_to_loss(folder)
        if arguments.table in (None, "cache"):
            cache()
        if arguments.table in (None, "serving"):
            serving(arguments.run or train("lm-transformer", folder, "served"))


if __name__ == "__main__":
    main()
