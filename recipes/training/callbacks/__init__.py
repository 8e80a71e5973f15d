"""Callbacks, one class a file, for any model's `fit`.

    model.fit(x, y, validation_split=0.1, callbacks=[KeepBest("val_accuracy", patience=3), Checkpoint("state.npz")])

Each resets its state in `on_train_begin`. A `Checkpoint` saves that of every `StatefulCallback` in the same fit. In the
examples `model` is a compiled linear layer of 4 weights, `x` and `y` are 8 rows of data.
"""

from recipes.training.callbacks.checkpoint import Checkpoint
from recipes.training.callbacks.history import History
from recipes.training.callbacks.keep_best import KeepBest
from recipes.training.callbacks.moving_average import MovingAverage
from recipes.training.callbacks.pruning import Prune
from recipes.training.callbacks.reduce_on_plateau import ReduceOnPlateau
from recipes.training.callbacks.sample import Sample
from recipes.training.callbacks.show_progress import ShowProgress
from recipes.training.callbacks.stateful import StatefulCallback
from recipes.training.callbacks.stop_on_nan import StopOnNaN
from recipes.training.callbacks.text_metrics import TextMetrics

__all__ = [
    "Checkpoint",
    "History",
    "KeepBest",
    "MovingAverage",
    "Prune",
    "ReduceOnPlateau",
    "Sample",
    "ShowProgress",
    "StatefulCallback",
    "StopOnNaN",
    "TextMetrics",
]
