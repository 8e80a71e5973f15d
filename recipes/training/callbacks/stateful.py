"""Base class of callbacks whose state survives a kill."""

import abc
from typing import Any

import keras

STATEFUL = "stateful callbacks"
"""Key in `params`, which Keras shares among all callbacks of a fit."""


class StatefulCallback(keras.callbacks.Callback, abc.ABC):
    """A callback whose state a `Checkpoint` in the same fit saves and restores."""

    def set_params(self, params: dict[str, Any]) -> None:
        """Take the parameters of the fit, and announce this callback to a `Checkpoint`."""
        super().set_params(params)
        params.setdefault(STATEFUL, []).append(self)

    @abc.abstractmethod
    def state(self) -> dict[str, Any]:
        """Return the state: JSON values, NumPy arrays, and lists of arrays."""

    @abc.abstractmethod
    def restore(self, state: dict[str, Any]) -> None:
        """Restore a state, after `on_train_begin`."""


def check_built(callback: keras.callbacks.Callback, model: keras.Model) -> None:
    """Refuse a model whose weights do not exist before its first step.

    Raises:
        ValueError: The model is not built.
    """
    if not model.built:
        raise ValueError(
            f"{type(callback).__name__} needs a model with weights: give it a keras.Input, or call it on a batch before "
            f"fit. Received: {model.name}, which is not built"
        )
