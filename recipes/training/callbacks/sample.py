"""Generate a text after each validation, to watch a language model learn."""

from collections.abc import Callable
from typing import Any

from recipes.training.callbacks.stateful import StatefulCallback


class Sample(StatefulCallback):
    """Generate a text after each validation, with the weights that were validated.

    >>> sample = Sample(lambda: f"bias {model.get_weights()[1].size}", print)
    >>> history = model.fit(x, y, validation_split=0.5, epochs=1, callbacks=[sample], verbose=0)
    bias 1

    Args:
        generate: Returns a text.
        show: Takes each text, to print it.

    Attributes:
        texts: One per epoch.
    """

    def __init__(self, generate: Callable[[], str], show: Callable[[str], None]) -> None:
        super().__init__()
        self.generate = generate
        self.show = show
        self.texts: list[str] = []

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start without texts."""
        self.texts = []

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Generate a text."""
        self.texts.append(self.generate())

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Show the text."""
        self.show(self.texts[-1])

    def state(self) -> dict[str, Any]:
        """Return the texts."""
        return {"texts": self.texts}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the texts."""
        self.texts = list(state["texts"])
