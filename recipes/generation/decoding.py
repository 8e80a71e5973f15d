"""Generate tokens with a language model and its cache, inside a TensorFlow graph that a SavedModel can hold.

    state = read_prompts(model, ids, lengths)
    tokens, state = generate_tokens(model, state, draws, temperature, top_k, top_p)  # repeat for more tokens

The rows of a batch do not depend on each other.

A Transformer sees at most `window` tokens. When its window is full, the older half is dropped and the other half is read
again from position 0. So each token is predicted from at least half a window, at positions that the model was trained
on, with any kind of position encoding; and a text has the same windows whether it was given or generated. A recurrent
model has no window.
"""

from typing import Any, NamedTuple

import tensorflow as tf

from recipes.models.recurrent import RecurrentLanguageModel
from recipes.models.transformer import TransformerLanguageModel

LanguageModel = TransformerLanguageModel | RecurrentLanguageModel


class State(NamedTuple):
    """A batch of texts from which tokens are generated.

    Attributes:
        logits: Logits of each row's next token, (batch, vocabulary_size).
        model: The model's own state.
        window: Tokens in the window, int32 (batch, window); (batch, 0) for a model without a window.
        lengths: Number of tokens in the window, or in the text for a model without one, int32 (batch,).
    """

    logits: tf.Tensor
    model: Any
    window: tf.Tensor
    lengths: tf.Tensor


def read_prompts(model: LanguageModel, ids: tf.Tensor, lengths: tf.Tensor) -> State:
    """Return the state after prompts.

    Args:
        model: The model.
        ids: int32 (batch, time); ids beyond a row's length are ignored.
        lengths: int32 (batch,), at least 1.
    """
    if model.window is None:
        logits, state = model.begin(ids, lengths)
        return State(logits, state, ids[:, :0], lengths)
    starts = window_starts(lengths, model.window)
    index = tf.minimum(starts[:, None] + tf.range(model.window), tf.shape(ids)[1] - 1)
    window = tf.gather(ids, index, axis=1, batch_dims=1)  # (batch, window)
    logits, state = model.begin(window, lengths - starts)
    return State(logits, state, window, lengths - starts)


def window_stride(window: int) -> int:
    """Return the number of tokens that a full window drops: half of them, rounded up."""
    return window - window // 2


def window_starts(lengths: tf.Tensor, window: int) -> tf.Tensor:
    """Return where the window of the next token starts in a text of each length.

    It is the smallest multiple of the stride from which the rest of the text fits into a window.
    """
    stride = window_stride(window)
    return tf.maximum(lengths - window + stride - 1, 0) // stride * stride


def generate_tokens(
    model: LanguageModel,
    state: State,
    draws: tf.Tensor,
    temperature: tf.Tensor,
    top_k: tf.Tensor,
    top_p: tf.Tensor,
) -> tuple[tf.Tensor, State]:
    """Generate the next tokens of each row.

    Args:
        model: The model.
        state: The texts so far.
        draws: float32 (batch, count) in [0, 1), a random number for each token: see `uniform_draws`.
        temperature: float32 (batch,), see `config.Sampling`.
        top_k: int32 (batch,).
        top_p: float32 (batch,).

    Returns:
        int32 (batch, count), and the state after them.
    """
    count = tf.shape(draws)[1]
    tokens = tf.TensorArray(tf.int32, size=count, element_shape=state.lengths.shape)

    def add(number: tf.Tensor, tokens: tf.TensorArray, state: State) -> tuple[Any, tf.TensorArray, State]:
        ids, state = next_token(model, state, draws[:, number], temperature, top_k, top_p)
        return number + 1, tokens.write(number, ids), state

    _, tokens, state = tf.while_loop(
        lambda number, *_: number < count, add, (0, tokens, state), parallel_iterations=1
    )
    return tf.transpose(tokens.stack()), state


def next_token(
    model: LanguageModel,
    state: State,
    draws: tf.Tensor,
    temperature: tf.Tensor,
    top_k: tf.Tensor,
    top_p: tf.Tensor,
) -> tuple[tf.Tensor, State]:
    """Generate one token of each row: as `generate_tokens`, with draws (batch,) and int32 (batch,)."""
    ids = sample(state.logits, draws, temperature, top_k, top_p)
    return ids, _read_token(model, state, ids)


def _read_token(model: LanguageModel, state: State, ids: tf.Tensor) -> State:
    """Return the state after one more token of each row, int32 (batch,)."""
    if model.window is None:
        logits, inner = model.step(ids, state.lengths, state.model)
        return State(logits, inner, state.window, state.lengths + 1)
    size, stride = model.window, window_stride(model.window)
    full = state.lengths == size  # (batch,)
    window = tf.where(full[:, None], tf.roll(state.window, -stride, axis=1), state.window)
    position = tf.where(full, size - stride, state.lengths)
    window = tf.where(tf.range(size) == position[:, None], ids[:, None], window)
    logits, inner = model.step(ids, position, state.model)

    def read_again() -> tuple[tf.Tensor, Any]:
        rows = tf.where(full)  # (rows with a full window, 1)
        return tf.nest.map_structure(
            lambda old, new: tf.tensor_scatter_nd_update(old, rows, new),
            (logits, inner),
            model.begin(tf.gather_nd(window, rows), tf.gather_nd(position, rows) + 1),
        )

    logits, inner = tf.cond(tf.reduce_any(full), read_again, lambda: (logits, inner))
    return State(logits, inner, window, position + 1)


def sample(
    logits: tf.Tensor, draws: tf.Tensor, temperature: tf.Tensor, top_k: tf.Tensor, top_p: tf.Tensor
) -> tf.Tensor:
    """Sample a token of each row by inverse transform sampling.

    The tokens are sorted by probability, top_k and top_p remove the least likely, and the sampled token is the first
    whose cumulative share of the remaining probability exceeds the draw.

    Args:
        logits: (batch, vocabulary_size).
        draws: (batch,) in [0, 1).
        temperature: (batch,), see `config.Sampling`.
        top_k: (batch,).
        top_p: (batch,).

    Returns:
        int32 (batch,).
    """
    size = tf.shape(logits)[1]
    greedy = tf.argmax(logits, axis=1, output_type=tf.int32)
    order = tf.argsort(logits, axis=1, direction="DESCENDING", stable=True)  # (batch, vocabulary_size)
    # In float32 an unlikely token is lost in a sum near 1.
    wide, draws, top_p = (tf.cast(values, tf.float64) for values in (logits, draws, top_p))
    safe = tf.cast(tf.where(temperature > 0, temperature, 1.0), tf.float64)
    # Relative to the highest logit, so that a tiny temperature does not overflow.
    ranked = tf.gather(wide - tf.reduce_max(wide, axis=1, keepdims=True), order, batch_dims=1)
    allowed = tf.range(size) < tf.where(top_k > 0, top_k, size)[:, None]
    probabilities = tf.nn.softmax(tf.where(allowed, ranked / safe[:, None], -float("inf")), axis=1)
    before = tf.cumsum(probabilities, axis=1, exclusive=True)
    kept = tf.where((before < top_p[:, None]) | (top_p[:, None] >= 1), probabilities, 0.0)
    cumulative = tf.cumsum(kept, axis=1)
    rank = tf.reduce_sum(tf.cast(cumulative <= draws[:, None] * cumulative[:, -1:], tf.int32), axis=1)
    last = tf.reduce_sum(tf.cast(kept > 0, tf.int32), axis=1) - 1  # rounding must not exceed it
    sampled = tf.gather(order, tf.minimum(rank, last), batch_dims=1)
    return tf.where(temperature > 0, sampled, greedy)


def uniform_draws(seeds: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Return `count` numbers in [0, 1) for each seed, float32 (batch, count); a smaller count gives the first of them."""

    def of_seed(seed: tf.Tensor) -> tf.Tensor:
        return tf.random.stateless_uniform([count], tf.stack([seed, tf.zeros_like(seed)]), alg="philox")

    return tf.map_fn(of_seed, seeds, fn_output_signature=tf.TensorSpec([None], tf.float32))
