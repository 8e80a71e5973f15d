"""Compare searches: this project's and Optuna's in the same time, and one worker with two.

    TFDS_DATA_DIR=... python -m benchmarks.tuning                      one hour, on an otherwise idle machine
    TFDS_DATA_DIR=... python -m benchmarks.tuning --recipes mnist-cnn --seconds 300
    python -m benchmarks.tuning workers                                one worker and two

Both search batch size and learning rate in the same space (`tuning.space.default_space`), start with the
recipe's own values, train with the recipe's own module in two processes that share the cores, and stop
their last trials after the epoch in which the time limit is reached. Only finished trials count.
Ours is `python -m tuning search --workers 2`, the command of `make tune-mnist`. Optuna's is a study with its
TPE sampler and its median pruner, both after 3 start-up trials, like ours with two settings; their defaults
of 10 and 5 exceed the number of trials. The searches take turns, so that a slow minute affects both.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.commands import ROOT, command
from benchmarks.tables import mean_and_spread, print_header, print_row
from recipes.catalog import CATALOG
from recipes.runs.flags import parse_flags
from tuning.directory import SearchDirectory
from tuning.plan import Method, Plan, make_plan
from tuning.space import own_values
from tuning.trial import best_trial

FLAGS = {
    "mnist-cnn": ["--training.epochs", "2", "--data.source", "mnist"],
    "lm-transformer": [
        "--training.epochs",
        "2",
        "--training.steps-per-epoch",
        "60",
        "--data.source",
        "tiny_shakespeare",
    ],
}
MANY = 1000
PROCESSES = 2
THREADS = max(1, (os.cpu_count() or 1) // PROCESSES)
STARTUP_TRIALS = 3


def ours(recipe: str, seconds: float, seed: int, folder: Path) -> dict[str, Any]:
    """Search with this project's command; return the best value and the number of trials."""
    budget = ["--seconds", str(seconds), "--trials", str(MANY), "--seed", str(seed)]
    budget += ["--workers", str(PROCESSES), "--threads", str(THREADS)]
    command("tuning", "search", recipe, "--search-dir", folder, *FLAGS[recipe], *budget)
    directory = SearchDirectory(folder)
    trials = directory.trials()
    best = best_trial(trials, directory.plan.sign)
    if best is None:
        raise RuntimeError(f"no trial of {folder} has a value")
    return {"best": best.known_value, "trials": len(trials)}


def optunas(recipe: str, seconds: float, seed: int, folder: Path) -> dict[str, Any]:
    """Search with an Optuna study in several processes; return the best value and the number of trials."""
    plan = plan_of(recipe)
    study = open_study(plan, seed, folder)
    study.enqueue_trial(own_values(plan.recipe, plan.dimensions) or {})
    script = [sys.executable, "-m", "benchmarks.tuning", "study", "--recipes", recipe]
    flags = ["--seconds", str(seconds), "--folder", str(folder)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    processes = [
        subprocess.Popen(
            [*script, *flags, "--seed", str(seed * PROCESSES + number)],
            cwd=ROOT,
            stdout=sys.stderr,
            env=environment,
        )
        for number in range(PROCESSES)
    ]
    statuses = [process.wait() for process in processes]
    if any(statuses):
        raise RuntimeError(f"processes of the study in {folder} exited with {statuses}")
    return {"best": study.best_value, "trials": len(study.trials)}


def plan_of(recipe_name: str) -> Plan:
    """Return the plan of both searches."""
    method = Method()
    recipe, _ = parse_flags("", "", CATALOG[recipe_name].recipe, method, FLAGS[recipe_name])
    return make_plan(recipe_name, recipe, {}, method)


def open_study(plan: Plan, seed: int, folder: Path) -> Any:
    """Open the Optuna study in a folder, which its processes share."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        study_name=plan.name,
        storage=optuna.storages.JournalStorage(JournalFileBackend(str(folder / "journal.log"))),
        direction="maximize" if plan.sign > 0 else "minimize",
        sampler=optuna.samplers.TPESampler(n_startup_trials=STARTUP_TRIALS, seed=seed),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS),
        load_if_exists=True,
    )


def run_study(recipe_name: str, seconds: float, seed: int, folder: Path) -> None:
    """Run one of the processes of an Optuna study."""
    import keras
    import optuna
    import tensorflow as tf

    from recipes.runs.directory import Run
    from recipes.tasks import task_of
    from tuning.scores import value_by_epoch
    from tuning.space import apply

    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    tf.config.threading.set_inter_op_parallelism_threads(THREADS)
    plan = plan_of(recipe_name)
    batch, rate = plan.dimensions
    end = time.monotonic() + seconds

    def objective(trial: optuna.Trial) -> float:
        values = {
            batch.name: trial.suggest_categorical(batch.name, batch.choices),
            rate.name: trial.suggest_float(rate.name, rate.low, rate.high, log=True),
        }
        run = Run(folder / str(trial.number))
        recipe = apply(plan.recipe, plan.dimensions, values)

        def report(epoch: int, logs: dict[str, Any]) -> None:
            trial.report(run.history[-1][plan.objective], epoch)
            if epoch + 1 < recipe.training.epochs and (trial.should_prune() or time.monotonic() > end):
                reporter.model.stop_training = True

        reporter = keras.callbacks.LambdaCallback(on_epoch_end=report)
        task_of(recipe_name, recipe).train(run.path, callbacks=[reporter], final=False)
        keras.backend.clear_session()
        value = value_by_epoch(run, plan)[-1]
        if value is None or len(run.history) < recipe.training.epochs:
            raise optuna.TrialPruned
        return value

    open_study(plan, seed, folder).optimize(objective, timeout=seconds)


def compare(recipes: list[str], seconds: float, repetitions: int, folder: Path) -> None:
    """Print a table of the best values of both."""
    best = f"best, mean of {repetitions} ± spread"
    print_header("recipe", f"search, {seconds:.0f} s", best, "trials, mean")
    for recipe in recipes:
        found: dict[str, list[dict[str, Any]]] = {"ours": [], "Optuna": []}
        for seed in range(repetitions):
            for name, search in (("ours", ours), ("Optuna", optunas)):
                place = folder / f"{recipe}-{name}-{seed}"
                place.mkdir()
                found[name].append(search(recipe, seconds, seed, place))
                print(recipe, name, seed, found[name][-1], file=sys.stderr, flush=True)
        for name, results in found.items():
            values = mean_and_spread([result["best"] for result in results], 4)
            count = statistics.mean(result["trials"] for result in results)
            print_row(f"`{recipe}`", name, values, f"{count:.1f}")


def workers(folder: Path, trials: int = 8) -> None:
    """Print the time of the same number of trials with one and with two workers, one thread each."""
    base = ("tuning", "search", "mnist-mlp", "--data.source", "digits")
    same = ["--trials", str(trials), "--threads", "1", "--training.epochs", "12", "--no-early-ending"]
    space = ["--space.training.batch-size", "8,9"]
    seconds = []
    print_header("workers, one thread each", "seconds")
    for count in (1, 2):
        started = time.monotonic()
        command(*base, *same, *space, "--workers", count, "--search-dir", folder / str(count))
        seconds.append(time.monotonic() - started)
        print_row(count, f"{seconds[-1]:.1f}")
    print(f"two workers take {seconds[1] / seconds[0]:.2f} of the time of one")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", nargs="?", choices=["compare", "workers", "study"], default="compare")
    parser.add_argument("--recipes", nargs="+", choices=list(FLAGS), default=list(FLAGS))
    parser.add_argument("--seconds", type=float, default=150, help="time of each search")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.table == "study":
        run_study(chosen.recipes[0], chosen.seconds, chosen.seed, chosen.folder)
        return
    with tempfile.TemporaryDirectory() as temporary:
        if chosen.table == "compare":
            compare(chosen.recipes, chosen.seconds, chosen.repetitions, Path(temporary))
        else:
            workers(Path(temporary))


if __name__ == "__main__":
    main()
