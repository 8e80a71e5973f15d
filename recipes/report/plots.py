"""Plots of a run as PNG files: learning curves, predictions, mistakes, augmentation, the trade-off of pruning."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

TRAINING_COLOR, VALIDATION_COLOR = "#5b7fb5", "#c2571a"
DPI = 110
FONT = "DejaVu Sans"
"""Matplotlib's own font, which has no Chinese, Japanese and Korean characters."""
LAST_RESORT = "Last Resort"
"""Beginning of the name of matplotlib's font of placeholders, which has every character."""
LONGEST_NAME = 18


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG beside its place, then rename it."""
    beside = path.with_name(f".{path.name}")
    figure.savefig(beside, dpi=DPI, format="png")
    beside.replace(path)


def shorten(name: str) -> str:
    """Return the name of a class in a line of at most LONGEST_NAME characters."""
    line = " ".join(name.split())
    return line if len(line) <= LONGEST_NAME else f"{line[: LONGEST_NAME - 1]}…"


def drawn_names(classes: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Return the names of classes as a plot can draw them, and how to draw them.

    Installed fonts are used for characters that matplotlib's own font lacks. A class with a character that no
    font has is "class N".
    """
    fonts = {character: _font_of(character) for character in {*"".join(map(shorten, classes))}}
    names = [
        shorten(name) if all(fonts[character] for character in shorten(name)) else f"class {number}"
        for number, name in enumerate(classes)
    ]
    families = [FONT, *sorted({font for font in fonts.values() if font not in (None, FONT)}, key=str)]
    return names, {"fontfamily": families, "parse_math": False}


@functools.cache
def _font_of(character: str) -> str | None:
    """Return the name of a font that has a character, matplotlib's own if it has it; None if no font has it."""
    entries = sorted(font_manager.fontManager.ttflist, key=lambda entry: (entry.name != FONT, entry.name))
    for entry in entries:
        placeholders = entry.name.startswith(LAST_RESORT)
        if not placeholders and font_manager.get_font(entry.fname).get_char_index(ord(character)):
            return str(entry.name)
    return None


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
    names, style = drawn_names(classes)
    turn = 0 if max(map(len, names)) <= 2 else 90
    axes.set_xticks(range(len(names)), names, rotation=turn, **style)
    axes.set_yticks(range(len(names)), names, **style)
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
        images: (n, height, width, channels), 0 to 255; n may be 0.
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
    names, style = drawn_names(classes)
    for axes, image, label, row in zip(grid.flat, images, labels, probabilities, strict=False):
        axes.imshow(_shown(image), cmap="gray_r", vmin=0, vmax=255)
        predicted = int(row.argmax())
        separator = ", not " if max(map(len, names)) <= 4 else ",\nnot "
        title = f"{names[label]}{separator}{names[predicted]}\n{100 * row[predicted]:.0f} %"
        axes.set_title(title, fontsize=9, **style)
    if not len(images):
        grid[0, 0].text(0, 0.5, "no mistakes", fontsize=11)
    save(figure, path)


def _shown(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an image (height, width, channels) as Matplotlib shows it: grey (height, width), or RGB in [0, 1]."""
    return image[..., 0] if image.shape[-1] == 1 else np.clip(image / 255, 0, 1)


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


def plot_augmentation(before: npt.NDArray[Any], after: npt.NDArray[Any], path: Path) -> None:
    """Plot a row for each image: the original, then its augmented versions.

    Args:
        before: (n, height, width, channels), 0 to 255.
        after: (variants, n, height, width, channels).
        path: Where the PNG goes.
    """
    figure = Figure(figsize=(0.9 * (len(after) + 1), 0.9 * len(before) + 0.3), layout="constrained")
    grid = figure.subplots(len(before), len(after) + 1, squeeze=False)
    for row, variants in zip(grid, np.concatenate([before[np.newaxis], after]).swapaxes(0, 1), strict=True):
        for axes, image in zip(row, variants, strict=True):
            axes.imshow(_shown(image), cmap="gray_r", vmin=0, vmax=255)
            axes.set_xticks([])
            axes.set_yticks([])
    grid[0, 0].set_title("before", fontsize=9)
    grid[0, 1].set_title("after", fontsize=9)
    save(figure, path)


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
