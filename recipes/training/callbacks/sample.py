"""A text after each validation, for whoever watches a language model learn."""

from collections.abc import Callable
from typing import Any

import keras


class Sample(keras.callbacks.Callback):
    """Generate a text after each validation, by the weights that were validated.

    Must stand before `MovingAverage`, which takes them out again.

    Args:
        generate: Gives a text.
        show: Takes each text, to print it.

    Attributes:
        texts: One for each epoch.
    """

    def __init__(self, generate: Callable[[], str], show: Callable[[str], None]) -> None:
        super().__init__()
        self.generate = generate
        self.show = show
        self.texts: list[str] = []

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Forget an earlier training."""
        self.texts = []

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Generate."""
        self.texts.append(self.generate())

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Show."""
        self.show(self.texts[-1])

    def state(self) -> dict[str, Any]:
        """Return the texts."""
        return {"texts": self.texts}

    def restore(self, state: dict[str, Any]) -> None:
        """Take the texts back."""
        self.texts = list(state["texts"])
