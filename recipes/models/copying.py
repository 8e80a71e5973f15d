"""Copy a model for inference."""

import keras


def copy_without_optimizer(model: keras.Model) -> keras.Model:
    """Return a copy of a model without its optimizer and loss."""
    copy = type(model).from_config(model.get_config())
    copy.set_weights(model.get_weights())
    return copy
