"""Forget, between epochs, the state that a recurrent model carries from step to step."""

from typing import Any

import keras


class ForgetState(keras.callbacks.Callback):
    """Start each epoch of a stateful recurrent model from zeros: its text begins somewhere else.

    Args:
        carried: The model's `CarriedState`.
    """

    def __init__(self, carried: Any) -> None:
        super().__init__()
        self.carried = carried

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Forget the state."""
        self.carried.reset()
