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


def module_of(recipe: Recipe) -> Any:
    """Import the module with the recipe's `train` and `evaluate`, and TensorFlow with it."""
    name = next(name for kind, name in MODULES.items() if isinstance(recipe, kind))
    return importlib.import_module(name)
