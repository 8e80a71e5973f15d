"""Plot images before and after augmentation."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from recipes.report.curves import save


def plot_augmentation(before: npt.NDArray[Any], after: npt.NDArray[Any], path: Path) -> None:
    """Plot a row for each image: the original, then its augmented versions.

    Args:
        before: (n, height, width, 1), 0 to 255.
        after: (variants, n, height, width, 1).
        path: Where the PNG goes.
    """
    figure = Figure(figsize=(0.9 * (len(after) + 1), 0.9 * len(before) + 0.3), layout="constrained")
    grid = figure.subplots(len(before), len(after) + 1, squeeze=False)
    for row, variants in zip(grid, np.concatenate([before[np.newaxis], after]).swapaxes(0, 1), strict=True):
        for axes, image in zip(row, variants, strict=True):
            axes.imshow(image[..., 0], cmap="gray_r", vmin=0, vmax=255)
            axes.set_xticks([])
            axes.set_yticks([])
    grid[0, 0].set_title("before", fontsize=9)
    grid[0, 1].set_title("after", fontsize=9)
    save(figure, path)
