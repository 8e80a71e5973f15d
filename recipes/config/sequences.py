"""Settings of the sequence-to-sequence recipe."""

import dataclasses

from recipes.config.errors import require, require_at_least_one
from recipes.config.recipe import Recipe
from recipes.config.text import TextTraining, require_counted, require_heads_fit


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReversalData:
    """Random sequences of symbols, to be written backwards: the right answer is known."""

    source: str = "reversal"
    """reversal, the one there is."""
    symbols: int = 20
    """Kinds of symbols, at least 2."""
    shortest: int = 1
    """Fewest symbols in a sequence, at least 1."""
    longest: int = 16
    """Most symbols in a sequence, at least shortest."""
    held_out: int = 1000
    """Sequences to validate on, and as many to test on, at least 1. Their seeds are their own."""

    def __post_init__(self) -> None:
        require(self.source == "reversal", "data.source must be reversal", source=self.source)
        require(self.symbols >= 2, "data.symbols must be at least 2", symbols=self.symbols)
        require(
            1 <= self.shortest <= self.longest,
            "data.shortest must be 1 to data.longest",
            shortest=self.shortest,
            longest=self.longest,
        )
        require(self.held_out >= 1, "data.held_out must be at least 1", held_out=self.held_out)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderDecoderModel:
    """An encoder that reads a sequence, and a decoder that writes another while it looks at it."""

    layers: int = 2
    """Blocks of the encoder, and of the decoder, at least 1."""
    width: int = 64
    """Size of the vector that stands for a symbol, a multiple of 2 x heads."""
    heads: int = 4
    """Attention heads, at least 1."""
    feed_forward: int = 128
    """Hidden units of each feed-forward network, at least 1."""
    dropout: float = 0.0
    """Part of the embedding's and of each sub-layer's outputs dropped in training, in [0, 1)."""

    def __post_init__(self) -> None:
        require_at_least_one("model", self, "layers", "heads", "feed_forward")
        require_heads_fit(self.width, self.heads)
        require(0 <= self.dropout < 1, "model.dropout must be in [0, 1)", dropout=self.dropout)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequenceRecipe(Recipe):
    """An encoder-decoder Transformer that writes sequences backwards."""

    metrics = ("validation_loss", "validation_accuracy")

    data: ReversalData = ReversalData()
    model: EncoderDecoderModel = EncoderDecoderModel()
    training: TextTraining = TextTraining()

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counted(self)
