"""Checks of `--data.source` that need no TensorFlow: a mistyped path is refused at once."""

import re
from pathlib import Path
from typing import Any

from recipes.config import ImageRecipe, Recipe, TableRecipe, UserError

DATASET_NAME = re.compile(r"\w+(/[\w.-]+)?")
"""A dataset, with or without a config: `mnist`, `emnist/letters`."""
SAMPLES = ("auto", "digits", "pydoc", "diabetes", "own")
"""Sources that are always there; own is the data of a user's own recipe."""


def check_source(recipe: Recipe) -> None:
    """Refuse a name that is no dataset, a path that is not found, and a folder without labelled images for images.

    Raises:
        UserError: Such a source.
    """
    source: Any = getattr(recipe.data, "source", None)
    if not isinstance(source, str) or source in SAMPLES:
        return
    path, table = Path(source), isinstance(recipe, TableRecipe)
    if DATASET_NAME.fullmatch(source) and not path.exists() and not table:
        from recipes.data.datasets import check_name

        check_name(source)
        return
    if not path.exists():
        sample = "; diabetes is the offline sample" if table else ""
        raise UserError(f"data.source: there is no file or folder {path}{sample}")
    if isinstance(recipe, ImageRecipe):
        from recipes.data.datasets import is_path
        from recipes.data.image_files import check_path

        if is_path(source):
            check_path(path)
