"""Plots of a search, one PNG file each."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from recipes.report.plots import save
from tuning.plan import Plan
from tuning.space import BATCH_SIZE, LEARNING_RATE, Dimension
from tuning.trial import Trial, ranked

WIDTH = 10
COLORS = "viridis"
BEST_COLOR, OTHER_COLOR = "#c2571a", "#5b7fb5"
MARKERS = {"finished": "o", "stopped": "v"}


def plot_best_so_far(plan: Plan, trials: Sequence[Trial], path: Path) -> None:
    """Plot the value of each trial and the best value so far against time."""
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
    _limit(axes.set_ylim, plan, [trial.known_value for trial in ended])
    axes.legend(frameon=False)
    save(figure, path)


def plot_rate_against_batch(plan: Plan, trials: Sequence[Trial], path: Path) -> None:
    """Plot the learning rate and batch size of each trial, coloured by the objective."""
    figure, axes = _axes("learning rate and batch size", 4.2)
    scored, colors = _scored(trials), _colors(plan, trials)
    for status, marker in MARKERS.items():
        here = [trial for trial in scored if trial.status == status]
        axes.scatter(
            [_value(plan, trial, BATCH_SIZE) for trial in here],
            [_value(plan, trial, LEARNING_RATE) for trial in here],
            c=[colors.to_rgba(np.array(trial.known_value)) for trial in here] or None,
            marker=marker,
            s=60,
            edgecolors="#333",
            linewidths=0.5,
        )
    failed = [trial for trial in trials if trial.status == "failed"]
    axes.scatter(
        [_value(plan, trial, BATCH_SIZE) for trial in failed],
        [_value(plan, trial, LEARNING_RATE) for trial in failed],
        marker="x",
        s=50,
        color="#b00020",
    )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    sizes = sorted({int(_value(plan, trial, BATCH_SIZE)) for trial in trials})
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("batch size")
    axes.set_ylabel("learning rate")
    figure.colorbar(colors, ax=axes, label=_words(plan.objective))
    save(figure, path)


def plot_parallel_coordinates(plan: Plan, trials: Sequence[Trial], path: Path) -> None:
    """Plot each trial as a line across one axis per setting, coloured by the objective, the best on top."""
    figure, axes = _axes("settings of each trial", 4.2)
    colors, dimensions = _colors(plan, trials), plan.dimensions
    scored = ranked(_scored(trials), plan.sign)[::-1]
    for number, trial in enumerate(scored):
        best = number == len(scored) - 1
        places = [each.place(trial.values[each.name]) for each in dimensions]
        axes.plot(
            [*places, float(np.interp(trial.known_value, colors.get_clim(), (0, 1)))],
            color=colors.to_rgba(np.array(trial.known_value)),
            linewidth=3 if best else 1.2,
            alpha=1 if best else 0.7,
            clip_on=False,
        )
    names = [*(each.name for each in dimensions), plan.objective]
    axes.set_xticks(range(len(names)), [_words(name.split(".")[-1]) for name in names])
    axes.set_xlim(0, len(names) - 1)
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.grid(False)
    for column, dimension in enumerate(dimensions):
        axes.axvline(column, color="#999", linewidth=1)
        for end, text in zip((0.0, 1.0), _ends(dimension), strict=True):
            axes.text(column + 0.01, end, text, fontsize=8, color="#444", va="top" if end else "bottom")
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


def plot_curves(
    plan: Plan, trials: Sequence[Trial], curve_of: Callable[[Trial], Sequence[float]], path: Path
) -> None:
    """Plot the objective of each trial against the epoch.

    Args:
        plan: The settings of the search.
        trials: The trials.
        curve_of: Returns the values of a trial by epoch.
        path: The PNG file.
    """
    figure, axes = _axes(f"{_words(plan.objective)} by epoch", 4)
    colors = _colors(plan, trials)
    shown: list[float] = []
    for trial in sorted(_scored(trials), key=lambda trial: plan.sign * trial.known_value):
        curve = curve_of(trial)
        shown.append(trial.known_value)
        stopped = trial.status == "stopped"
        axes.plot(
            range(1, len(curve) + 1),
            curve,
            color=colors.to_rgba(np.array(trial.known_value)),
            linestyle=":" if stopped else "-",
            marker="v" if stopped else "o",
            markersize=3,
            linewidth=1.3,
        )
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _limit(axes.set_ylim, plan, shown)
    figure.colorbar(colors, ax=axes, label=_words(plan.objective))
    save(figure, path)


def _axes(title: str, height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return figure, axes


def _scored(trials: Sequence[Trial]) -> list[Trial]:
    return [trial for trial in trials if trial.value is not None]


def _colors(plan: Plan, trials: Sequence[Trial]) -> ScalarMappable:
    """Return a colour map over the better three quarters of the trials; the rest has the darkest colour."""
    values = sorted(plan.sign * trial.known_value for trial in _scored(trials))
    worst, best = values[len(values) // 4], values[-1]
    low, high = sorted((plan.sign * worst, plan.sign * best))
    map_name = COLORS if plan.sign > 0 else f"{COLORS}_r"
    return ScalarMappable(Normalize(low, high if high > low else low + 1e-9, clip=True), map_name)


def _limit(set_limits: Callable[[float, float], object], plan: Plan, values: Sequence[float]) -> None:
    """Limit an axis to the better three quarters, so that a diverged trial does not compress the others."""
    ranked = sorted(plan.sign * value for value in values)
    worst, best = ranked[len(ranked) // 4], ranked[-1]
    room = 0.15 * (best - worst) or abs(best) * 0.01 or 1.0
    low, high = sorted((plan.sign * (worst - 4 * room), plan.sign * (best + room)))
    set_limits(low, high)


def _value(plan: Plan, trial: Trial, name: str) -> float:
    """Return a setting of a trial: its own, or the recipe's if it was not searched."""
    group, setting = name.split(".")
    return float(trial.values.get(name, getattr(getattr(plan.recipe, group), setting)))


def _ends(dimension: Dimension) -> tuple[str, str]:
    ends = (
        (dimension.choices[0], dimension.choices[-1])
        if dimension.choices
        else (dimension.low, dimension.high)
    )
    low, high = (f"{end:g}" if isinstance(end, int | float) else str(end) for end in ends)
    return low, high


def _words(name: str) -> str:
    return name.replace("_", " ")
