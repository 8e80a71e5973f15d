"""Your own data and your own Keras model on the training path of keras-recipes: `python own_recipe.py`.

python -m tuning search own_recipe.py --space.model.units 8,16,32,64
"""

import dataclasses

import keras
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split

from recipes import Optimizer, Parts, Training, own_recipe, train


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """Settings of the model: flags of the command line, and what a search may vary."""

    units: int = 32
    """Units of the hidden layer."""


def load_data():
    """Return inputs (n, 13) and classes (n,) of each part: any arrays, or datasets of tf.data."""
    x, y = load_wine(return_X_y=True)
    x, x_test, y, y_test = train_test_split(x.astype("float32"), y, test_size=36, random_state=0)
    x, x_validation, y, y_validation = train_test_split(x, y, test_size=36, random_state=0)
    return Parts(train=(x, y), validation=(x_validation, y_validation), test=(x_test, y_test))


def build(settings):
    """Return a model of inputs (batch, 13) to class probabilities (batch, 3)."""
    scale, hidden = keras.layers.BatchNormalization(momentum=0.9), keras.layers.Dense(settings.units, "relu")
    return keras.Sequential([keras.Input((13,)), scale, hidden, keras.layers.Dense(3, "softmax")])


how = {"optimizer": Optimizer(learning_rate=0.01), "training": Training(epochs=30, batch_size=16)}
recipe = own_recipe("wine", load_data, build, Model(), "sparse_categorical_crossentropy", ["accuracy"], **how)
if __name__ == "__main__":
    print(train(recipe).metrics)
