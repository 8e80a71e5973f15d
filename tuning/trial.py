"""What runs in the process of a trial: the recipe's own training, once for each seed."""

import contextlib
import resource
import shutil
import statistics
import time
import traceback
from collections.abc import Callable
from dataclasses import replace

import tensorflow as tf

from recipes.config import DivergedError, Recipe, UserError
from recipes.kinds import module_of
from recipes.run import Run, only_writer
from recipes.settings import with_settings
from tuning.callbacks import EndHopeless, EndInTime, PauseAfter, Paused, Tell
from tuning.curves import best_by_epoch, kept_value
from tuning.hparams import write_hparams
from tuning.plan import Order, Plan, SearchDirectory, Trial
from tuning.space import apply


def train_trial(order: Order, tell: Callable[[int, float], None]) -> Trial:
    """Train a trial, from its checkpoint if it has one, and say what it came to.

    Args:
        order: The trial.
        tell: Takes the epochs done and the best value so far, after each epoch.
    """
    search = SearchDirectory(order.search)
    tf.config.threading.set_intra_op_parallelism_threads(order.threads)
    tf.config.threading.set_inter_op_parallelism_threads(order.threads)
    plan = search.read_plan()
    trial = order.trial
    values: list[float] = []
    saved, reason = 0.0, ""
    try:
        recipe = apply(plan.recipe, plan.dimensions, trial.values)
        for execution in range(plan.method.executions):
            seeded = with_settings(recipe, {"training": {"seed": recipe.training.seed + execution}})
            reason = _train(order, search, plan, seeded, tell)
            run = search.seed_run(trial.number, seeded.training.seed)
            if reason:
                saved = _seconds_left(run, recipe.training.epochs, plan.method.executions - execution - 1)
                # A seed that was cut short says less than those that were not.
                values = values or [best_by_epoch(run, plan)[-1]]
                break
            values.append(kept_value(run, plan))
        value = statistics.mean(values)
        trial = replace(trial, status="stopped" if reason else "finished", value=value, reason=reason)
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


def _seconds_left(run: Run, epochs: int, more_seeds: int) -> float:
    """Return what the rest of a run would have taken, and further seeds after it, s."""
    seconds = [row["seconds"] for row in run.history]
    return statistics.mean(seconds) * (epochs * (1 + more_seeds) - len(seconds))


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]


def _train(
    order: Order, search: SearchDirectory, plan: Plan, recipe: Recipe, tell: Callable[[int, float], None]
) -> str:
    """Train one seed to its end or its pause; return why it ended early, or ""."""
    run = search.seed_run(order.trial.number, recipe.training.seed)
    if run.finished:  # a kill came between its end and the trial's
        return ""
    if order.follows is not None and not run.path.exists():
        _copy_run(search.seed_run(order.follows, recipe.training.seed), run)
    enders: list[EndHopeless | EndInTime] = []
    if plan.method.early_ending and plan.method.algorithm != "hyperband":
        enders.append(EndHopeless(search, plan, run))
    deadline = search.deadline(plan)
    if deadline is not None:
        enders.append(EndInTime(deadline))
    pauses = [PauseAfter(order.epochs)] if order.epochs else []
    going_on = (run.path / "config.json").exists()
    if going_on:
        _wait_for(run)
    with contextlib.suppress(Paused):
        module_of(recipe).train(
            plan.name,
            recipe,
            run.path,
            resume=going_on,
            callbacks=[Tell(plan, run, tell), *enders, *pauses],
            final=False,
        )
    return "; ".join(ender.reason for ender in enders if ender.reason)


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
