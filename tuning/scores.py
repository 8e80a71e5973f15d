"""The objective over the epochs of trials, and the score of each trial for the choice of the next ones."""

import math
import statistics
from collections.abc import Sequence

from recipes.runs.directory import Run
from tuning.directory import SearchDirectory
from tuning.plan import Plan
from tuning.trial import Trial

Curve = list[float | None]


def value_by_epoch(run: Run, plan: Plan) -> Curve:
    """Return the objective of the weights that a run would keep after each epoch.

    None for epochs before the first one that can be kept (early_stopping.start_fraction, the final
    sparsity of pruning), and while the objective is not finite.
    """
    values = [row.get(f"best_{plan.objective}", math.nan) for row in run.history]
    return [value if math.isfinite(value) else None for value in values]


def finished_curves(directory: SearchDirectory) -> list[tuple[Curve, float]]:
    """Return the values by epoch of the finished trials' first seeds, with the final value of each."""
    curves = [
        value_by_epoch(runs[0], directory.plan)
        for trial in directory.trials()
        if trial.status == "finished" and (runs := directory.runs(trial.number))
    ]
    return [(curve, last) for curve in curves if curve and (last := curve[-1]) is not None]


def scores(directory: SearchDirectory, trials: Sequence[Trial]) -> dict[int, float]:
    """Return the score of each ended trial by its number; failed trials have none.

    The score of a finished trial is its value. The score of a stopped trial is a forecast of the value it
    would have reached. The score of a trial that Hyperband paused is the objective of its current
    weights, whether they could be kept or not: Hyperband compares trials of equal length.
    """
    finished = finished_curves(directory) if any(trial.status == "stopped" for trial in trials) else []
    found = {trial.number: _score(directory, trial, finished) for trial in trials}
    return {number: score for number, score in found.items() if score is not None}


def _score(directory: SearchDirectory, trial: Trial, finished: list[tuple[Curve, float]]) -> float | None:
    method = directory.plan.method
    if trial.status != "stopped":
        return trial.value
    if method.algorithm == "hyperband":
        last = [run.history[-1][directory.plan.objective] for run in directory.runs(trial.number)]
        return value if last and math.isfinite(value := statistics.mean(last)) else None
    return trial.value if method.executions > 1 else _forecast(trial, finished)


def _forecast(trial: Trial, finished: list[tuple[Curve, float]]) -> float | None:
    """Return the value that a stopped trial of one seed would have reached.

    The forecast adds the median improvement of the finished trials after the same epoch. The plain value
    would make the trial and its neighbourhood look bad only because it was shorter. Without an epoch that
    could be kept, the forecast is the median of the finished trials.
    """
    longer = [(curve, last) for curve, last in finished if len(curve) > trial.epochs]
    if trial.value is None:
        return statistics.median([last for _, last in longer]) if longer else None
    gains = [last - early for curve, last in longer if (early := curve[trial.epochs - 1]) is not None]
    return trial.value + statistics.median(gains or [0.0])
