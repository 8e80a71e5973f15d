"""Compare searches: ours beside Optuna's in the same time, two workers beside one.

    TFDS_DATA_DIR=... python -m benchmarks.tuning                      half an hour
    TFDS_DATA_DIR=... python -m benchmarks.tuning --recipes mnist-cnn --seconds 300
    python -m benchmarks.tuning workers                                one worker against two

Both search batch size and learning rate over the same space (`tuning.space.default_space`), begin with
the recipe's own values, train by the recipe's own module, and end their last trial with the epoch in
which the time is over. Ours is `python -m tuning search --workers 2`, as `make tune-mnist` runs it;
Optuna's is a study with its TPE sampler and its median pruner at their defaults, in one process with
both cores: TensorFlow can't be searched by its threads. They take turns: a slow minute meets both.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tuning.plan import SearchDirectory, best_trial

ROOT = Path(__file__).parent.parent
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


def ours(recipe: str, seconds: float, seed: int, folder: Path) -> dict[str, Any]:
    """Search with this project's command; return the best value, and how many trials there were."""
    budget = ["--seconds", str(seconds), "--trials", str(MANY), "--seed", str(seed), "--workers", "2"]
    command = [sys.executable, "-m", "tuning", "search", recipe, "--search-dir", str(folder)]
    subprocess.run([*command, *FLAGS[recipe], *budget], cwd=ROOT, check=True, stdout=sys.stderr)
    search = SearchDirectory(folder)
    trials = search.trials()
    best = best_trial(trials, search.read_plan().sign)
    if best is None:
        raise RuntimeError(f"no trial of {folder} has a value")
    return {"best": best.known_value, "trials": len(trials)}


def optunas(recipe: str, seconds: float, seed: int, folder: Path) -> dict[str, Any]:
    """Search with an Optuna study in a process of its own."""
    script = [sys.executable, "-m", "benchmarks.tuning", "study", "--recipes", recipe]
    flags = ["--seconds", str(seconds), "--seed", str(seed), "--folder", str(folder)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([*script, *flags], cwd=ROOT, check=True, stdout=sys.stderr, env=environment)
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result


def study(recipe_name: str, seconds: float, seed: int, folder: Path) -> None:
    """Run an Optuna study and write what came of it."""
    import keras
    import optuna

    from recipes.__main__ import parse_flags
    from recipes.catalog import CATALOG
    from recipes.kinds import module_of
    from recipes.run import Run
    from tuning.curves import best_by_epoch
    from tuning.plan import Method, make_plan
    from tuning.space import apply, own_values

    method = Method()
    recipe, _ = parse_flags("", "", CATALOG[recipe_name].recipe, method, FLAGS[recipe_name])
    plan = make_plan(recipe_name, recipe, {}, method)
    batch, rate = plan.dimensions
    end = time.monotonic() + seconds

    def objective(trial: optuna.Trial) -> float:
        values = {
            batch.name: trial.suggest_categorical(batch.name, batch.choices),
            rate.name: trial.suggest_float(rate.name, rate.low, rate.high, log=True),
        }
        run = Run(folder / str(trial.number))

        pruned = False

        def report(epoch: int, logs: dict[str, Any]) -> None:
            nonlocal pruned
            trial.report(best_by_epoch(run, plan)[-1], epoch)
            pruned = trial.should_prune()
            if pruned or time.monotonic() > end:
                reporter.model.stop_training = True

        reporter = keras.callbacks.LambdaCallback(on_epoch_end=report)
        module_of(recipe).train(
            recipe_name,
            apply(plan.recipe, plan.dimensions, values),
            run.path,
            callbacks=[reporter],
            final=False,
        )
        keras.backend.clear_session()
        if pruned:
            raise optuna.TrialPruned
        return best_by_epoch(run, plan)[-1]

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    search = optuna.create_study(
        direction="maximize" if plan.sign > 0 else "minimize",
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.MedianPruner(),
    )
    search.enqueue_trial(own_values(plan.recipe, plan.dimensions) or {})
    search.optimize(objective, timeout=seconds)
    result = {"best": search.best_value, "trials": len(search.trials)}
    (folder / "result.json").write_text(json.dumps(result))


def compare(recipes: list[str], seconds: float, repetitions: int, folder: Path) -> None:
    """Print the best values of both."""
    print(f"| recipe | search, {seconds:.0f} s | best, mean of {repetitions} ± spread | trials, mean |")
    print("|---|---|---|---|")
    for recipe in recipes:
        found: dict[str, list[dict[str, Any]]] = {"ours": [], "Optuna": []}
        for seed in range(repetitions):
            for name, search in (("ours", ours), ("Optuna", optunas)):
                place = folder / f"{recipe}-{name}-{seed}"
                place.mkdir()
                found[name].append(search(recipe, seconds, seed, place))
                print(recipe, name, seed, found[name][-1], file=sys.stderr, flush=True)
        for name, results in found.items():
            best = [result["best"] for result in results]
            spread = statistics.stdev(best) if repetitions > 1 else 0.0
            count = statistics.mean(result["trials"] for result in results)
            print(
                f"| `{recipe}` | {name} | {statistics.mean(best):.4f} ± {spread:.4f} | {count:.1f} |",
                flush=True,
            )


def workers(folder: Path, trials: int = 8) -> None:
    """Print the time of as many trials by one and by two workers, one thread each."""
    command = [sys.executable, "-m", "tuning", "search", "mnist-mlp", "--data.source", "digits"]
    same = ["--trials", str(trials), "--threads", "1", "--training.epochs", "12", "--no-early-ending"]
    space = ["--space.training.batch-size", "8,9"]
    seconds = []
    print("| workers, one thread each | seconds |\n|---|---|")
    for count in (1, 2):
        started = time.monotonic()
        flags = ["--workers", str(count), "--search-dir", str(folder / str(count))]
        subprocess.run([*command, *same, *space, *flags], cwd=ROOT, check=True, stdout=sys.stderr)
        seconds.append(time.monotonic() - started)
        print(f"| {count} | {seconds[-1]:.1f} |", flush=True)
    print(f"two take {seconds[1] / seconds[0]:.2f} of one's time")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", nargs="?", choices=["compare", "workers", "study"], default="compare")
    parser.add_argument("--recipes", nargs="+", choices=list(FLAGS), default=list(FLAGS))
    parser.add_argument("--seconds", type=float, default=150, help="time of each search")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.table == "study":
        study(chosen.recipes[0], chosen.seconds, chosen.seed, chosen.folder)
        return
    with tempfile.TemporaryDirectory() as temporary:
        if chosen.table == "compare":
            compare(chosen.recipes, chosen.seconds, chosen.repetitions, Path(temporary))
        else:
            workers(Path(temporary))


if __name__ == "__main__":
    main()
