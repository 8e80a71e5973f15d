"""Metrics of a language model beside the loss: perplexity, bits per character, tokens per second."""

import math
import time
from collections.abc import Callable
from typing import Any

import keras


def perplexity(loss: float) -> float:
    """Return e^loss, of a loss in nats per token."""
    return math.exp(min(loss, 700.0))  # e^710 is no float64


def bits_per_character(loss: float, tokens: int, characters: int) -> float:
    """Return the loss, in nats per token, as bits per character of the text that was scored."""
    return loss * tokens / characters / math.log(2)


class TextMetrics(keras.callbacks.Callback):
    """Add perplexity, bits per character and tokens per second to the metrics of each epoch.

    >>> metrics = TextMetrics(lambda epoch: 4, validation_tokens=4, validation_characters=8)
    >>> history = model.fit(x, y, validation_split=0.5, epochs=1, callbacks=[metrics], verbose=0)
    >>> history.history["val_perplexity"] == [math.exp(loss) for loss in history.history["val_loss"]]
    True

    Args:
        tokens_of_epoch: Returns the number of tokens that an epoch, counted from 0, trains on.
        validation_tokens, validation_characters: Length of the validation part.
    """

    def __init__(
        self, tokens_of_epoch: Callable[[int], int], validation_tokens: int, validation_characters: int
    ) -> None:
        super().__init__()
        self.tokens_of_epoch = tokens_of_epoch
        self.validation_tokens = validation_tokens
        self.validation_characters = validation_characters

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Start the clock."""
        self.started = time.monotonic()

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Stop the clock: validation follows."""
        self.seconds = time.monotonic() - self.started

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Add to the epoch's metrics."""
        if logs is None:
            return
        logs["perplexity"] = perplexity(float(logs["loss"]))
        logs["val_perplexity"] = perplexity(float(logs["val_loss"]))
        logs["val_bits_per_character"] = bits_per_character(
            float(logs["val_loss"]), self.validation_tokens, self.validation_characters
        )
        logs["tokens_per_second"] = round(self.tokens_of_epoch(epoch) / self.seconds, 1)
