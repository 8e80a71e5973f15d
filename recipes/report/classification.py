"""Plots of a classifier's predictions: confusion matrix and mistakes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from recipes.report.curves import save


def plot_confusion(confusion: npt.NDArray[np.int64], classes: Sequence[str], path: Path) -> None:
    """Plot a confusion matrix with its counts, shaded by the fraction of the true class.

    Args:
        confusion: (classes, classes); rows are true classes, columns predicted ones.
        classes: Names of the classes.
        path: Where the PNG goes.
    """
    size = max(4.2, 0.55 * len(classes) + 1)
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.subplots()
    parts = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    axes.imshow(np.sqrt(parts), cmap="Blues", vmin=0, vmax=1)  # the root makes rare mistakes visible
    if len(classes) <= 20:
        for (row, column), count in np.ndenumerate(confusion):
            color = "white" if parts[row, column] > 0.4 else "black"
            axes.text(column, row, str(count or "·"), ha="center", va="center", fontsize=8, color=color)
    turn = 0 if max(map(len, classes)) <= 2 else 90
    axes.set_xticks(range(len(classes)), classes, rotation=turn)
    axes.set_yticks(range(len(classes)), classes)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    save(figure, path)


def plot_mistakes(
    images: npt.NDArray[Any],
    labels: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.float32],
    classes: Sequence[str],
    path: Path,
) -> None:
    """Plot misclassified images with their true class, and the predicted class with its probability.

    Args:
        images: (n, height, width, 1), 0 to 255; n may be 0.
        labels: (n,) true class numbers.
        probabilities: (n, classes).
        classes: Names of the classes.
        path: Where the PNG goes.
    """
    columns = 8
    rows = max(1, -(-len(images) // columns))
    figure = Figure(figsize=(11, 1.75 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, image, label, row in zip(grid.flat, images, labels, probabilities, strict=False):
        axes.imshow(image[..., 0], cmap="gray_r", vmin=0, vmax=255)
        predicted = int(row.argmax())
        axes.set_title(
            f"{classes[label]}, not {classes[predicted]}\n{100 * row[predicted]:.0f} %", fontsize=9
        )
    if not len(images):
        grid[0, 0].text(0, 0.5, "no mistakes", fontsize=11)
    save(figure, path)
