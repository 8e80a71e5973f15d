"""An autoencoder around a classifier's hidden layers."""

import keras
from keras import layers


def build_autoencoder(classifier: keras.Model) -> keras.Model:
    """Build a network that restores images, whose encoder is a classifier without its last layer.

    The decoder is the encoder's dense layers mirrored. Layers are shared: who trains the autoencoder
    trains the classifier.

    Args:
        classifier: A functional model whose last layer is dense (`recipes.models.image`).

    Returns:
        A functional model, float32 (batch, height, width, channels) in [0, 255] → float32 (batch,
        height * width * channels) in [0, 1].
    """
    code = classifier.layers[-1].input  # (batch, units)
    widths = [layer.units for layer in classifier.layers[:-1] if isinstance(layer, layers.Dense)]
    x = code
    for number, units in enumerate(reversed(widths[:-1]), start=1):
        x = layers.Dense(units, activation="relu", name=f"decoder_{number}")(x)
    height, width, channels = classifier.input.shape[1:]
    restored = layers.Dense(
        height * width * channels, activation="sigmoid", dtype="float32", name="restored"
    )(x)
    return keras.Model(classifier.input, restored, name="autoencoder")
