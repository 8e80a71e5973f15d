"""Plain Keras models of a few weights, for callbacks."""

import keras
import numpy as np


def one_weight(learning_rate=0.5, **optimizer) -> keras.Model:
    """Return a model with one weight, 0 to begin with."""
    model = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")]
    )
    model.compile(keras.optimizers.SGD(learning_rate, **optimizer), "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def weight(model: keras.Model) -> float:
    return float(model.get_weights()[0][0, 0])


def small_model(learning_rate=0.01) -> tuple[keras.Model, np.ndarray, np.ndarray]:
    """Return a compiled linear layer of 4 weights, and 8 rows of inputs and targets."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(learning_rate, momentum=0.9), "mse")
    x = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    return model, x, x.sum(axis=1, keepdims=True)
