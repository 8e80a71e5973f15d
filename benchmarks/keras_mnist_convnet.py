"""Keras's own MNIST example, `mnist_convnet`, at its published settings: how long until it has 99 %.

https://keras.io/examples/vision/mnist_convnet: two convolutions of 32 and 64 filters of 3 x 3, each with
max-pooling, dropout of one half, softmax; Adam, batches of 128, 15 epochs.

    TFDS_DATA_DIR=... python -m benchmarks.keras_mnist_convnet SEED    prints seconds and epochs as JSON

Only its steps are counted; to look after each epoch whether it has 99 % of the test images costs it nothing.
"""

import argparse
import json
import subprocess
import sys
import time
from typing import Any

from benchmarks.commands import ROOT

EPOCHS = 15
BATCH_SIZE = 128
GOAL = 0.99


def measure(seed: int) -> dict[str, float]:
    """Train it in a process of its own; return `seconds` and `epochs` until the goal, or of all of it."""
    command = [sys.executable, "-m", "benchmarks.keras_mnist_convnet", str(seed)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def build() -> Any:
    """Build and compile the example's network."""
    import keras
    from keras import layers

    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])
    return model


def main() -> None:
    """Train until the goal and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("seed", type=int)
    seed = parser.parse_args().seed
    import keras

    from recipes.config import ImageData
    from recipes.data.images import load_images

    keras.utils.set_random_seed(seed)
    dataset = load_images(ImageData(source="mnist"))
    train, test = (
        (part.images.astype("float32") / 255, keras.utils.to_categorical(part.labels, 10))
        for part in (dataset.train, dataset.read_test())
    )
    model, seconds, epochs, accuracy = build(), 0.0, 0, 0.0
    # A pass may wait for TensorFlow when its steps are done (recipes.data.batches.prefetch): not Keras's doing.
    steps: list[float] = []
    clock = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: steps.append(time.monotonic())
    )
    while accuracy < GOAL and epochs < EPOCHS:
        started = time.monotonic()
        model.fit(*train, batch_size=BATCH_SIZE, epochs=1, verbose=0, callbacks=[clock])
        seconds += steps[-1] - started
        epochs += 1
        accuracy = model.evaluate(*test, verbose=0, return_dict=True)["accuracy"]
    print(json.dumps({"seconds": round(seconds, 2), "epochs": epochs, "accuracy": round(accuracy, 4)}))


if __name__ == "__main__":
    main()
