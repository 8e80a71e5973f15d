"""What a text recipe reports beside the loss: perplexity, bits per character, speed."""

import math
import time
from collections.abc import Callable
from typing import Any

import keras


def perplexity(loss: float) -> float:
    """Return e^loss: how many tokens a model hesitates between that is as unsure. Loss in nats a token."""
    return math.exp(min(loss, 700.0))  # beyond that float64 has no number


def bits_per_character(loss: float, tokens: int, characters: int) -> float:
    """Return the loss, in nats a token, as bits for each character of the text that was scored."""
    return loss * tokens / characters / math.log(2)


class TextMetrics(keras.callbacks.Callback):
    """Add perplexity, bits per character and tokens a second to the metrics of each epoch.

    Args:
        tokens_of_epoch: Says how many tokens an epoch trains on.
        validation_tokens, validation_characters: How long the validation part is.
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
        """Stop it: what follows is validation."""
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
