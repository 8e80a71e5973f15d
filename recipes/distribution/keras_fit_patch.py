"""Patch Keras's `fit`, which fails on several replicas in two places (keras#20585).

- `_maybe_symbolic_build` needs a batch for its shapes, and reduces all workers' batches outside of any
  function to get one. MultiWorkerMirroredStrategy can't, and MirroredStrategy not where a batch does not
  divide evenly. The local replica's own batch does as well.
- `reduce_per_replica` takes the mean of the workers' logs along axis 0, which a scalar does not have.

Remove this module once tests/recipes/test_cluster.py passes without it.
"""

from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.tensorflow import trainer

_reduce_per_replica = trainer.reduce_per_replica


def patch_fit() -> None:
    """Replace the two functions, for the rest of this process."""
    trainer.reduce_per_replica = reduce_per_replica
    trainer.TensorFlowTrainer._maybe_symbolic_build = maybe_symbolic_build


def reduce_per_replica(values: Any, strategy: tf.distribute.Strategy, reduction: str) -> Any:
    """Return the mean of each of the replicas' logs; any other reduction is Keras's own."""
    if reduction not in ("auto", "mean"):
        return _reduce_per_replica(values, strategy, reduction)
    return keras.tree.map_structure(lambda value: strategy.reduce("MEAN", value, axis=None), values)


def maybe_symbolic_build(self: keras.Model, iterator: Any = None, data_batch: Any = None) -> None:
    """Build metrics and loss from the shapes of a batch."""
    strategy = self.distribute_strategy
    if iterator is not None:
        _, _, batches = next(iter(iterator))
        data_batch = keras.tree.map_structure(
            lambda value: strategy.experimental_local_results(value)[0], next(batches)
        )
    with strategy.scope():
        self._symbolic_build(data_batch=data_batch)
