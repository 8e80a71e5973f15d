"""Plot of a regression's predictions."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from recipes.report.curves import TRAINING_COLOR, save


def plot_predictions(targets: npt.NDArray[Any], predictions: npt.NDArray[Any], path: Path) -> None:
    """Plot predictions against targets, with the line on which they are equal.

    Args:
        targets: (n, 1).
        predictions: (n, 1).
        path: Where the PNG goes.
    """
    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    axes = figure.subplots()
    ends = [min(targets.min(), predictions.min()), max(targets.max(), predictions.max())]
    axes.plot(ends, ends, color="#888", linewidth=1, linestyle=":")
    axes.scatter(np.ravel(targets), np.ravel(predictions), s=14, color=TRAINING_COLOR, alpha=0.8)
    axes.set_xlabel("target")
    axes.set_ylabel("prediction")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    save(figure, path)
