"""The training of one trial, in its process: the recipe's own training, once for each seed."""

import contextlib
import resource
import shutil
import statistics
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorboard.plugins.hparams import api

from recipes.config import DivergedError, Recipe, UserError, with_settings
from recipes.runs.directory import Run
from recipes.runs.lock import only_writer
from recipes.tasks import task_of
from tuning.callbacks import PauseAfter, Paused, StopAtDeadline, StopBelowMedian
from tuning.directory import SearchDirectory
from tuning.plan import Plan
from tuning.scores import value_by_epoch
from tuning.space import apply
from tuning.trial import Trial


def train_trial(directory: SearchDirectory, trial: Trial, *, threads: int) -> Trial:
    """Train a trial, from its checkpoint if it has one, and return it with its result.

    Args:
        directory: The search directory.
        trial: The trial.
        threads: Threads of TensorFlow.
    """
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    plan = directory.plan
    values: list[float | None] = []
    saved, reason, paused = 0.0, "", ""
    try:
        recipe = apply(plan.recipe, plan.dimensions, trial.values)
        for execution in range(plan.method.executions):
            seeded = with_settings(recipe, {"training": {"seed": recipe.training.seed + execution}})
            run = directory.seed_run(trial.number, seeded.training.seed)
            reason, below_median = _train(directory, trial, seeded, run)
            if below_median:
                saved = _seconds_left(run, recipe.training.epochs, plan.method.executions - execution - 1)
            if not (reason and values):  # the mean leaves out a seed that was stopped after complete ones
                values.append(value_by_epoch(run, plan)[-1])
            if reason:
                break
            if not run.finished:
                paused = f"paused after epoch {trial.epoch_limit}"
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
        epochs=sum(len(run.history) for run in directory.runs(trial.number) if run.history_path.exists()),
        saved_seconds=round(saved, 3),
        memory_mib=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    )
    write_hparams(directory.trial_path(trial.number) / "tensorboard", plan, trial)
    return trial


def _result(plan: Plan, values: list[float | None], reason: str) -> dict[str, Any]:
    """Return status, value and reason of a trial from its seeds' values and the reason for a stop, if any."""
    known = [value for value in values if value is not None]
    value = statistics.mean(known) if len(known) == len(values) else None
    if reason or value is not None:
        return {"status": "stopped" if reason else "finished", "value": value, "reason": reason}
    return {"status": "failed", "reason": f"{plan.objective} was not finite in any epoch that could be kept"}


def _seconds_left(run: Run, epochs: int, more_seeds: int) -> float:
    """Return the estimated time of the rest of a run and of the seeds after it, s."""
    seconds = [row["seconds"] for row in run.history]
    return statistics.mean(seconds) * (epochs * (1 + more_seeds) - len(seconds))


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]


def _train(directory: SearchDirectory, trial: Trial, recipe: Recipe, run: Run) -> tuple[str, bool]:
    """Train one seed to its end or its pause.

    Returns:
        Why it was stopped or "", and whether the median rule stopped it.
    """
    if run.finished:  # a kill came between the end of the run and the end of the trial
        return _reason_to_stop(run, recipe), False
    if trial.follows is not None and not run.path.exists():
        _copy_run(directory.seed_run(trial.follows, recipe.training.seed), run)
    plan = directory.plan
    median, deadline = StopBelowMedian(directory, run), StopAtDeadline(directory.deadline(trial))
    callbacks: list[Any] = [deadline]
    if plan.method.early_ending and plan.method.algorithm != "hyperband":
        callbacks.append(median)
    if trial.epoch_limit is not None:
        callbacks.append(PauseAfter(trial.epoch_limit))
    resume = (run.path / "config.json").exists()
    if resume:
        _wait_for(run)
    with contextlib.suppress(Paused):
        task_of(plan.name, recipe).train(run.path, resume=resume, callbacks=callbacks, final=False)
    reason = "; ".join(stop.reason for stop in (median, deadline) if stop.reason)
    if not reason and run.finished:
        reason = _reason_to_stop(run, recipe)
    return reason, bool(median.reason and not deadline.reason)


def _reason_to_stop(run: Run, recipe: Recipe) -> str:
    """Return why a finished run has not all epochs, "" if it has: it was stopped before a kill."""
    epochs, patience = int(run.metrics["epochs"]), recipe.early_stopping.patience
    out_of_patience = patience is not None and epochs - int(run.metrics["best_epoch"]) >= patience
    complete = epochs == recipe.training.epochs or out_of_patience
    return "" if complete else f"it was stopped after epoch {epochs}, before the search was killed"


def _wait_for(run: Run) -> None:
    """Wait up to 10 s for a process that still holds the run: after a kill of its search it ends at once."""
    for _ in range(100):
        try:
            with only_writer(run.path):
                return
        except UserError:
            time.sleep(0.1)


def _copy_run(source: Run, target: Run) -> None:
    """Copy a paused run atomically."""
    beside = target.path.with_name(f".{target.path.name}")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(source.path, beside)
    beside.replace(target.path)


def write_hparams(folder: Path, plan: Plan, trial: Trial) -> None:
    """Write the settings and the value of a trial for TensorBoard's HParams plugin.

    `tensorboard --logdir searches/RECIPE/NAME` shows them.

    Args:
        folder: Folder of the log.
        plan: The settings of the search.
        trial: An ended trial; without a value, only its settings are written.
    """
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default():
        api.hparams(trial.values, trial_id=f"trial {trial.number}")
        if trial.value is not None:
            tf.summary.scalar(plan.objective, trial.value, step=trial.epochs)
    writer.close()
