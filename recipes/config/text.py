"""Settings of the text recipes."""

import dataclasses
from typing import Literal, Self

from recipes.config.errors import require, require_at_least_one
from recipes.config.recipe import Recipe
from recipes.config.training import Training

DEFAULT_VOCABULARY_SIZE = 1024
SMALLEST_VOCABULARY_SIZE = 257
"""Byte-pair encoding starts from the 256 bytes, so one merge makes 257."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextData:
    """Where the text comes from, and how it is cut into tokens and windows."""

    source: str = "auto"
    """auto (tiny Shakespeare if it is prepared or can be downloaded, else the offline text), a
    TensorFlow Datasets name, pydoc (offline), or a path: a UTF-8 file or a folder of such files."""
    tokenizer: Literal["characters", "bytes", "bpe"] = "characters"
    """What a token is: a character of the text, a byte of its UTF-8, or a byte-pair encoding trained
    on the training part."""
    vocabulary_size: int | None = None
    """bpe: number of tokens, at least 257 (None: 1024)."""
    block_size: int = 128
    """Tokens in a window, at least 2: the most that a Transformer looks back."""
    validation_fraction: float = 0.05
    """Part held out to choose epochs and settings, in (0, 1), where a source has no parts of its
    own; it follows the training part in the text."""
    test_fraction: float = 0.05
    """Part held out for the test, in (0, 1): the end of the text."""
    evaluation_stride: int | None = None
    """Tokens from one window to the next in evaluation, 1 to block_size (None: block_size, windows
    that do not overlap). Smaller gives each token more context, a lower loss, and takes longer."""

    def __post_init__(self) -> None:
        require(
            self.vocabulary_size is None or self.tokenizer == "bpe",
            "data.vocabulary_size belongs to the tokenizer bpe",
            tokenizer=self.tokenizer,
            vocabulary_size=self.vocabulary_size,
        )
        require(
            self.vocabulary_size is None or self.vocabulary_size >= SMALLEST_VOCABULARY_SIZE,
            f"data.vocabulary_size must be at least {SMALLEST_VOCABULARY_SIZE}",
            vocabulary_size=self.vocabulary_size,
        )
        require(self.block_size >= 2, "data.block_size must be at least 2", block_size=self.block_size)
        require(
            min(self.validation_fraction, self.test_fraction) > 0
            and self.validation_fraction + self.test_fraction < 1,
            "data.validation_fraction and data.test_fraction must be above 0, and below 1 together",
            validation_fraction=self.validation_fraction,
            test_fraction=self.test_fraction,
        )
        require(
            self.evaluation_stride is None or 1 <= self.evaluation_stride <= self.block_size,
            "data.evaluation_stride must be 1 to data.block_size",
            evaluation_stride=self.evaluation_stride,
            block_size=self.block_size,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamedTextData(TextData):
    """Text for a model that can carry its state from window to window."""

    stateful: bool = False
    """Read the text in order, batch_size places at once, and start each window from the state at the
    end of the one before (truncated back-propagation through time), instead of random windows."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextTraining(Training):
    """The training loop on random windows, where an epoch is as long as one likes."""

    steps_per_epoch: int = 200
    """Steps of batch_size between two looks at the validation text, at least 1; of larger batches there
    are fewer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least_one("training", self, "steps_per_epoch")

    @property
    def windows_per_epoch(self) -> int:
        """Windows of an epoch, all steps together."""
        return self.steps_per_epoch * self.batch_size


def require_counted(recipe: Recipe) -> None:
    """Refuse gradient descent where examples are drawn without end."""
    name = recipe.optimizer.name
    require(
        name != "gradient-descent",
        "optimizer.name: there is no whole training set to take at once",
        name=name,
    )


def require_heads_fit(width: int, heads: int) -> None:
    """Refuse a width that heads of an even size can't share."""
    fits = width >= 1 and width % (2 * heads) == 0
    require(fits, "model.width must be a multiple of 2 x model.heads", width=width, heads=heads)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerModel:
    """A decoder-only Transformer: each token sees itself and those before it."""

    layers: int = 4
    """Blocks of attention and feed-forward, at least 1."""
    width: int = 128
    """Size of the vector that stands for a token, a multiple of 2 x heads."""
    heads: int = 4
    """Attention heads, at least 1."""
    feed_forward: int = 512
    """Hidden units of each feed-forward network, at least 1."""
    positions: Literal["learned", "sinusoidal", "rotary"] = "rotary"
    """How a token knows its place: a learned vector or one of sines added to its own, or queries and
    keys turned by an angle that grows with the place."""
    normalization: Literal["layer", "rms"] = "rms"
    """LayerNorm, or RMSNorm, which neither centres nor shifts."""
    activation: Literal["gelu", "relu-squared", "swiglu"] = "relu-squared"
    """What stands between the two matrices of the feed-forward network."""
    qk_norm: bool = True
    """Normalise queries and keys, with a learned temperature for each head."""
    convolution: int = 0
    """Places in the causal convolution before attention and before feed-forward; 0 is none."""
    tied_head: bool = True
    """Use the token embedding as the last matrix too."""
    bias: bool = False
    """Biases in the dense layers."""
    dropout: float = 0.0
    """Part of the embedding's and of each sub-layer's outputs dropped in training, in [0, 1)."""

    def __post_init__(self) -> None:
        require_at_least_one("model", self, "layers", "heads", "feed_forward")
        require(
            self.convolution == 0 or self.convolution >= 2,
            "model.convolution must be 0 or at least 2",
            convolution=self.convolution,
        )
        require_heads_fit(self.width, self.heads)
        require(0 <= self.dropout < 1, "model.dropout must be in [0, 1)", dropout=self.dropout)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecurrentModel:
    """An embedding, stacked recurrent layers, and the embedding again as the head."""

    cell: Literal["rnn", "lstm", "gru"] = "lstm"
    """The layer: simple recurrence, long short-term memory, or gated recurrent unit."""
    layers: int = 2
    """Recurrent layers, at least 1."""
    units: int = 256
    """Units of each layer, at least 1."""
    embedding: int = 256
    """Size of a token's vector, at least 1; the last layer's output is projected to it where units
    differ."""
    dropout: float = 0.0
    """Part of the embedding's and of each layer's outputs dropped in training, in [0, 1)."""

    def __post_init__(self) -> None:
        require_at_least_one("model", self, "layers", "units", "embedding")
        require(0 <= self.dropout < 1, "model.dropout must be in [0, 1)", dropout=self.dropout)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextRecipe(Recipe):
    """A model that tells the next token."""

    metrics = ("validation_loss", "validation_perplexity", "validation_bits_per_character")

    data: TextData = TextData()
    training: TextTraining = TextTraining()
    init_from: str | None = None
    """Finished run with the same network: training starts from its weights and uses its vocabulary
    (None: fresh weights, a vocabulary of the text)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counted(self)

    def resolved(self, steps: int | None = None) -> Self:
        """Return the settings as `Recipe.resolved`, those of the text too."""
        data = self.data
        stride = data.evaluation_stride or data.block_size
        size = (data.vocabulary_size or DEFAULT_VOCABULARY_SIZE) if data.tokenizer == "bpe" else None
        return dataclasses.replace(
            super().resolved(steps),
            data=dataclasses.replace(data, evaluation_stride=stride, vocabulary_size=size),
        )

    def unresolved(self) -> Self:
        """Return the settings as `Recipe.unresolved`, those of the text too."""
        data = self.data
        stride = None if data.evaluation_stride == data.block_size else data.evaluation_stride
        size = None if data.vocabulary_size == DEFAULT_VOCABULARY_SIZE else data.vocabulary_size
        return dataclasses.replace(
            super().unresolved(),
            data=dataclasses.replace(data, evaluation_stride=stride, vocabulary_size=size),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerRecipe(TextRecipe):
    """A Transformer that tells the next token."""

    model: TransformerModel = TransformerModel()


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecurrentRecipe(TextRecipe):
    """A recurrent network that tells the next token."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            not self.data.stateful or self.batches.name == "fixed",
            "data.stateful goes on with the same windows: their number can't change",
            batches=self.batches.name,
        )

    data: StreamedTextData = StreamedTextData()
    model: RecurrentModel = RecurrentModel()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a token is drawn from what the model thinks of it."""

    temperature: float = 1.0
    """What logits are divided by, at least 0; 0 takes the likeliest token (greedy)."""
    top_k: int = 0
    """Draw from so many of the likeliest tokens only (Fan et al. 2018, arXiv:1805.04833); 0 for all."""
    top_p: float = 1.0
    """Draw from the likeliest tokens that hold this much of the probability together, in (0, 1],
    counted after top_k (Holtzman et al. 2020, arXiv:1904.09751)."""

    def __post_init__(self) -> None:
        require(
            0 <= self.temperature < float("inf"),
            "temperature must be above 0, or exactly 0 (greedy)",
            temperature=self.temperature,
        )
        require(self.top_k >= 0, "top_k must be at least 1, or 0 for all tokens", top_k=self.top_k)
        require(0 < self.top_p <= 1, "top_p must be in (0, 1]", top_p=self.top_p)
