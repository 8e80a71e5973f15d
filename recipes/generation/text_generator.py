"""Generate text from prompts with a language model, streamed as it is sampled.

python -m recipes generate runs/lm-transformer/latest --prompt "ROMEO:"
"""

import codecs
from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf

from recipes.config import Sampling, UserError, require, require_seed
from recipes.data.tokenizers import Tokenizer, read_vocabulary
from recipes.generation import decoding
from recipes.generation.decoding import LanguageModel
from recipes.generation.prompts import check_language_model
from recipes.models.saved import load_model
from recipes.runs.directory import Run

TOKENS_PER_YIELD = 8
"""Tokens that `TextGenerator.stream` samples before it yields them."""


def load(run: Run) -> tuple[LanguageModel, Tokenizer]:
    """Load a finished run's model and vocabulary.

    Raises:
        UserError: A run that is unfinished or of another kind, or a vocabulary that is not the model's.
    """
    check_language_model(run)
    model = load_model(run.model_path)
    return model, read_vocabulary(run.vocabulary_path, model.vocabulary_size)


class TextGenerator:
    """Continue prompts with a language model, whose weights may change between two calls.

    Args:
        model: The language model.
        tokenizer: Its tokenizer.
    """

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        ids, row = tf.TensorSpec((None, None), tf.int32), tf.TensorSpec((None,), tf.int32)
        self._read_prompts = tf.function(
            lambda ids, lengths: decoding.read_prompts(model, ids, lengths), input_signature=[ids, row]
        )
        self._generate_tokens = tf.function(
            lambda state, draws, *sampling: decoding.generate_tokens(model, state, draws, *sampling),
            reduce_retracing=True,
        )

    def stream(
        self, prompts: Sequence[str], *, max_new_tokens: int, sampling: Sampling, seed: int
    ) -> Iterator[list[str]]:
        """Generate a completion for each prompt.

        All are sampled with the same seed, so that no completion depends on the other prompts.

        Args:
            prompts: The prompts, of any lengths.
            max_new_tokens: Tokens to generate for each, at least 1.
            sampling: How tokens are sampled.
            seed: Seed of the draws, 0 to 2**32 - 1.

        Yields:
            The next few tokens of each completion, as text.

        Raises:
            UserError: An empty prompt, or characters that the vocabulary lacks.
        """
        require(max_new_tokens >= 1, "max_new_tokens must be at least 1", max_new_tokens=max_new_tokens)
        require_seed("seed", seed)
        if not all(prompts):
            raise UserError("The prompt is empty: at least one token is needed")
        rows = [self.tokenizer.encode(prompt) for prompt in prompts]
        ids = tf.constant(keras.utils.pad_sequences(rows, padding="post"))  # (batch, time)
        state = self._read_prompts(ids, tf.constant([len(row) for row in rows]))
        draws = decoding.uniform_draws(tf.constant([seed] * len(rows), tf.int64), max_new_tokens)
        settings = (
            tf.constant([sampling.temperature] * len(rows), tf.float32),
            tf.constant([sampling.top_k] * len(rows), tf.int32),
            tf.constant([sampling.top_p] * len(rows), tf.float32),
        )
        return self._stream(state, draws, settings)

    def generate(
        self, prompts: Sequence[str], *, max_new_tokens: int, sampling: Sampling, seed: int
    ) -> list[str]:
        """Return each prompt with its completion. Arguments and errors as in `stream`."""
        parts = self.stream(prompts, max_new_tokens=max_new_tokens, sampling=sampling, seed=seed)
        return ["".join(texts) for texts in zip(prompts, *parts, strict=True)]

    def _stream(
        self, state: decoding.State, draws: tf.Tensor, settings: tuple[tf.Tensor, ...]
    ) -> Iterator[list[str]]:
        decoders = [codecs.getincrementaldecoder("utf-8")("replace") for _ in range(draws.shape[0])]
        for start in range(0, draws.shape[1], TOKENS_PER_YIELD):
            stop = start + TOKENS_PER_YIELD
            tokens, state = self._generate_tokens(state, draws[:, start:stop], *settings)
            yield [
                decoder.decode(
                    b"".join(self.tokenizer.tokens[token] for token in row), stop >= draws.shape[1]
                )
                for decoder, row in zip(decoders, tokens.numpy(), strict=True)
            ]
