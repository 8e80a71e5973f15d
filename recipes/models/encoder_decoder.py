"""Encoder-decoder Transformer (Vaswani et al. 2017, arXiv:1706.03762), with the norms before the sub-layers.

Settings: `recipes.config.EncoderDecoderModel`. Three masks: the encoder and the cross-attention do
not see padding, the decoder does not see later positions of its target.
"""

from typing import Any

import keras
from keras import layers, ops

from recipes.config import EncoderDecoderModel
from recipes.models import Tensor
from recipes.models.attention import (
    BLOCKED,
    Attention,
    FeedForward,
    causal_mask,
    normalization,
    sinusoids,
)
from recipes.models.configured import ConfiguredModel, tied_logits


class AttentiveBlock(layers.Layer):
    """Self-attention, cross-attention if there is a context, feed-forward; each added to its input.

    Args:
        settings: Sizes.
        crosses: Whether it has cross-attention to a context.
    """

    def __init__(self, settings: EncoderDecoderModel, *, crosses: bool, name: str) -> None:
        super().__init__(name=name)
        kinds = ["self_attention", "cross_attention"] if crosses else ["self_attention"]
        self.attentions = [Attention(settings.heads, bias=True, qk_norm=False, name=kind) for kind in kinds]
        self.feed_forward = FeedForward(
            settings.feed_forward, activation="gelu", bias=True, name="feed_forward"
        )
        self.norms = [normalization("layer", f"norm_{number}") for number in range(len(kinds) + 1)]
        self.dropout = layers.Dropout(settings.dropout, name="dropout")

    def call(
        self,
        x: Tensor,
        mask: Tensor,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
        training: bool = False,
    ) -> Tensor:
        """Return (batch, time, width); masks are added to the scores."""
        h = self.norms[0](x)
        x = x + self.dropout(self.attentions[0](h, h, mask), training=training)
        if context is not None:
            h = self.attentions[1](self.norms[1](x), context, context_mask)
            x = x + self.dropout(h, training=training)
        return x + self.dropout(self.feed_forward(self.norms[-1](x)), training=training)


@keras.saving.register_keras_serializable(package="keras_recipes")
class EncoderDecoder(ConfiguredModel):
    """(source, previous) int32 ids → float32 logits (batch, time of previous, vocabulary_size).

    Args:
        settings: Sizes.
        vocabulary_size: Number of symbols with padding, start and end; padding is 0.
        source_length: Length of the sources, (batch, source_length).
        target_length: Length of the targets, (batch, target_length).
    """

    settings_type = EncoderDecoderModel
    arguments = ("vocabulary_size", "source_length", "target_length")

    def __init__(
        self,
        settings: EncoderDecoderModel,
        vocabulary_size: int,
        source_length: int,
        target_length: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(settings, **kwargs)
        self.vocabulary_size = vocabulary_size
        self.source_length = source_length
        self.target_length = target_length
        start = keras.initializers.RandomNormal(stddev=1.0)
        self.token_embedding = layers.Embedding(
            vocabulary_size, settings.width, embeddings_initializer=start, name="token_embedding"
        )
        self.dropout = layers.Dropout(settings.dropout, name="embedding_dropout")
        self.encoder = [
            AttentiveBlock(settings, crosses=False, name=f"encoder_{number}")
            for number in range(1, settings.layers + 1)
        ]
        self.decoder = [
            AttentiveBlock(settings, crosses=True, name=f"decoder_{number}")
            for number in range(1, settings.layers + 1)
        ]
        self.encoder_norm = normalization("layer", "encoder_norm")
        self.decoder_norm = normalization("layer", "decoder_norm")
        # It builds the layers.
        self((ops.ones((1, source_length), "int32"), ops.ones((1, target_length), "int32")))

    def call(self, inputs: tuple[Tensor, Tensor], training: bool = False) -> Tensor:
        """Return the logits of the symbol at each position, from the source and the symbols before it."""
        source, previous = inputs
        padding = ops.where(source == 0, BLOCKED, 0.0)[:, None, None]  # (batch, 1, 1, source_length)
        context = self._embed(source, training)
        for block in self.encoder:
            context = block(context, padding, training=training)
        context = self.encoder_norm(context)  # (batch, source_length, width)
        x = self._embed(previous, training)
        for block in self.decoder:
            x = block(x, causal_mask(previous.shape[1]), context, padding, training=training)
        return tied_logits(self.decoder_norm(x), self.token_embedding)

    def _embed(self, ids: Tensor, training: bool) -> Tensor:
        places = sinusoids(ids.shape[1], self.settings.width)
        return self.dropout(self.token_embedding(ids) + places, training=training)
