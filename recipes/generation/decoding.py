"""Tokens one after the other from a language model, each from what was computed for those before it.

`begin` reads prompts, `extend` adds tokens in a loop of TensorFlow's own, which a SavedModel can hold.
Nothing in a row depends on the other rows.

Beyond the window: a Transformer sees at most `window` tokens. When they are full and one more comes,
the older half is dropped and the rest is read again from place 0. So every token is told from at least
half a window, at places the model was trained on, whatever its kind of positions; and the same text
has the same windows whether it was given or generated. A recurrent model forgets by itself instead.

    state = begin(model, ids, lengths)
    tokens, state = extend(model, state, draws, temperature, top_k, top_p)   # as often as wanted
"""

from typing import Any, NamedTuple, Protocol

import tensorflow as tf

Tensor = Any


class LanguageModel(Protocol):
    """What a model offers for generation: `TransformerLanguageModel` and `RecurrentLanguageModel` do."""

    window: int | None
    vocabulary_size: int

    def begin(self, ids: Tensor, lengths: Tensor) -> tuple[Tensor, Any]:
        """Read the beginning of texts: logits of the next token, and a state."""

    def step(self, ids: Tensor, places: Tensor, states: Any) -> tuple[Tensor, Any]:
        """Read one more token of each text: logits of the next one, and a state."""


class State(NamedTuple):
    """What generation goes on from.

    Attributes:
        logits: Of each row's next token, (batch, vocabulary_size).
        model: The model's own state.
        window: Tokens it sees, int32 (batch, window); (batch, 0) for a model without a window.
        places: How many of them there are, int32 (batch,).
    """

    logits: Tensor
    model: Any
    window: Tensor
    places: Tensor


def begin(model: LanguageModel, ids: Tensor, lengths: Tensor) -> State:
    """Read prompts.

    Args:
        model: The model.
        ids: int32 (batch, time), each row's tokens first; what is past its length is not looked at.
        lengths: int32 (batch,), at least 1.
    """
    if model.window is None:
        logits, state = model.begin(ids, lengths)
        return State(logits, state, ids[:, :0], lengths)
    starts = window_starts(lengths, model.window)
    places = lengths - starts
    index = tf.minimum(starts[:, None] + tf.range(model.window), tf.shape(ids)[1] - 1)
    window = tf.gather(ids, index, axis=1, batch_dims=1)  # (batch, window)
    logits, state = model.begin(window, places)
    return State(logits, state, window, places)


def window_hop(window: int) -> int:
    """Return how many tokens a full window drops: half of them, the odd one included."""
    return window - window // 2


def window_starts(lengths: Tensor, window: int) -> Tensor:
    """Return where the window of the next token begins in a text of each length.

    It is the first multiple of half a window from which the rest of the text fits into one.
    """
    half = window_hop(window)
    return tf.maximum(lengths - window + half - 1, 0) // half * half


def extend(
    model: LanguageModel, state: State, draws: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor
) -> tuple[Tensor, State]:
    """Add tokens.

    Args:
        model: The model.
        state: Where to go on.
        draws: float32 (batch, count) in [0, 1): what each token is drawn by. See `uniform_draws`.
        temperature: float32 (batch,), see `config.Sampling`.
        top_k: int32 (batch,).
        top_p: float32 (batch,).

    Returns:
        int32 (batch, count), and the state after them.
    """
    count = tf.shape(draws)[1]
    tokens = tf.TensorArray(tf.int32, size=count, element_shape=state.places.shape)

    def add(number: Tensor, tokens: tf.TensorArray, state: State) -> tuple[Tensor, tf.TensorArray, State]:
        chosen = choose(state.logits, draws[:, number], temperature, top_k, top_p)
        return number + 1, tokens.write(number, chosen), advance(model, state, chosen)

    _, tokens, state = tf.while_loop(
        lambda number, *_: number < count, add, (0, tokens, state), parallel_iterations=1
    )
    return tf.transpose(tokens.stack()), state


def advance(model: LanguageModel, state: State, ids: Tensor) -> State:
    """Read one more token of each row, int32 (batch,)."""
    if model.window is None:
        logits, inner = model.step(ids, state.places, state.model)
        return State(logits, inner, state.window, state.places + 1)
    size = model.window
    full = state.places == size  # (batch,)
    hop = window_hop(size)
    rolled = tf.roll(state.window, -hop, axis=1)
    window = tf.where(full[:, None], rolled, state.window)
    places = tf.where(full, size - hop, state.places)
    window = tf.where(tf.range(size) == places[:, None], ids[:, None], window)
    logits, inner = model.step(ids, places, state.model)

    def read_again() -> tuple[Tensor, Any]:
        fresh = model.begin(window, places + 1)
        return tf.nest.map_structure(
            lambda new, old: tf.where(_like(full, new), new, old), fresh, (logits, inner)
        )

    logits, inner = tf.cond(tf.reduce_any(full), read_again, lambda: (logits, inner))
    return State(logits, inner, window, places + 1)


def _like(rows: Tensor, values: Tensor) -> Tensor:
    """Give (batch,) as many dimensions as values have."""
    return tf.reshape(rows, [-1] + [1] * (len(values.shape) - 1))


def choose(logits: Tensor, draws: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """Draw a token from each row.

    The tokens are put in the order of their probabilities, those that top_k and top_p leave out are
    dropped, and the one is taken in whose part of what is left the draw falls.

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
    # From the highest logit down, so that a tiny temperature does not overflow.
    ranked = tf.gather(wide - tf.reduce_max(wide, axis=1, keepdims=True), order, batch_dims=1)
    allowed = tf.range(size) < tf.where(top_k > 0, top_k, size)[:, None]
    probabilities = tf.nn.softmax(tf.where(allowed, ranked / safe[:, None], -float("inf")), axis=1)
    before = tf.cumsum(probabilities, axis=1, exclusive=True)
    kept = tf.where((before < top_p[:, None]) | (top_p[:, None] >= 1), probabilities, 0.0)
    reached = tf.cumsum(kept, axis=1)
    rank = tf.reduce_sum(tf.cast(reached <= draws[:, None] * reached[:, -1:], tf.int32), axis=1)
    last = tf.reduce_sum(tf.cast(kept > 0, tf.int32), axis=1) - 1  # rounding must not go beyond it
    drawn = tf.gather(order, tf.minimum(rank, last), batch_dims=1)
    return tf.where(temperature > 0, drawn, greedy)


def uniform_draws(seeds: Tensor, count: Tensor) -> Tensor:
    """Return `count` numbers in [0, 1) for each seed, float32 (batch, count); fewer are the first of more."""

    def of_one(seed: Tensor) -> Tensor:
        return tf.random.stateless_uniform([count], tf.stack([seed, tf.zeros_like(seed)]), alg="philox")

    return tf.map_fn(of_one, seeds, fn_output_signature=tf.TensorSpec([None], tf.float32))
