"""Curves over the epochs of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

TRAINING_COLOR, VALIDATION_COLOR = "#5b7fb5", "#c2571a"
DPI = 110


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG beside its place, then rename it."""
    beside = path.with_name(f".{path.name}")
    figure.savefig(beside, dpi=DPI, format="png")
    beside.replace(path)


def plot_learning_curves(rows: Sequence[dict[str, float]], metric: str, best_epoch: int, path: Path) -> None:
    """Plot loss, a metric and the learning rate over epochs, with a line at the best epoch.

    Args:
        rows: Rows of history.csv.
        metric: Which metric to plot beside the loss.
        best_epoch: The epoch whose weights were kept, counted from 1.
        path: Where the PNG goes.
    """
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    for axes, name in zip(figure.subplots(1, 3), ("loss", metric, "learning_rate"), strict=True):
        _plot(axes, rows, name)
        axes.axvline(best_epoch, color="#888", linewidth=1, linestyle=":")
    save(figure, path)


def _plot(axes: Any, rows: Sequence[dict[str, float]], name: str) -> None:
    epochs = [row["epoch"] for row in rows]
    marker = "o" if len(rows) < 30 else ""
    axes.plot(
        epochs,
        [row[name] for row in rows],
        color=TRAINING_COLOR,
        marker=marker,
        markersize=3,
        label="training",
    )
    if f"validation_{name}" in rows[0]:
        values = [row[f"validation_{name}"] for row in rows]
        axes.plot(epochs, values, color=VALIDATION_COLOR, marker=marker, markersize=3, label="validation")
        axes.legend(frameon=False)
    axes.set_title(name.replace("_", " "), fontsize=11)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
