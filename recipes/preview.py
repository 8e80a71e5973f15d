"""Look at what augmentation makes of images before training with it.

python -m recipes augment mnist-cnn --augmentation.elastic 1 --out preview.png
"""

from pathlib import Path

import numpy as np

from recipes.config import Augmentation, ImageRecipe
from recipes.data.augmentation import augment, warning
from recipes.data.batches import training_images
from recipes.data.images import load_images
from recipes.report.augmentation import plot_augmentation
from recipes.streams import draw_keys, stream
from recipes.training import batch_sizes


def preview(recipe: ImageRecipe, path: Path, *, images: int = 8, variants: int = 9) -> None:
    """Draw some training images before and after augmentation.

    Args:
        recipe: Data, augmentation and seed.
        path: Where the PNG goes.
        images: How many.
        variants: How often each is changed.

    Raises:
        UserError: Data that can't be had or read.
    """
    dataset = load_images(recipe.data)
    classes, seed = dataset.source.classes, recipe.training.seed
    if dataset.source.note:
        print(f"WARNING: {dataset.source.note}")
    print(warning(recipe.augmentation, classes), end="")
    # A batch of a shuffled pass: images are mixed with others than their neighbours in the file.
    sizes = batch_sizes(recipe, len(dataset.train))
    shuffled = training_images(dataset.train, len(classes), sizes, Augmentation(), seed)
    before, labels = next(iter(shuffled.dataset))
    keys = draw_keys(stream(seed, "preview"), variants)
    after = [augment(before, labels, recipe.augmentation, key)[0] for key in keys]
    plot_augmentation(before[:images].numpy(), np.stack(after)[:, :images], path)
