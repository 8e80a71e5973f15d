"""The objective over the epochs of a search's trials."""

import math
import statistics

from recipes.runs.directory import Run
from tuning.plan import Plan, SearchDirectory, Trial

Curve = list[float | None]


def value_by_epoch(run: Run, plan: Plan) -> Curve:
    """Return the objective of the weights that a run would keep after each epoch.

    None where no epoch can be kept yet: before early_stopping's first epoch or before all of a pruning's
    sparsity, or while the objective is not finite.
    """
    values = [row.get(f"best_{plan.objective}", math.nan) for row in run.history]
    return [value if math.isfinite(value) else None for value in values]


def finished_curves(search: SearchDirectory, plan: Plan, *, longer_than: int) -> list[tuple[Curve, float]]:
    """Return the values by epoch of the finished trials' first seeds, with the last one of each.

    Args:
        search: Where the trials are.
        plan: What is searched.
        longer_than: Epochs that are not enough.
    """
    curves = [
        value_by_epoch(runs[0], plan)
        for trial in search.trials()
        if trial.status == "finished" and (runs := search.runs(trial.number))
    ]
    return [(curve, last) for curve in curves if len(curve) > longer_than and (last := curve[-1]) is not None]


def score(search: SearchDirectory, plan: Plan, trial: Trial) -> float | None:
    """Return what the choice of further trials takes an ended trial for; None if it failed.

    A stopped trial is taken for what it would have reached; a trial that Hyperband paused for what its
    weights reach so far, whether or not they could be kept: it is compared with others of as many epochs.
    """
    if trial.status != "stopped":
        return trial.value
    if plan.method.algorithm == "hyperband":
        runs = search.runs(trial.number)
        value = statistics.mean(run.history[-1][plan.objective] for run in runs)
        return value if math.isfinite(value) else None
    return trial.value if plan.method.executions > 1 else _forecast(search, plan, trial)


def _forecast(search: SearchDirectory, plan: Plan, trial: Trial) -> float | None:
    """Return what a trial of one seed that was stopped would have reached.

    From its last epoch on it gets better by as much as finished trials did, by their median. Taken
    as it is, it would look bad beside them for having had less time, and its neighbours with it. Without
    an epoch that could be kept it is taken for the median of the finished trials.
    """
    others = finished_curves(search, plan, longer_than=trial.epochs)
    if trial.value is None:
        return statistics.median([last for _, last in others]) if others else None
    gains = [last - then for curve, last in others if (then := curve[trial.epochs - 1]) is not None]
    return trial.value + statistics.median(gains or [0.0])
