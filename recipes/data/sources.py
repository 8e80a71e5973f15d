"""Checks of `--data.source` that need no TensorFlow: a mistyped path is refused at once."""

import re
from pathlib import Path
from typing import Any

from recipes.config import ImageRecipe, Recipe, TableRecipe, TextRecipe, UserError

DATASET_NAME = re.compile(r"\w+(/[\w.-]+)?")
"""A dataset, with or without a config: `mnist`, `emnist/letters`."""
SAMPLES = ("auto", "digits", "pydoc", "diabetes", "reversal", "own")
"""Sources that are always there; reversal is made by its recipe, own is the data of a user's own recipe."""


def check_source(recipe: Recipe) -> None:
    """Refuse a name that is no dataset, a path that is not found or has no such data, and an unknown target.

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
    if table:
        from recipes.data.table import read_csv, target_of

        target_of(recipe.data, read_csv(path, rows=0))
        return
    from recipes.data.datasets import is_path

    if isinstance(recipe, ImageRecipe) and is_path(source):
        from recipes.data.image_files import check_path

        check_path(path)
    elif isinstance(recipe, TextRecipe) and is_path(source):
        from recipes.data.corpus import open_corpus

        open_corpus(recipe.data)
