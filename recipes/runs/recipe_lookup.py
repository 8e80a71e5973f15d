"""Look a recipe up: by its name, in a file of settings, in a run's config.json."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipes.catalog import CATALOG
from recipes.command_line import quiet_tensorflow
from recipes.config import Recipe, UserError, from_dict, nearest, with_settings
from recipes.config.own import load_own_recipe, place_of


@dataclass(frozen=True)
class NamedRecipe:
    """A recipe and its name.

    Attributes:
        name: The name that runs and searches record: of the catalog, or the place of a user's own recipe.
        folder: Its folder in `runs/` and `searches/`.
        summary: A line about it.
        recipe: Its settings.
    """

    name: str
    folder: str
    summary: str
    recipe: Recipe


def find_recipe(name: str) -> NamedRecipe:
    """Return a recipe of the catalog, or a user's own by `FILE.py`, `FILE.py:NAME` or `package.module:NAME`.

    Raises:
        UserError: There is no such recipe.
    """
    if name in CATALOG:
        return NamedRecipe(name, name, CATALOG[name].summary, CATALOG[name].recipe)
    if not (":" in name or name.endswith(".py")):
        raise UserError(f"There is no recipe {name!r}. {nearest(name, CATALOG)}")
    with quiet_tensorflow():  # which the file imports with Keras
        own = load_own_recipe(name)
    return NamedRecipe(place_of(own), own.name, own.__doc__ or own.name, own)


def folder_of(name: str) -> str:
    """Return a recipe's folder in `runs/`; for a recipe that is not found, as of a notebook, its name."""
    try:
        return find_recipe(name).folder
    except UserError:
        return name


def read_settings(name: str, path: Path) -> Recipe:
    """Read settings of a recipe from a JSON file: a search's best.json, or a run's config.json.

    Settings that are not in the file have the catalog's values. Defaults of the file's optimizer and schedule
    become None, so that a flag can choose another optimizer or schedule.

    Raises:
        UserError: No such file, not JSON, settings of another recipe, or settings that do not exist.
    """
    try:
        tree = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"--settings {path}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"--settings {path} is not JSON: {error}") from error
    if not isinstance(tree, dict):
        raise UserError(f"--settings {path} must hold a table of settings. Received: {type(tree).__name__}")
    theirs = tree.pop("recipe", name)
    if theirs != name:
        raise UserError(f"--settings {path} holds settings of {theirs}. Received: {name}")
    return with_settings(find_recipe(name).recipe, tree).unresolved()


def recorded_recipe(config: Mapping[str, Any]) -> Recipe:
    """Return the settings in a run's config.json.

    Raises:
        UserError: Its recipe or one of its settings does not exist.
    """
    tree = dict(config)
    return from_dict(type(find_recipe(str(tree.pop("recipe", None))).recipe), tree)
