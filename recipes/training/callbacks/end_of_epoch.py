"""End each epoch with its own last step, where epochs differ in their number of steps."""

from typing import Any

import keras

from recipes.data.batch_sizes import BatchSizes


class EndOfEpoch(keras.callbacks.Callback):
    """Leave the loop over an epoch's batches after the last one.

    Keras takes all epochs to be as long as the first. It leaves that loop when `stop_training` is set,
    and training only if it is still set when the epoch is over: in between it is taken back.

    Must stand before the callbacks that stop training for a reason.

    Args:
        sizes: Examples of each step.
    """

    def __init__(self, sizes: BatchSizes) -> None:
        super().__init__()
        self.sizes = sizes

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Count the epoch's steps."""
        self.steps = len(self.sizes.of_epoch(epoch))

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Leave the loop; steps count from 0."""
        if batch + 1 >= self.steps:
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Go on with training."""
        self.model.stop_training = False
