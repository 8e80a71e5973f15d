"""The objective over the epochs of a search's trials."""

import statistics

from recipes.run import Run
from tuning.plan import Plan, SearchDirectory


def best_by_epoch(run: Run, plan: Plan) -> list[float]:
    """Return the best value of the objective up to each epoch of a run."""
    best: list[float] = []
    for row in run.history:
        value = row[plan.objective]
        best.append(value if not best else plan.sign * max(plan.sign * best[-1], plan.sign * value))
    return best


def kept_value(run: Run, plan: Plan) -> float:
    """Return the objective at the epoch whose weights a run holds; of a paused one, its best so far."""
    if not run.finished:
        return best_by_epoch(run, plan)[-1]
    kept = int(run.metrics["best_epoch"])  # 0 where it ended before one could be chosen: it holds the last
    return run.history[kept - 1][plan.objective]


def finished_curves(search: SearchDirectory, plan: Plan, *, longer_than: int) -> list[list[float]]:
    """Return the best value up to each epoch of the finished trials' first seeds.

    Args:
        search: Where the trials are.
        plan: What is searched.
        longer_than: Epochs that are not enough.
    """
    curves = [
        best_by_epoch(runs[0], plan)
        for trial in search.trials()
        if trial.status == "finished" and (runs := search.runs(trial.number))
    ]
    return [curve for curve in curves if len(curve) > longer_than]


def forecast(search: SearchDirectory, plan: Plan, number: int) -> float:
    """Return what a trial that was stopped would have come to.

    From its last epoch on it gets better by as much as finished trials did, by their median. Taken
    as it is, it would look bad beside them for having had less time, and its neighbours with it.
    """
    own = best_by_epoch(search.runs(number)[0], plan)
    others = finished_curves(search, plan, longer_than=len(own))
    return own[-1] + statistics.median([curve[-1] - curve[len(own) - 1] for curve in others] or [0.0])
