"""Recipes that train Keras 3 models.

    from recipes import Parts, Training, own_recipe, train

TensorFlow is imported when `train` is asked for, not before: help and errors of the command line answer at once.
"""

from typing import Any

from recipes.config import EarlyStopping, Optimizer, Pruning, Regularization, Schedule, Training, UserError
from recipes.config.own import Parts, own_recipe

__all__ = [
    "EarlyStopping",
    "Optimizer",
    "Parts",
    "Pruning",
    "Regularization",
    "Schedule",
    "Training",
    "UserError",
    "own_recipe",
    "train",
]


def __getattr__(name: str) -> Any:
    if name != "train":
        raise AttributeError(f"module 'recipes' has no attribute {name!r}")
    from recipes.own import train

    return train
