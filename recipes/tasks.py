"""Which task trains which recipe. Only the module of the task that is asked for is imported."""

from typing import Any

from recipes.config import ImageRecipe, Recipe, SequenceRecipe, TableRecipe, TextRecipe, with_settings
from recipes.config.own import OwnSettings
from recipes.runs.directory import Run
from recipes.runs.recipe_lookup import recorded_recipe
from recipes.task import Task


def task_class(recipe: Recipe) -> type[Task[Any]]:
    """Return the class of a recipe's task."""
    if isinstance(recipe, ImageRecipe):
        from recipes.mnist import ImageClassification

        return ImageClassification
    if isinstance(recipe, TextRecipe):
        from recipes.language_model import LanguageModelling

        return LanguageModelling
    if isinstance(recipe, SequenceRecipe):
        from recipes.sequence_to_sequence import SequenceToSequence

        return SequenceToSequence
    if isinstance(recipe, TableRecipe):
        from recipes.table import TablePrediction

        return TablePrediction
    if isinstance(recipe, OwnSettings):
        from recipes.own import OwnTask

        return OwnTask
    raise TypeError(f"There is no task for {type(recipe).__name__}")


def task_of(name: str, recipe: Recipe) -> Task[Any]:
    """Return the task that trains a recipe."""
    return task_class(recipe)(name, recipe)


def task_of_run(run: Run, data_source: str | None = None) -> Task[Any]:
    """Return the task of a finished run, on its own data or on another source.

    Raises:
        UserError: An unfinished run.
    """
    metrics, recipe = run.metrics, recorded_recipe(run.config)
    found = task_class(recipe)
    changes = {"data": {"source": data_source or metrics["data_source"]}, **found.settings_to_continue(run)}
    return found(metrics["recipe"], with_settings(recipe, changes), run)
