"""Print the tables of language models in docs/results: losses on tiny Shakespeare, time to nanoGPT's loss, tokens per second.

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
import functools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.commands import ROOT, command, metrics_of, train
from benchmarks.tables import mean_and_spread, print_header, print_row
from recipes.catalog import CATALOG
from recipes.config import TextRecipe

TEXT_RECIPES = [name for name, entry in CATALOG.items() if isinstance(entry.recipe, TextRecipe)]
COLUMNS = ("recipe", "parameters", "training tokens", "loss, last 10 %")
NANOGPT_CPU_LOSS = 1.88
PEERS = """| nanoGPT on CPU (published) | 804,096 | 1.54 M | 1.88 | | |
| nanoGPT on GPU (published) | 10.75 M | 82 M | 1.4697 | | |"""
# nanoGPT's settings for a CPU, in the textbook recipe.
TEXTBOOK = [
    "--data.block-size",
    "64",
    "--training.batch-size",
    "12",
    "--training.steps-per-epoch",
    "200",
    "--model.positions",
    "learned",
    "--optimizer.learning-rate",
    "0.001",
    "--schedule.final-fraction",
    "0.1",
]

TEXTBOOK_EPOCHS = (10, 12, 15, 18, 22, 27, 33, 40)
"""Lengths that the textbook recipe is given, each a training of its own, until one reaches the loss: the first
is nanoGPT's 2,000 steps."""

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


def train_on_shakespeare(recipe: str, folder: Path, name: str, *flags: str, seed: int = 0) -> Path:
    """Train a recipe and return its run directory."""
    train(recipe, folder / name, "--data.source", "tiny_shakespeare", *flags, seed=seed)
    return folder / name


def losses(recipes: list[str], seeds: int, folder: Path) -> None:
    """Print parameters, training tokens, loss and time of each recipe."""
    print_header(*COLUMNS, "validation loss", "training, s")
    print(PEERS, flush=True)
    for recipe in recipes:
        runs = [
            metrics_of(train_on_shakespeare(recipe, folder, f"{recipe}-{seed}", seed=seed))
            for seed in range(seeds)
        ]
        print_row(
            f"`{recipe}`",
            f"{runs[0]['parameters']:,}",
            f"{runs[0]['train_tokens'] / 1e6:.2f} M",
            mean_and_spread([run["validation_and_test_loss"] for run in runs], 4),
            f"{statistics.mean(run['validation_loss'] for run in runs):.4f}",
            f"{statistics.mean(run['train_seconds'] for run in runs):.0f}",
        )


def time_to_loss(folder: Path) -> None:
    """Print the time to nanoGPT's loss, of the textbook recipe at nanoGPT's settings and of ours.

    Times are tokens over the median tokens a second of the epochs after the first, so that neither
    compilation nor validation counts. Each length has a schedule of its own that ends there. Where the
    textbook recipe reaches the loss at none of its lengths, the loss it came to takes the place.
    """
    print_header(*COLUMNS, "steps alone, s")
    for epochs in TEXTBOOK_EPOCHS:
        run = train_on_shakespeare(
            "lm-transformer-classic",
            folder,
            f"textbook-{epochs}",
            *TEXTBOOK,
            "--training.epochs",
            str(epochs),
        )
        loss, seconds = _loss_and_seconds(f"textbook at nanoGPT's settings, {epochs} epochs", run)
        if loss <= NANOGPT_CPU_LOSS:
            break
    goal = max(loss, NANOGPT_CPU_LOSS)
    ours = train_on_shakespeare("lm-transformer-small", folder, "short", *SHORT)
    our_loss, our_seconds = _loss_and_seconds("a third of `lm-transformer-small`", ours)
    if our_loss <= goal:
        print(f"{goal:.4f} is reached in {our_seconds / seconds:.2f} of the textbook's time", flush=True)
    else:
        print(f"{goal:.4f}, which the textbook recipe reaches in {seconds:.1f} s, is not reached by ours")


def _loss_and_seconds(name: str, run: Path) -> tuple[float, float]:
    """Print a run's row; return its loss on the last 10 %, and the time of its steps alone."""
    metrics = metrics_of(run)
    rows = list(csv.DictReader((run / "history.csv").open()))
    speed = statistics.median(float(row["tokens_per_second"]) for row in rows[1:])
    loss, seconds = metrics["validation_and_test_loss"], metrics["train_tokens"] / speed
    tokens = f"{metrics['train_tokens'] / 1e6:.2f} M"
    print_row(name, f"{metrics['parameters']:,}", tokens, f"{loss:.4f}", f"{seconds:.1f}")
    return loss, seconds


def cache(context: int = 256, repetitions: int = 5) -> None:
    """Print tokens a second with and without the cache, one text at a time, in the window and beyond it.

    Beyond, half of the window is read again each time it is full: once for each half of a window of tokens.
    """
    import keras
    import numpy as np
    import tensorflow as tf

    from recipes.generation import decoding
    from recipes.models.transformer import TransformerLanguageModel

    recipe = CATALOG["lm-transformer"].recipe
    keras.utils.set_random_seed(0)
    model = TransformerLanguageModel(recipe.model, 65, context)
    half = context // 2
    prompt = tf.constant(np.random.default_rng(0).integers(0, 65, (1, half)), tf.int32)
    each = (tf.zeros(1), tf.zeros(1, tf.int32), tf.ones(1))
    whole = tf.function(lambda ids: tf.argmax(model(ids)[:, -1], axis=1))
    begin = tf.function(lambda ids, lengths: decoding.read_prompts(model, ids, lengths))
    extend = tf.function(
        lambda state, draws: decoding.generate_tokens(model, state, draws, *each)[0], reduce_retracing=True
    )

    def cached(tokens: int) -> None:
        extend(begin(prompt, tf.constant([half])), tf.zeros((1, tokens))).numpy()

    def without(tokens: int) -> None:
        for _ in range(tokens):
            whole(tf.zeros((1, context), tf.int32)).numpy()

    task = f"generation, window of {context}, one text"
    print_header(task, "with the cache, tokens/s", "without", "times")
    for tokens in (half, half + 2 * context):
        again = (tokens - half) // half
        speeds = [
            tokens / _least_seconds(functools.partial(run, tokens), repetitions) for run in (cached, without)
        ]
        print_row(
            f"{tokens} tokens, the window read again {again} times",
            *(f"{speed:,.0f}" for speed in speeds),
            f"{speeds[0] / speeds[1]:.1f}",
        )


def _least_seconds(run: Callable[[], object], repetitions: int) -> float:
    run()  # compiles
    return min(_seconds(run) for _ in range(repetitions))


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
            print_header("callers", "tokens/s")
            for callers in (1, 8):
                with ThreadPoolExecutor(callers) as pool:
                    seconds = _seconds(lambda: list(pool.map(call, range(callers))))  # noqa: B023 - called at once
                print_row(callers, f"{callers * 5 * 200 / seconds:,.0f}")
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
            serving(arguments.run or train_on_shakespeare("lm-transformer", folder, "served"))


if __name__ == "__main__":
    main()
