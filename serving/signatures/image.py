"""The signatures of an image classifier."""

import keras
import tensorflow as tf

from serving.signatures.guards import Tensor, guard, guard_batch, guard_finite

MAX_ROWS = 1024
"""Images of a request: the catalog's models need 0.2 to 0.5 MB of memory for each."""
MAX_IMAGE_PIXELS = 2**24
"""Width × height of one image file. A PNG of 16 KB can have this many, which decode to 16 MB per channel."""
MAX_PIXELS = 2**27
"""Sum of width × height over the image files of a request: about two seconds of decoding."""
LIMITS = {"rows": MAX_ROWS, "pixels_per_image": MAX_IMAGE_PIXELS, "pixels": MAX_PIXELS}
PNG_HEADER = tf.constant(list(b"\x89PNG\r\n\x1a\n" + bytes([0, 0, 0, 13]) + b"IHDR"), tf.uint8)


def image_classifier(model: keras.Model) -> tf.Module:
    """Wrap an image classifier for serving.

    Args:
        model: float32 (n, height, width, channels), pixels 0 to 255 → probabilities (n, classes).

    Returns:
        A module with two functions, which return `probabilities` float32 (n, classes) and
        `label` int64 (n,):

        - `serving_default` takes `image`, the input of the model;
        - `encoded` takes `image_bytes` string (n,), PNG or JPEG files of up to MAX_IMAGE_PIXELS each and
          MAX_PIXELS together.

        Both take 1 to MAX_ROWS images.
    """
    shape = (None, *model.input_shape[1:])
    module = tf.Module()
    # Only the variables are tracked: with the Keras model every weight would be stored twice (keras#23553).
    module.weights = [variable.value for variable in model.variables]

    def classify(image: Tensor) -> dict[str, Tensor]:
        probabilities = model(image, training=False)  # (n, classes)
        return {
            "probabilities": tf.identity(probabilities, "probabilities"),
            "label": tf.argmax(probabilities, axis=-1, name="label"),
        }

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32, name="image")])
    def serving_default(image: Tensor) -> dict[str, Tensor]:
        return classify(guard_finite(guard_batch(tf.ensure_shape(image, shape), MAX_ROWS)))

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="image_bytes")])
    def encoded(image_bytes: Tensor) -> dict[str, Tensor]:
        image_bytes = _guard_pixels(guard_batch(tf.ensure_shape(image_bytes, (None,)), MAX_ROWS))
        return classify(_decode_images(image_bytes, shape[1:]))

    module.serving_default, module.encoded = serving_default, encoded
    return module


def _guard_pixels(files: Tensor) -> Tensor:
    """Refuse files that are not PNG or JPEG, or have too many pixels by their headers, string (n,)."""
    header = tf.io.decode_raw(tf.strings.substr(files, 0, 24), tf.uint8, fixed_length=24)  # (n, 24)
    png = tf.reduce_all(header[:, :16] == PNG_HEADER, axis=1)
    jpeg = tf.reduce_all(header[:, :3] == tf.constant([0xFF, 0xD8, 0xFF], tf.uint8), axis=1)
    files = guard(files, png | jpeg, "image_bytes must be PNG or JPEG files")
    png_sizes = tf.cast(tf.boolean_mask(header, png)[:, 16:], tf.int64)  # width, height: 4 bytes each
    png_sizes = tf.linalg.matmul(tf.reshape(png_sizes, (-1, 2, 4)), [[256**3], [256**2], [256], [1]])[:, :, 0]
    jpeg_sizes = tf.map_fn(
        lambda file: tf.cast(tf.io.extract_jpeg_shape(file)[:2], tf.int64),
        tf.boolean_mask(files, jpeg),
        fn_output_signature=tf.TensorSpec((2,), tf.int64),
    )
    sides = tf.minimum(tf.concat([png_sizes, jpeg_sizes], axis=0), 2**31 - 1)  # their product fits int64
    pixels = tf.reduce_prod(sides, axis=1)
    files = guard(
        files,
        pixels <= MAX_IMAGE_PIXELS,
        f"an image may have at most {MAX_IMAGE_PIXELS} pixels. Received:",
        tf.reduce_max(pixels),
    )
    total = tf.reduce_sum(pixels)
    return guard(
        files,
        total <= MAX_PIXELS,
        f"the images of a request may have at most {MAX_PIXELS} pixels together. Received:",
        total,
    )


def _decode_images(image_bytes: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Decode files to float32 (n, *shape) like images of a training folder: grey, resized."""
    height, width, channels = shape

    def decode(content: Tensor) -> Tensor:
        image = tf.io.decode_png(content, channels=channels)  # decodes JPEG too
        resized = tf.image.resize(image, (height, width), antialias=True)
        return tf.ensure_shape(resized, shape)

    return tf.map_fn(decode, image_bytes, fn_output_signature=tf.float32)
