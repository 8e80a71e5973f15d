"""Settings of the text and the sequence-to-sequence recipes."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from recipes.config.errors import require
from recipes.config.fields import (
    BelowOne,
    Count,
    NonNegative,
    NonNegativeInt,
    ProperFraction,
    Range,
    Settings,
)
from recipes.config.recipe import Recipe, Training


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextData(Settings):
    """Where the text comes from, and how it is split into tokens and windows."""

    group = "data"
    removed: ClassVar[Mapping[str, Any]] = {"stateful": False}

    source: str = "auto"
    """auto (tiny Shakespeare if it is prepared or can be downloaded, else the offline text), a
    TensorFlow Datasets name, pydoc (offline), or a path: a UTF-8 file or a folder of such files."""
    tokenizer: Literal["characters", "bytes", "bpe"] = "characters"
    """Tokens: the characters of the text, the bytes of its UTF-8, or a byte-pair encoding trained on the training
    part."""
    vocabulary_size: Annotated[int, Range(at_least=257)] = 1024  # the 256 bytes and one merge
    """bpe: number of tokens, at least 257."""
    block_size: Annotated[int, Range(at_least=2)] = 128
    """Tokens per window, at least 2: the context length of a Transformer."""
    validation_fraction: ProperFraction = 0.05
    """Fraction held out to choose epochs and settings, in (0, 1), if the source has no validation part. It follows
    the training part in the text."""
    test_fraction: ProperFraction = 0.05
    """Fraction held out for the test, in (0, 1), if the source has no test part: the end of the text."""
    evaluation_stride: Count | None = None
    """Tokens between the starts of two evaluation windows, 1 to block_size (None: block_size, no overlap). A smaller
    stride gives each token more context and a lower loss, and takes longer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.validation_fraction + self.test_fraction < 1,
            "data.validation_fraction and data.test_fraction must be below 1 together",
            validation_fraction=self.validation_fraction,
            test_fraction=self.test_fraction,
        )
        require(
            self.evaluation_stride is None or self.evaluation_stride <= self.block_size,
            "data.evaluation_stride must be 1 to data.block_size",
            evaluation_stride=self.evaluation_stride,
            block_size=self.block_size,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextTraining(Training):
    """The training loop on windows of a text, whose number per epoch is a setting."""

    steps_per_epoch: Count = 200
    """Steps of batch_size per validation interval, at least 1."""

    @property
    def windows_per_epoch(self) -> int:
        """Windows per epoch."""
        return self.steps_per_epoch * self.batch_size


def require_steps(recipe: Recipe) -> None:
    """Raise a UserError for gradient descent: an epoch of windows is not the whole training set."""
    name = recipe.optimizer.name
    require(
        name != "gradient-descent",
        "optimizer.name: an epoch of windows is not the whole training set",
        name=name,
    )


def require_heads_fit(width: int, heads: int) -> None:
    """Raise a UserError unless the heads divide the width into vectors of an even size."""
    fits = width >= 1 and width % (2 * heads) == 0
    require(fits, "model.width must be a multiple of 2 x model.heads", width=width, heads=heads)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerModel(Settings):
    """A decoder-only Transformer with causal attention."""

    group = "model"

    layers: Count = 4
    """Blocks of attention and feed-forward, at least 1."""
    width: int = 128
    """Size of the vector of each token, a multiple of 2 x heads."""
    heads: Count = 4
    """Attention heads, at least 1."""
    feed_forward: Count = 512
    """Hidden units of each feed-forward network, at least 1."""
    positions: Literal["learned", "sinusoidal", "rotary"] = "rotary"
    """Position encoding: a learned or sinusoidal vector added to each token's, or rotary embeddings of queries and
    keys."""
    normalization: Literal["layer", "rms"] = "rms"
    """LayerNorm or RMSNorm."""
    activation: Literal["gelu", "relu-squared"] = "relu-squared"
    """Activation of the feed-forward networks."""
    qk_norm: bool = True
    """Whether queries and keys are normalised, with a learned temperature per head."""
    convolution: NonNegativeInt = 0
    """Kernel size of the causal convolutions before attention and feed-forward, at least 2; 0 is off."""
    tied_head: bool = True
    """Whether the output layer shares the token embedding."""
    bias: bool = False
    """Whether the dense layers have biases."""
    dropout: BelowOne = 0.0
    """Dropout rate after the embedding and each sub-layer, in [0, 1)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.convolution != 1, "model.convolution must be 0 or at least 2", convolution=self.convolution
        )
        require_heads_fit(self.width, self.heads)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecurrentModel(Settings):
    """A token embedding, stacked recurrent layers, and an output layer that shares the embedding."""

    group = "model"

    cell: Literal["rnn", "lstm", "gru"] = "lstm"
    """Recurrent layer: simple, long short-term memory, or gated recurrent unit."""
    layers: Count = 2
    """Recurrent layers, at least 1."""
    units: Count = 256
    """Units of each layer, at least 1."""
    embedding: Count = 256
    """Size of each token's vector, at least 1. If units differ, a dense layer projects the last layer's output to
    it."""
    dropout: BelowOne = 0.0
    """Dropout rate after the embedding and each layer, in [0, 1)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextRecipe(Recipe):
    """A language model: predicts the next token."""

    metrics = ("validation_loss", "validation_perplexity", "validation_bits_per_character")

    data: TextData = TextData()
    training: TextTraining = TextTraining()
    init_from: str | None = None
    """Run directory of a finished run with the same network: training starts from its weights and uses its vocabulary
    (None: random weights, a vocabulary of the text)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_steps(self)

    def resolved(self, steps: int | None = None) -> Self:
        """Return the settings as `Recipe.resolved`, with the evaluation stride."""
        stride = self.data.evaluation_stride or self.data.block_size
        data = dataclasses.replace(self.data, evaluation_stride=stride)
        return dataclasses.replace(super().resolved(steps), data=data)

    def unresolved(self) -> Self:
        """Return the settings as `Recipe.unresolved`, with None for an evaluation stride of the block size."""
        stride = self.data.evaluation_stride
        data = dataclasses.replace(
            self.data, evaluation_stride=None if stride == self.data.block_size else stride
        )
        return dataclasses.replace(super().unresolved(), data=data)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerRecipe(TextRecipe):
    """A Transformer language model."""

    model: TransformerModel = TransformerModel()


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecurrentRecipe(TextRecipe):
    """A recurrent language model."""

    model: RecurrentModel = RecurrentModel()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling(Settings):
    """How tokens are sampled from the model's probabilities."""

    temperature: NonNegative = 1.0
    """Divides the logits; 0 takes the most likely token (greedy)."""
    top_k: NonNegativeInt = 0
    """Sample from the k most likely tokens only (Fan et al. 2018, arXiv:1805.04833); 0 for all."""
    top_p: Annotated[float, Range(above=0, at_most=1)] = 1.0
    """Sample from the most likely tokens whose probabilities sum to this value, in (0, 1], applied after top_k
    (Holtzman et al. 2020, arXiv:1904.09751)."""


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
