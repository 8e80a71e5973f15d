"""Settings of the sequence-to-sequence recipe."""

import dataclasses
from typing import Annotated, Literal

from recipes.config.errors import require
from recipes.config.fields import BelowOne, Count, Range, Settings
from recipes.config.recipe import Recipe
from recipes.config.text import TextTraining, require_heads_fit, require_steps


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReversalData(Settings):
    """Random sequences of symbols and their reversals."""

    group = "data"

    source: Literal["reversal"] = "reversal"
    """reversal, the only source."""
    symbols: Annotated[int, Range(at_least=2)] = 20
    """Number of different symbols, at least 2."""
    shortest: Count = 1
    """Fewest symbols in a sequence, at least 1."""
    longest: Count = 16
    """Most symbols in a sequence, at least shortest."""
    held_out: Count = 1000
    """Sequences in the validation part, and in the test part, at least 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.shortest <= self.longest,
            "data.shortest must be 1 to data.longest",
            shortest=self.shortest,
            longest=self.longest,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderDecoderModel(Settings):
    """An encoder-decoder Transformer."""

    group = "model"

    layers: Count = 2
    """Blocks of the encoder, and of the decoder, at least 1."""
    width: int = 64
    """Size of the vector of each symbol, a multiple of 2 x heads."""
    heads: Count = 4
    """Attention heads, at least 1."""
    feed_forward: Count = 128
    """Hidden units of each feed-forward network, at least 1."""
    dropout: BelowOne = 0.0
    """Dropout rate after the embedding and each sub-layer, in [0, 1)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_heads_fit(self.width, self.heads)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequenceRecipe(Recipe):
    """An encoder-decoder Transformer that reverses sequences."""

    metrics = ("validation_loss", "validation_accuracy")

    data: ReversalData = ReversalData()
    model: EncoderDecoderModel = EncoderDecoderModel()
    training: TextTraining = TextTraining()

    def __post_init__(self) -> None:
        super().__post_init__()
        require_steps(self)
