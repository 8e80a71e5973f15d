"""Which module trains and evaluates which kind of recipe."""

import importlib
from typing import Any

from recipes.config import ImageRecipe, Recipe, RegressionRecipe, SequenceRecipe, TextRecipe

MODULES: dict[type[Recipe], str] = {
    ImageRecipe: "recipes.mnist",
    TextRecipe: "recipes.language_model",
    SequenceRecipe: "recipes.reversal",
    RegressionRecipe: "recipes.diabetes",
}


def task_of(recipe: Recipe) -> str:
    """Return the name of the module with the recipe's `train` and `evaluate`."""
    return next(name for kind, name in MODULES.items() if isinstance(recipe, kind))


def module_of(recipe: Recipe) -> Any:
    """Import that module, and TensorFlow with it."""
    return importlib.import_module(task_of(recipe))
