"""Train a convolutional network on MNIST to 99.5 % test accuracy, in plain Keras.

It reads digits that are inverted, noisy, blurred or drawn with a mouse too.

    pip install tensorflow tensorflow-datasets importlib-resources
    python mnist.py

The network, its augmentation and its one-cycle learning rate (Smith & Topin 2018, arXiv:1708.07120) are
those of the recipe `mnist-cnn`. Copy this file and change it.
"""

import argparse

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from keras import layers, ops

BATCH_SIZE = 128
LEARNING_RATE = 0.004  # the peak of the cycle
WARMUP_FRACTION = 0.2  # share of the steps in which the learning rate rises
WEIGHT_DECAY = 0.01
DROPOUT = 0.4
VALIDATION_IMAGES = 6_000  # of the 60,000 training images; they choose the epoch, the test images do not


def load_data():
    """Return (images, labels) for training and for test: uint8 (n, 28, 28, 1) and int64 (n,)."""
    return tfds.load("mnist", split=["train", "test"], batch_size=-1, as_supervised=True)


def build_model():
    """Return a model of raw pixels in [0, 255], (batch, 28, 28, 1), to class probabilities, (batch, 10)."""
    image = keras.Input((28, 28, 1))
    x = standardize(image)  # inside the model, so that no caller can forget it
    for filters in (32, 64):
        x = layers.Conv2D(filters, 5, use_bias=False)(x)
        x = layers.MaxPooling2D()(x)
        x = layers.BatchNormalization(momentum=0.9)(x)
        x = layers.ReLU()(x)
    x = layers.Flatten()(x)  # (batch, 4 * 4 * 64)
    x = layers.Dense(128, use_bias=False)(x)
    x = layers.BatchNormalization(momentum=0.9)(x)
    x = layers.ReLU()(x)
    x = layers.Dropout(DROPOUT)(x)
    return keras.Model(image, layers.Dense(10, activation="softmax")(x))


def standardize(image):
    """Return images with mean 0, standard deviation 1 and a border that is darker than the rest.

    Whether ink is bright or dark, and how strong, then makes no difference.
    """
    x = layers.LayerNormalization((1, 2, 3), epsilon=1.0, center=False, scale=False)(image)
    brightness = ops.mean(layers.Cropping2D(4)(x), axis=(1, 2, 3), keepdims=True)  # of all pixels it is 0
    return ops.where(brightness < 0, -x, x)


def corrupt(images):
    """Corrupt each image in one of five ways, or not at all. A network that has seen MNIST alone misreads such images."""
    shape = tf.shape(images)  # (batch, 28, 28, 1)
    each = (shape[0], 1, 1, 1)
    amount, coin = tf.random.uniform(each), tf.random.uniform(each)
    dilated, eroded = tf.nn.max_pool2d(images, 3, 1, "SAME"), -tf.nn.max_pool2d(-images, 3, 1, "SAME")
    thick_or_thin = images + 0.7 * amount * (tf.where(coin < 0.5, dilated, eroded) - images)
    blurred = ops.image.gaussian_blur(images, (9, 9), tf.random.uniform((2,), 0.1, 1.5))
    noisy = images + 0.25 * 255 * amount * tf.random.normal(shape)
    drawn = tf.random.uniform(shape)
    half = 0.15 * amount / 2
    with_impulses = tf.where(drawn < half, 0.0, tf.where(drawn > 1 - half, 255.0, images))
    y, x = tf.meshgrid(tf.linspace(-0.5, 0.5, 28), tf.linspace(-0.5, 0.5, 28), indexing="ij")
    angle = 2 * np.pi * coin
    plane = 0.5 + (y[..., None] * tf.sin(angle) + x[..., None] * tf.cos(angle)) / np.sqrt(2)  # 0 to 1
    lit = images + 0.5 * amount * (255 * plane - images)
    ways = tf.stack([images, thick_or_thin, blurred, noisy, with_impulses, lit], axis=1)
    way = tf.random.uniform((shape[0],), maxval=ways.shape[1], dtype=tf.int32)
    return tf.clip_by_value(tf.gather(ways, way, axis=1, batch_dims=1), 0, 255)


def training_batches(images, labels, seed):
    """Return shuffled batches of moved and corrupted images. The last, smaller batch is dropped."""
    augment = keras.Sequential(
        [
            layers.RandomRotation(10 / 360, fill_mode="constant", seed=seed),
            layers.RandomZoom(0.1, 0.1, fill_mode="constant", seed=seed + 1),
            layers.RandomTranslation(3 / 28, 3 / 28, fill_mode="constant", seed=seed + 2),
        ]
    )
    batches = tf.data.Dataset.from_tensor_slices((images, labels))
    batches = batches.shuffle(len(images), seed=seed).batch(BATCH_SIZE, drop_remainder=True)
    return batches.map(lambda x, y: (corrupt(augment(tf.cast(x, "float32"), training=True)), y)).prefetch(4)


def main(epochs=12, seed=0):
    """Train, and return the accuracy on the test images."""
    keras.utils.set_random_seed(seed)
    (images, labels), test = load_data()
    order = np.random.default_rng(seed).permutation(len(images))
    images, labels = np.asarray(images)[order], np.asarray(labels)[order]
    held_out = min(VALIDATION_IMAGES, len(images) // 10)
    training = training_batches(images[held_out:], labels[held_out:], seed)

    steps = epochs * len(training)
    warmup = max(1, int(WARMUP_FRACTION * steps))
    one_cycle = keras.optimizers.schedules.CosineDecay(
        LEARNING_RATE / 25, steps - warmup, warmup_target=LEARNING_RATE, warmup_steps=warmup
    )
    model = build_model()
    model.compile(
        optimizer=keras.optimizers.AdamW(one_cycle, weight_decay=WEIGHT_DECAY),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    # Early epochs can score well by luck while the learning rate is high: only the last two may be kept.
    keep_best = keras.callbacks.EarlyStopping(
        "val_accuracy", patience=epochs, restore_best_weights=True, start_from_epoch=max(0, epochs - 2)
    )
    validation = images[:held_out], labels[:held_out]
    model.fit(training, epochs=epochs, validation_data=validation, callbacks=[keep_best], shuffle=False)
    model.save("mnist.keras")
    _, accuracy = model.evaluate(*test, verbose=0)
    print(f"test accuracy {100 * accuracy:.2f} %")
    return accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
