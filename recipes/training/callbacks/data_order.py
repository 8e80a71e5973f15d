"""Tell the training data which epoch it is, so that its order is a function of seed and epoch."""

from typing import Any

import keras


class DataOrder(keras.callbacks.Callback):
    """Set the epoch of the training batches before each pass.

    Args:
        epoch: A variable that the training batches read their order from.
    """

    def __init__(self, epoch: Any) -> None:
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Set the epoch, counted from 0."""
        self.epoch.assign(epoch)
