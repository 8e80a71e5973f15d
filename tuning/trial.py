"""What runs in the process of a trial: the recipe's own training, once for each seed."""

import contextlib
import resource
import shutil
import statistics
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import tensorflow as tf

from recipes.config import DivergedError, Recipe, UserError
from recipes.runs.directory import Run
from recipes.runs.lock import only_writer
from recipes.runs.settings import with_settings
from recipes.tasks import task_of
from tuning.callbacks import EndHopeless, EndInTime, PauseAfter, Paused, Tell
from tuning.curves import value_by_epoch
from tuning.hparams import write_hparams
from tuning.plan import Order, Plan, SearchDirectory, Trial
from tuning.space import apply


def train_trial(order: Order, tell: Callable[[int, float | None], None]) -> Trial:
    """Train a trial, from its checkpoint if it has one, and return it with its result.

    Args:
        order: The trial.
        tell: Takes the epochs done and the value of the weights that would be kept, after each epoch.
    """
    search = SearchDirectory(order.search)
    tf.config.threading.set_intra_op_parallelism_threads(order.threads)
    tf.config.threading.set_inter_op_parallelism_threads(order.threads)
    plan = search.read_plan()
    trial = order.trial
    values: list[float | None] = []
    saved, reason, paused = 0.0, "", ""
    try:
        recipe = apply(plan.recipe, plan.dimensions, trial.values)
        for execution in range(plan.method.executions):
            seeded = with_settings(recipe, {"training": {"seed": recipe.training.seed + execution}})
            run = search.seed_run(trial.number, seeded.training.seed)
            reason, hopeless = _train(order, search, plan, seeded, run, tell)
            if hopeless:
                saved = _seconds_left(run, recipe.training.epochs, plan.method.executions - execution - 1)
            if not (reason and values):  # a seed that was cut short says less than those that were not
                values.append(value_by_epoch(run, plan)[-1])
            if reason:
                break
            if not run.finished:
                paused = f"paused after epoch {order.epochs}"
        trial = replace(trial, **_result(plan, values, reason or paused))
    except DivergedError as error:
        trial = replace(trial, status="failed", reason=str(error))
    except UserError as error:
        trial = replace(trial, status="failed", reason=str(error), refused=True)
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        trial = replace(trial, status="failed", reason=f"out of memory: {_first_line(error)}")
    except Exception as error:
        traceback.print_exc()
        trial = replace(trial, status="failed", reason=f"{type(error).__name__}: {_first_line(error)}")
    trial = replace(
        trial,
        epochs=sum(len(run.history) for run in search.runs(trial.number) if run.history_path.exists()),
        saved_seconds=round(saved, 3),
        memory_mib=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    )
    write_hparams(search.trial_path(trial.number) / "tensorboard", plan, trial)
    return trial


def _result(plan: Plan, values: list[float | None], reason: str) -> dict[str, Any]:
    """Return status, value and reason of a trial by its seeds' values and by what stopped it, if anything."""
    known = [value for value in values if value is not None]
    value = statistics.mean(known) if len(known) == len(values) else None
    if reason or value is not None:
        return {"status": "stopped" if reason else "finished", "value": value, "reason": reason}
    return {"status": "failed", "reason": f"{plan.objective} was not finite in any epoch that could be kept"}


def _seconds_left(run: Run, epochs: int, more_seeds: int) -> float:
    """Return what the rest of a run would have taken, and further seeds after it, s."""
    seconds = [row["seconds"] for row in run.history]
    return statistics.mean(seconds) * (epochs * (1 + more_seeds) - len(seconds))


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]


def _train(
    order: Order,
    search: SearchDirectory,
    plan: Plan,
    recipe: Recipe,
    run: Run,
    tell: Callable[[int, float | None], None],
) -> tuple[str, bool]:
    """Train one seed to its end or its pause; return what stopped it or "", and whether that saved time."""
    if run.finished:  # a kill came between its end and the trial's
        return _stopped_before(run, recipe), False
    if order.follows is not None and not run.path.exists():
        _copy_run(search.seed_run(order.follows, recipe.training.seed), run)
    hopeless, late = EndHopeless(search, plan, run), EndInTime(search.deadline(plan))
    ends_early = plan.method.early_ending and plan.method.algorithm != "hyperband"
    pauses = [PauseAfter(order.epochs)] if order.epochs else []
    going_on = (run.path / "config.json").exists()
    if going_on:
        _wait_for(run)
    with contextlib.suppress(Paused):
        task_of(plan.name, recipe).train(
            run.path,
            resume=going_on,
            callbacks=[Tell(plan, run, tell), *([hopeless] if ends_early else []), late, *pauses],
            final=False,
        )
    reason = "; ".join(ender.reason for ender in (hopeless, late) if ender.reason)
    if not reason and run.finished:
        reason = _stopped_before(run, recipe)
    return reason, bool(hopeless.reason and not late.reason)


def _stopped_before(run: Run, recipe: Recipe) -> str:
    """Return why a finished run is not whole, "" if it is: it was stopped by a search that was killed then."""
    epochs, patience = int(run.metrics["epochs"]), recipe.early_stopping.patience
    out_of_patience = patience is not None and epochs - int(run.metrics["best_epoch"]) >= patience
    whole = epochs == recipe.training.epochs or out_of_patience
    return "" if whole else f"it was stopped after epoch {epochs}, before the search was killed"


def _wait_for(run: Run) -> None:
    """Wait a little for a process that still holds the run: one whose search was killed ends at once."""
    for _ in range(100):
        try:
            with only_writer(run.path):
                return
        except UserError:
            time.sleep(0.1)


def _copy_run(source: Run, target: Run) -> None:
    """Copy a paused run, whole or not at all."""
    beside = target.path.with_name(f".{target.path.name}")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(source.path, beside)
    beside.replace(target.path)
