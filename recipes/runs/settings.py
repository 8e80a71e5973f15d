"""Settings of a recipe from a file, and with some of them changed."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recipes.catalog import CATALOG
from recipes.config import Recipe, UserError, from_dict, nearest, to_dict


def read_settings(name: str, path: Path) -> Recipe:
    """Read settings of a recipe from a JSON file: a search's best.json, or a run's config.json.

    What the file leaves out is as the catalog has it. What is the default of the optimizer or schedule that the
    file names is None again, so that a flag can name another.

    Raises:
        UserError: No such file, not JSON, settings of another recipe, or ones that do not exist.
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
    return with_settings(CATALOG[name].recipe, tree).unresolved()


def recorded_recipe(config: Mapping[str, Any]) -> Recipe:
    """Return the settings in a run's config.json.

    Raises:
        UserError: Its recipe is not in the catalog, or it has settings that do not exist.
    """
    tree = dict(config)
    name = str(tree.pop("recipe", None))
    if name not in CATALOG:
        raise UserError(f"The run's recipe is not in the catalog: {name!r}. {nearest(name, CATALOG)}")
    return from_dict(type(CATALOG[name].recipe), tree)


def with_settings(recipe: Recipe, tree: Mapping[str, Any]) -> Recipe:
    """Return a recipe with some of its settings changed, given as nested dicts.

    Raises:
        UserError: A setting that the recipe does not have, or a value it does not take.
    """
    return from_dict(type(recipe), _merged(to_dict(recipe), tree))


def _merged(below: Any, above: Any) -> Any:
    if not (isinstance(below, Mapping) and isinstance(above, Mapping)):
        return above
    return {**below, **{name: _merged(below.get(name), value) for name, value in above.items()}}
