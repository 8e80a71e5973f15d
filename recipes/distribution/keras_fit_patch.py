"""Patch Keras's `fit`, which fails on several replicas in two places (keras#20585).

- `_maybe_symbolic_build` needs a batch for its shapes, and reduces all workers' batches outside of any
  function to get one. MultiWorkerMirroredStrategy can't, and MirroredStrategy not where a batch does not
  divide evenly. The local replica's own batch is enough.
- `reduce_per_replica` takes the mean of the workers' logs along axis 0, which a scalar does not have.

Remove this module when tests/recipes/test_cluster.py passes without it.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.tensorflow import trainer

from recipes.config import UserError

PATCHED = "3.15."
"""The Keras versions that the patch is for."""


def check_version() -> None:
    """Refuse a Keras that the patch is not for.

    Raises:
        UserError: Another version.
    """
    if not keras.__version__.startswith(PATCHED):
        raise UserError(
            f"training on several replicas needs a patch of Keras's fit that is written for Keras {PATCHED}x: "
            f"install that, or train on one device (training.replicas 1). Received: Keras {keras.__version__}"
        )


@contextlib.contextmanager
def patched_fit(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Replace the two functions for the time of a fit on several replicas."""
    if strategy.num_replicas_in_sync == 1:
        yield
        return
    reduce, build = trainer.reduce_per_replica, trainer.TensorFlowTrainer._maybe_symbolic_build

    def reduce_per_replica(values: Any, strategy: tf.distribute.Strategy, reduction: str) -> Any:
        """Return the mean of the replicas' logs; any other reduction is Keras's own."""
        if reduction not in ("auto", "mean"):
            return reduce(values, strategy, reduction)
        return keras.tree.map_structure(lambda value: strategy.reduce("MEAN", value, axis=None), values)

    trainer.reduce_per_replica = reduce_per_replica
    trainer.TensorFlowTrainer._maybe_symbolic_build = _maybe_symbolic_build
    try:
        yield
    finally:
        trainer.reduce_per_replica = reduce
        trainer.TensorFlowTrainer._maybe_symbolic_build = build


def _maybe_symbolic_build(self: keras.Model, iterator: Any = None, data_batch: Any = None) -> None:
    """Build metrics and loss from the shapes of a batch."""
    strategy = self.distribute_strategy
    if iterator is not None:
        _, _, batches = next(iter(iterator))
        data_batch = keras.tree.map_structure(
            lambda value: strategy.experimental_local_results(value)[0], next(batches)
        )
    with strategy.scope():
        self._symbolic_build(data_batch=data_batch)
