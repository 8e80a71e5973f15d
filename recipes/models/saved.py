"""Load saved models, and copy models for inference."""

import zipfile
import zlib
from pathlib import Path

import keras

from recipes.config import UserError


def load_model(path: Path) -> keras.Model:
    """Load a saved model.

    Raises:
        UserError: The file is missing or damaged.
    """
    try:
        # Keras reads parts of the archive and checks none: flipped bits would be weights.
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged:
            raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
        return keras.models.load_model(path)
    except (OSError, EOFError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} is missing or damaged: {reason}") from error


def copy_without_optimizer(model: keras.Model) -> keras.Model:
    """Return a copy of a model without its optimizer and loss."""
    copy = type(model).from_config(model.get_config())
    copy.set_weights(model.get_weights())
    return copy
