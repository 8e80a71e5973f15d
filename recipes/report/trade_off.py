"""Plot of the trade-off between size and quality."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from recipes.report.curves import TRAINING_COLOR, VALIDATION_COLOR, save


def plot_trade_off(rows: Sequence[dict[str, Any]], metric: str, limit: float, path: Path) -> None:
    """Plot a metric against the percentage of the dense model's parameters that are 0 or removed.

    Args:
        rows: The dense model first; each with `kept`, `nonzero_parameters` and the metric.
        metric: Its name.
        limit: The worst value within the tolerance.
        path: Where the PNG goes.
    """
    figure = Figure(figsize=(6.5, 3.8), layout="constrained")
    axes = figure.subplots()
    dense = rows[0]["nonzero_parameters"]
    for kept, marker, color in ((True, "o-", TRAINING_COLOR), (False, "x", VALIDATION_COLOR)):
        chosen = [row for row in rows if row["kept"] is kept]
        gone = [100 * (1 - row["nonzero_parameters"] / dense) for row in chosen]
        axes.plot(gone, [row[metric] for row in chosen], marker, color=color)
    axes.axhline(limit, color="#888", linewidth=1, linestyle="--")
    axes.set_xlabel("parameters that are 0 or removed, %")
    axes.set_title(metric.replace("_", " "), fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    save(figure, path)
