"""Every setting there is, as frozen dataclasses; standard library only.

The command line mirrors them: field `batch_size` of `Training` is the flag `--training.batch-size`.
A run's `config.json` holds the same tree.
"""

from recipes.config.errors import DivergedError, UserError, nearest, require
from recipes.config.image import Augmentation, ImageData, ImageModel, ImageRecipe
from recipes.config.optimization import EarlyStopping, Optimizer, Schedule, Training
from recipes.config.tree import flatten, from_dict, to_dict

__all__ = [
    "Augmentation",
    "DivergedError",
    "EarlyStopping",
    "ImageData",
    "ImageModel",
    "ImageRecipe",
    "Optimizer",
    "Schedule",
    "Training",
    "UserError",
    "flatten",
    "from_dict",
    "nearest",
    "require",
    "to_dict",
]
