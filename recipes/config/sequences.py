"""Settings of the sequence-to-sequence recipe."""

import dataclasses

from recipes.config.errors import require
from recipes.config.optimization import (
    EarlyStopping,
    Optimizer,
    Schedule,
    check_metric,
    check_times,
)
from recipes.config.text import TextTraining


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
        for name in ("layers", "heads", "feed_forward"):
            require(
                getattr(self, name) >= 1, f"model.{name} must be at least 1", **{name: getattr(self, name)}
            )
        require(
            self.width >= 1 and self.width % (2 * self.heads) == 0,
            "model.width must be a multiple of 2 x model.heads",
            width=self.width,
            heads=self.heads,
        )
        require(0 <= self.dropout < 1, "model.dropout must be in [0, 1)", dropout=self.dropout)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequenceRecipe:
    """An encoder-decoder Transformer that writes sequences backwards."""

    data: ReversalData = ReversalData()
    model: EncoderDecoderModel = EncoderDecoderModel()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    early_stopping: EarlyStopping = EarlyStopping()
    training: TextTraining = TextTraining()

    def __post_init__(self) -> None:
        check_metric(self.early_stopping, ("validation_loss", "validation_accuracy"))
        check_times(self.training, self.schedule, self.early_stopping)
