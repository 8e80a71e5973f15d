"""Recurrent networks that predict the next token from the tokens so far.

Settings: `recipes.config.RecurrentModel`.
"""

from typing import Any

import keras
from keras import layers, ops

from recipes.config import RecurrentModel
from recipes.models import Tensor
from recipes.models.configured import ConfiguredModel, tied_logits

States = list[list[Tensor]]

CELLS = {"rnn": layers.SimpleRNN, "lstm": layers.LSTM, "gru": layers.GRU}


@keras.saving.register_keras_serializable(package="keras_recipes")
class RecurrentLanguageModel(ConfiguredModel):
    """int32 ids (batch, time) → float32 logits (batch, time, vocabulary_size).

    Args:
        settings: Sizes and cell.
        vocabulary_size: Number of tokens.
        block_size: Tokens in a window of training.

    Attributes:
        window: The context length in tokens: None, because the state summarises all tokens so far.
    """

    settings_type = RecurrentModel
    arguments = ("vocabulary_size", "block_size")

    def __init__(
        self, settings: RecurrentModel, vocabulary_size: int, block_size: int, **kwargs: Any
    ) -> None:
        super().__init__(settings, **kwargs)
        self.vocabulary_size = vocabulary_size
        self.window: int | None = None
        self.block_size = block_size
        start = keras.initializers.RandomNormal(stddev=1.0)
        self.token_embedding = layers.Embedding(
            vocabulary_size, settings.embedding, embeddings_initializer=start, name="token_embedding"
        )
        self.dropout = layers.Dropout(settings.dropout, name="dropout")
        self.recurrent = [
            CELLS[settings.cell](
                settings.units, return_sequences=True, return_state=True, name=f"{settings.cell}_{number}"
            )
            for number in range(1, settings.layers + 1)
        ]
        self.projection = None
        if settings.units != settings.embedding:
            self.projection = layers.Dense(settings.embedding, name="projection")
        self(ops.zeros((1, block_size), "int32"))  # builds it

    def call(self, ids: Tensor, training: bool = False) -> Tensor:
        """Return the logits of the token after each position."""
        return self._logits(self._read(ids, training=training)[0])

    def begin(self, ids: Tensor, lengths: Tensor) -> tuple[Tensor, States]:
        """Read prompts.

        Args:
            ids: int32 (batch, time); ids past a row's length are ignored.
            lengths: int32 (batch,), 1 to time.

        Returns:
            Logits of the token after each row's last, (batch, vocabulary_size), and the state.
        """
        x, states = self._read(ids, mask=ops.arange(ops.shape(ids)[1]) < lengths[:, None])
        return self._logits(x[:, -1]), states  # masked positions repeat the last one's output

    def step(self, ids: Tensor, places: Tensor, states: States) -> tuple[Tensor, States]:
        """Read one more token of each text, int32 (batch,), at any position; returns as `begin`."""
        x, following = self.token_embedding(ids), []  # (batch, embedding)
        for layer, state in zip(self.recurrent, states, strict=True):
            x, state = layer.cell(x, state)  # (batch, units)
            following.append(list(state))
        return self._logits(x), following

    def _read(self, ids: Tensor, mask: Tensor | None = None, training: bool = False) -> tuple[Tensor, States]:
        x = self.dropout(self.token_embedding(ids), training=training)  # (batch, time, embedding)
        following = []
        for layer in self.recurrent:
            x, *state = layer(x, mask=mask, training=training)
            x = self.dropout(x, training=training)  # (batch, time, units)
            following.append(state)
        return x, following

    def _logits(self, x: Tensor) -> Tensor:
        if self.projection is not None:
            x = self.projection(x)  # (batch, time, embedding)
        return tied_logits(x, self.token_embedding)
