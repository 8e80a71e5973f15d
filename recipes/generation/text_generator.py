"""Generate text from prompts with a language model, streamed as it is sampled.

python -m recipes generate runs/lm-transformer/latest --prompt "ROMEO:"
"""

import codecs
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from recipes.config import Sampling, UserError, require, require_seed
from recipes.data.tokenizers import Tokenizer, read_vocabulary
from recipes.generation import decoding as generation
from recipes.models.recurrent import RecurrentLanguageModel
from recipes.models.saved import load_model
from recipes.models.transformer import TransformerLanguageModel
from recipes.runs.directory import Run

LanguageModel = TransformerLanguageModel | RecurrentLanguageModel

TOKENS_AT_ONCE = 8
"""Tokens that are sampled between two yields of `stream`."""


def load(run: Run) -> tuple[LanguageModel, Tokenizer]:
    """Load a finished run's model and vocabulary.

    Raises:
        UserError: An unfinished run, one of another kind, or a vocabulary that is not the model's.
    """
    if "tokenizer" not in run.metrics:
        raise UserError(f"{run.path} is not a language model: it is a run of {run.config['recipe']}")
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
        self._begin = tf.function(
            lambda ids, lengths: generation.begin(model, ids, lengths), input_signature=[ids, row]
        )
        self._extend = tf.function(
            lambda state, draws, *sampling: generation.extend(model, state, draws, *sampling),
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
        rows = [self._encode(prompt) for prompt in prompts]
        ids = np.zeros((len(rows), max(map(len, rows))), np.int32)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = row
        each = np.ones(len(rows))
        chosen = (
            tf.constant(each * sampling.temperature, tf.float32),
            tf.constant(each * sampling.top_k, tf.int32),
            tf.constant(each * sampling.top_p, tf.float32),
        )
        draws = generation.uniform_draws(tf.constant([seed] * len(rows), tf.int64), max_new_tokens)
        state = self._begin(tf.constant(ids), tf.constant([len(row) for row in rows]))
        return self._stream(state, draws, chosen)

    def generate(
        self, prompts: Sequence[str], *, max_new_tokens: int, sampling: Sampling, seed: int
    ) -> list[str]:
        """Return each prompt with its completion. Arguments and errors as in `stream`."""
        parts = self.stream(prompts, max_new_tokens=max_new_tokens, sampling=sampling, seed=seed)
        return ["".join(texts) for texts in zip(prompts, *parts, strict=True)]

    def _encode(self, prompt: str) -> npt.NDArray[np.int32]:
        if not prompt:
            raise UserError("The prompt is empty: at least one token is needed")
        return self.tokenizer.encode(prompt)

    def _stream(self, state: Any, draws: Any, sampling: tuple[Any, ...]) -> Iterator[list[str]]:
        decoders = [codecs.getincrementaldecoder("utf-8")("replace") for _ in range(draws.shape[0])]
        for first in range(0, draws.shape[1], TOKENS_AT_ONCE):
            tokens, state = self._extend(state, draws[:, first : first + TOKENS_AT_ONCE], *sampling)
            last = first + TOKENS_AT_ONCE >= draws.shape[1]
            yield [
                decoder.decode(b"".join(self.tokenizer.tokens[token] for token in row), last)
                for decoder, row in zip(decoders, tokens.numpy(), strict=True)
            ]
