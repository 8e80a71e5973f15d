"""Plots of a search, one PNG file each."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from recipes.config import flatten, to_dict
from recipes.report.plots import save
from tuning.directory import SearchDirectory
from tuning.plan import Plan
from tuning.space import BATCH_SIZE, LEARNING_RATE
from tuning.trial import Trial, ranked

BEST_COLOR, OTHER_COLOR = "#c2571a", "#5b7fb5"
MARKERS = {"finished": "o", "stopped": "v"}


def plot_best_so_far(directory: SearchDirectory, trials: Sequence[Trial], path: Path) -> None:
    """Plot the value of each trial and the best value so far against time."""
    plan = directory.plan
    figure, axes = _axes(f"{_words(plan.objective)}, best so far", 3.6)
    ended = sorted(_scored(trials), key=lambda trial: trial.ended or 0.0)
    start = min(trial.started for trial in trials)
    minutes = [((trial.ended or 0.0) - start) / 60 for trial in ended]
    best = [ranked(ended[: count + 1], plan.sign)[0].known_value for count in range(len(ended))]
    axes.step(minutes, best, where="post", color=BEST_COLOR, label="best so far")
    for status, marker in MARKERS.items():
        points = [(m, t.known_value) for m, t in zip(minutes, ended, strict=True) if t.status == status]
        if points:
            axes.scatter(*zip(*points, strict=True), s=24, marker=marker, color=OTHER_COLOR, label=status)
    axes.set_xlabel("minutes since the start of the search")
    axes.set_ylabel(_words(plan.objective))
    axes.set_ylim(_better_values(plan, trials, margin=0.3))
    axes.legend(frameon=False)
    save(figure, path)


def plot_rate_against_batch(directory: SearchDirectory, trials: Sequence[Trial], path: Path) -> None:
    """Plot the learning rate and batch size of each trial, coloured by the objective."""
    plan = directory.plan
    figure, axes = _axes("learning rate and batch size", 4.2)
    colors = _colors(plan, trials)
    own = dict(flatten(to_dict(plan.recipe)))
    for trial in trials:
        settings = {**own, **trial.values}
        style: dict[str, Any] = {"marker": "x", "s": 50, "color": "#b00020"}
        if trial.value is not None:
            color = colors.to_rgba(np.array(trial.value))
            style = {"marker": MARKERS[trial.status], "s": 60, "color": color, "edgecolors": "#333"}
        if trial.value is not None or trial.status == "failed":
            axes.scatter(settings[BATCH_SIZE], settings[LEARNING_RATE], linewidths=0.5, **style)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    sizes = sorted({{**own, **trial.values}[BATCH_SIZE] for trial in trials})
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("batch size")
    axes.set_ylabel("learning rate")
    figure.colorbar(colors, ax=axes, label=_words(plan.objective))
    save(figure, path)


def plot_parallel_coordinates(directory: SearchDirectory, trials: Sequence[Trial], path: Path) -> None:
    """Plot each trial as a line across one axis per setting, coloured by the objective, the best on top."""
    plan = directory.plan
    figure, axes = _axes("settings of each trial", 4.2)
    colors, dimensions = _colors(plan, trials), plan.dimensions
    for rank, trial in reversed(list(enumerate(ranked(_scored(trials), plan.sign)))):
        places = [dimension.place(trial.values[dimension.name]) for dimension in dimensions]
        axes.plot(
            [*places, float(np.interp(trial.known_value, colors.get_clim(), (0, 1)))],
            color=colors.to_rgba(np.array(trial.known_value)),
            linewidth=1.2 if rank else 3,
            alpha=0.7 if rank else 1,
            clip_on=False,
        )
    names = [*(dimension.name.split(".")[-1] for dimension in dimensions), plan.objective]
    axes.set_xticks(range(len(names)), [_words(name) for name in names])
    axes.set_xlim(0, len(names) - 1)
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.grid(False)
    for column, dimension in enumerate(dimensions):
        axes.axvline(column, color="#999", linewidth=1)
        ends = dimension.choices or (dimension.low, dimension.high)
        axes.text(column + 0.01, 0, str(ends[0]), fontsize=8, color="#444", va="bottom")
        axes.text(column + 0.01, 1, str(ends[-1]), fontsize=8, color="#444", va="top")
    figure.colorbar(colors, ax=axes, label=_words(plan.objective))
    save(figure, path)


def plot_importance(shares: Mapping[str, float], path: Path) -> None:
    """Plot the share of the objective's variance that each setting alone explains."""
    figure, axes = _axes("importance of each setting", 1.2 + 0.4 * len(shares))
    names = list(shares)[::-1]
    axes.barh([_words(name) for name in names], [shares[name] for name in names], color=OTHER_COLOR)
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of the objective's variance")
    save(figure, path)


def plot_curves(directory: SearchDirectory, trials: Sequence[Trial], path: Path) -> None:
    """Plot the objective of each trial's first seed against the epoch."""
    plan = directory.plan
    figure, axes = _axes(f"{_words(plan.objective)} by epoch", 4)
    colors = _colors(plan, trials)
    for trial in reversed(ranked(_scored(trials), plan.sign)):
        curve = [row[plan.objective] for row in directory.runs(trial.number)[0].history]
        axes.plot(
            range(1, len(curve) + 1),
            curve,
            color=colors.to_rgba(np.array(trial.known_value)),
            linestyle=":" if trial.status == "stopped" else "-",
            marker=MARKERS[trial.status],
            markersize=3,
            linewidth=1.3,
        )
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(_better_values(plan, trials, margin=0.5))
    figure.colorbar(colors, ax=axes, label=_words(plan.objective))
    save(figure, path)


def _axes(title: str, height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(10, height), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return figure, axes


def _scored(trials: Sequence[Trial]) -> list[Trial]:
    return [trial for trial in trials if trial.value is not None]


def _better_values(plan: Plan, trials: Sequence[Trial], margin: float = 0.0) -> tuple[float, float]:
    """Return the range of the better three quarters of the values: a diverged trial must not hide the others.

    Args:
        plan: The settings of the search.
        trials: The trials.
        margin: Extension at each end, as a part of the range.
    """
    values = sorted(trial.known_value for trial in _scored(trials))
    quarter = len(values) // 4
    better = values[quarter:] if plan.sign > 0 else values[: len(values) - quarter]
    low, high = better[0], better[-1]
    if low == high:
        low, high = low - (abs(low) * 0.01 or 1.0), high + (abs(high) * 0.01 or 1.0)
    return low - margin * (high - low), high + margin * (high - low)


def _colors(plan: Plan, trials: Sequence[Trial]) -> ScalarMappable:
    """Return a colour map over the better values; the best has the lightest colour."""
    return ScalarMappable(
        Normalize(*_better_values(plan, trials), clip=True), "viridis" if plan.sign > 0 else "viridis_r"
    )


def _words(name: str) -> str:
    return name.replace("_", " ")
