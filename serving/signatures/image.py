"""The signatures of an image classifier."""

from typing import Any

import keras
import tensorflow as tf

from serving.signatures.guards import guard_batch, guard_finite

Tensor = Any


def image_classifier(model: keras.Model) -> tf.Module:
    """Wrap an image classifier for serving.

    Args:
        model: float32 (n, height, width, channels), pixels 0 to 255 → probabilities (n, classes).

    Returns:
        A module with two functions, each of which gives `probabilities` float32 (n, classes) and
        `label` int64 (n,):

        - `serving_default` takes `image`, what the model takes;
        - `encoded` takes `image_bytes` string (n,), PNG or JPEG files of any size.
    """
    shape = (None, *model.input_shape[1:])
    module = tf.Module()
    # The variables alone are tracked: tracking the Keras model would store every weight twice (keras#23553).
    module.weights = [variable.value for variable in model.variables]

    def classify(image: Tensor) -> dict[str, Tensor]:
        probabilities = model(image, training=False)  # (n, classes)
        return {
            "probabilities": tf.identity(probabilities, "probabilities"),
            "label": tf.argmax(probabilities, axis=-1, name="label"),
        }

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32, name="image")])
    def serving_default(image: Tensor) -> dict[str, Tensor]:
        return classify(guard_finite(guard_batch(tf.ensure_shape(image, shape))))

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="image_bytes")])
    def encoded(image_bytes: Tensor) -> dict[str, Tensor]:
        image_bytes = guard_batch(tf.ensure_shape(image_bytes, (None,)))
        return classify(_decode_images(image_bytes, shape[1:]))

    module.serving_default, module.encoded = serving_default, encoded
    return module


def _decode_images(image_bytes: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Decode files to float32 (n, *shape) as training reads a folder of images: grey, resized."""
    height, width, channels = shape

    def decode(content: Tensor) -> Tensor:
        image = tf.io.decode_png(content, channels=channels)  # PNG by name, but JPEG too
        resized = tf.image.resize(image, (height, width), antialias=True)
        return tf.ensure_shape(resized, shape)

    return tf.map_fn(decode, image_bytes, fn_output_signature=tf.float32)
