"""Decoder-only Transformer: predicts the next token from the tokens so far.

Settings: `recipes.config.TransformerModel`. Training calls the layers on whole windows (`call`); generation
reads a prompt (`begin`), then one token at a time (`step`) with a cache.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

from recipes.config import TransformerModel
from recipes.models import Tensor
from recipes.models.attention import (
    BLOCKED,
    Attention,
    CausalConvolution,
    FeedForward,
    Turn,
    causal_mask,
    normalization,
    rotary_turns,
    sinusoids,
    unit_rms,
)
from recipes.models.configured import ConfiguredModel, tied_logits

BlockState = dict[str, Tensor]


class Block(layers.Layer):
    """Attention, then feed-forward, each on a normalised copy and added back (pre-norm).

    Args:
        settings: Sizes and parts.
        heads: Attention heads that it has, of those in the settings.
        feed_forward: Hidden units of its feed-forward network, of those in the settings.
    """

    def __init__(self, settings: TransformerModel, heads: int, feed_forward: int, name: str) -> None:
        super().__init__(name=name)
        self.convolves = settings.convolution > 1
        self.attention_norm = normalization(settings.normalization, "attention_norm")
        self.attention = Attention(
            heads,
            head_width=settings.width // settings.heads,
            bias=settings.bias,
            qk_norm=settings.qk_norm,
            name="attention",
        )
        self.feed_forward_norm = normalization(settings.normalization, "feed_forward_norm")
        self.feed_forward = FeedForward(
            feed_forward, activation=settings.activation, bias=settings.bias, name="feed_forward"
        )
        if self.convolves:
            self.attention_convolution = CausalConvolution(settings.convolution, name="attention_convolution")
            self.feed_forward_convolution = CausalConvolution(
                settings.convolution, name="feed_forward_convolution"
            )
        self.dropout = layers.Dropout(settings.dropout, name="dropout")

    def build(self, shape: Sequence[int | None]) -> None:
        """Build the layers, of which `step` calls parts before any is called as a whole."""
        for layer in (self.attention_norm, self.attention, self.feed_forward_norm, self.feed_forward):
            layer.build(shape)
        if self.convolves:
            self.attention_convolution.build(shape)
            self.feed_forward_convolution.build(shape)

    def call(self, x: Tensor, mask: Tensor, turn: Turn | None = None, training: bool = False) -> Tensor:
        """Return (batch, time, width)."""
        return self.whole(x, mask, turn, training)[0]

    def whole(
        self, x: Tensor, mask: Tensor, turn: Turn | None, training: bool = False
    ) -> tuple[Tensor, BlockState]:
        """Return the output of `call`, and the cache that `step` needs for later tokens."""
        seen: BlockState = {}
        h = self.attention_norm(x)
        if self.convolves:
            seen["attention_inputs"] = self.attention_convolution.pad(h)
            h = self.attention_convolution(h)
        q = self.attention.queries(h, turn)
        seen["keys"], seen["values"] = self.attention.keys_and_values(h, turn)
        x = x + self.dropout(self.attention.attend(q, seen["keys"], seen["values"], mask), training=training)
        h = self.feed_forward_norm(x)
        if self.convolves:
            seen["feed_forward_inputs"] = self.feed_forward_convolution.pad(h)
            h = self.feed_forward_convolution(h)
        return x + self.dropout(self.feed_forward(h), training=training), seen

    def step(
        self, x: Tensor, at: Tensor, mask: Tensor, turn: Turn | None, state: BlockState
    ) -> tuple[Tensor, BlockState]:
        """Process one token.

        Args:
            x: (batch, width).
            at: (batch, 1, block_size, 1), true at the token's position.
            mask: (batch, 1, 1, block_size), added to the scores.
            turn: Cosines and sines of the position, two of (batch, 1, 1, head_width), or None.
            state: keys and values (batch, heads, block_size, head_width); with convolution the last
                inputs of both, (batch, convolution - 1, width).
        """
        h = self.attention_norm(x)
        following: BlockState = {}
        if self.convolves:
            h, following["attention_inputs"] = _slide(
                self.attention_convolution, state["attention_inputs"], h
            )
        k, v = self.attention.keys_and_values(h, turn)
        following["keys"] = ops.where(at, k, state["keys"])
        following["values"] = ops.where(at, v, state["values"])
        q = self.attention.queries(h, turn)
        x = x + self.attention.attend_from_one(q, following["keys"], following["values"], mask)
        h = self.feed_forward_norm(x)
        if self.convolves:
            h, following["feed_forward_inputs"] = _slide(
                self.feed_forward_convolution, state["feed_forward_inputs"], h
            )
        return x + self.feed_forward(h), following


def _slide(convolution: CausalConvolution, before: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the convolution at a new position, and the inputs that the next one needs."""
    inputs = ops.concatenate([before, x[:, None]], axis=1)  # (batch, size, width)
    return convolution.newest(inputs), inputs[:, 1:]


@keras.saving.register_keras_serializable(package="keras_recipes")
class TransformerLanguageModel(ConfiguredModel):
    """int32 ids (batch, time) → float32 logits (batch, time, vocabulary_size), time ≤ block_size.

    Args:
        settings: Sizes and parts.
        vocabulary_size: Number of tokens.
        block_size: Most tokens it sees at once.
        sizes: Heads and feed-forward units of each block of a shrunk model; None for those of the settings.

    Attributes:
        window: The context length in tokens: the block size.
    """

    settings_type = TransformerModel
    arguments = ("vocabulary_size", "block_size", "sizes")

    def __init__(
        self,
        settings: TransformerModel,
        vocabulary_size: int,
        block_size: int,
        *,
        sizes: Sequence[Sequence[int]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(settings, **kwargs)
        self.vocabulary_size = vocabulary_size
        self.window: int | None = block_size
        self.block_size = block_size
        self.sizes = sizes or [[settings.heads, settings.feed_forward]] * settings.layers
        width = settings.width
        self.token_embedding = layers.Embedding(
            vocabulary_size, width, embeddings_initializer=_normal(1.0), name="token_embedding"
        )
        if settings.positions == "learned":
            self.positions = layers.Embedding(
                block_size, width, embeddings_initializer=_normal(0.1), name="positions"
            )
        self.dropout = layers.Dropout(settings.dropout, name="embedding_dropout")
        self.blocks = [
            Block(settings, heads, feed_forward, name=f"block_{number}")
            for number, (heads, feed_forward) in enumerate(self.sizes, start=1)
        ]
        self.final_norm = normalization(settings.normalization, "final_norm")
        if not settings.tied_head:
            self.head = layers.Dense(
                vocabulary_size, use_bias=False, kernel_initializer="zeros", dtype="float32", name="head"
            )
        self(ops.zeros((1, block_size), "int32"))  # builds it

    def call(self, ids: Tensor, training: bool = False) -> Tensor:
        """Return the logits of the token after each position."""
        length = ids.shape[1]
        x, mask, turn = self._embed(ids, training), causal_mask(length), self._turn(length)
        for block in self.blocks:
            x = block(x, mask, turn, training=training)
        return self._logits(x)

    def begin(self, ids: Tensor, lengths: Tensor) -> tuple[Tensor, list[BlockState]]:
        """Read prompts.

        Args:
            ids: int32 (batch, block_size); ids past a row's length are ignored.
            lengths: int32 (batch,), 1 to block_size.

        Returns:
            Logits of the token after each row's last, (batch, vocabulary_size), and the cache.
        """
        x, mask, turn = self._embed(ids), causal_mask(self.block_size), self._turn(self.block_size)
        states = []
        for block in self.blocks:
            x, seen = block.whole(x, mask, turn)
            if block.convolves:
                for name in ("attention_inputs", "feed_forward_inputs"):
                    seen[name] = _rows(seen[name], lengths, self.settings.convolution - 1)
            states.append(seen)
        return self._logits(_rows(x, lengths - 1, 1))[:, 0], states

    def step(self, ids: Tensor, places: Tensor, states: list[BlockState]) -> tuple[Tensor, list[BlockState]]:
        """Read one more token of each text.

        Args:
            ids: int32 (batch,).
            places: int32 (batch,), the position of each in its window, below block_size.
            states: The cache that `begin` or the last `step` returned.

        Returns:
            As `begin`.
        """
        slots = ops.arange(self.block_size)
        at = (slots == places[:, None])[:, None, :, None]  # (batch, 1, block_size, 1)
        mask = ops.where(slots <= places[:, None], 0.0, BLOCKED)[:, None, None]  # (batch, 1, 1, block_size)
        turn = self._turn(self.block_size)
        if turn is not None:
            turn = tuple(ops.take(angles, places, axis=0)[:, None, None] for angles in turn)
        x = self._embed(ids, places=places)  # (batch, width)
        following = []
        for block, state in zip(self.blocks, states, strict=True):
            x, state = block.step(x, at, mask, turn, state)
            following.append(state)
        return self._logits(x), following

    def _embed(self, ids: Tensor, training: bool = False, places: Tensor | None = None) -> Tensor:
        x = self.token_embedding(ids)  # (*shape of ids, width)
        if self.settings.positions == "learned":
            x = x + self.positions(ops.arange(ids.shape[1]) if places is None else places)
        elif self.settings.positions == "sinusoidal":
            table = sinusoids(self.block_size, self.settings.width)
            x = x + (table[: ids.shape[1]] if places is None else ops.take(table, places, axis=0))
        elif self.settings.normalization == "rms":
            x = unit_rms(x)
        return self.dropout(x, training=training)

    def _turn(self, length: int) -> Turn | None:
        if self.settings.positions != "rotary":
            return None
        cos, sin = rotary_turns(length, self.settings.width // self.settings.heads)
        return ops.convert_to_tensor(cos), ops.convert_to_tensor(sin)  # once, not for each use

    def _logits(self, x: Tensor) -> Tensor:
        x = self.final_norm(x)
        return tied_logits(x, self.token_embedding) if self.settings.tied_head else self.head(x)


def _normal(deviation: float) -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(stddev=deviation)


def _rows(values: Tensor, first: Tensor, count: int) -> Tensor:
    """Return `count` positions of each row from its own first one, (batch, count, width)."""
    return ops.take_along_axis(values, (first[:, None] + ops.arange(count))[:, :, None], axis=1)
