"""Copy a model for inference."""

import keras


def copy_without_optimizer(model: keras.Model) -> keras.Model:
    """Return a copy of a model without its optimizer and loss."""
    bare = type(model).from_config(model.get_config())
    bare.set_weights(model.get_weights())
    return bare
