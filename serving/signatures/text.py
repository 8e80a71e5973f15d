"""The signatures of a language model: strings as inputs and outputs, tokenizer and sampling loop in the graph."""

import tensorflow as tf

from recipes.config import Sampling
from recipes.data.tokenizers import Tokenizer
from recipes.generation import decoding
from recipes.generation.decoding import LanguageModel
from serving.signatures import text_steps
from serving.signatures.guards import Tensor, guard, guard_batch, guard_finite
from serving.signatures.tokenizers import decode, guard_text, in_graph

MAX_ROWS = 64
"""Texts of a request: a Transformer of the catalog needs 1 to 2 MB of memory for each prompt."""
MAX_TEXT_BYTES = 2**16
"""Bytes of one text."""
MAX_BYTES = 2**17
"""Bytes of all texts of a request."""
MAX_NEW_TOKENS = 4096
"""Tokens to generate for one text."""
MAX_NEW_TOKENS_OF_ALL = 2**16
"""Rows × the largest `max_new_tokens` of a request: more would occupy a thread of the server for minutes."""
MAX_TOKENS_READ = 2**14
"""Rows × the tokens of the longest text, for a recurrent model, which stores its state at each of them."""
DEFAULT_NEW_TOKENS = 200
DEFAULT_SAMPLING = Sampling(temperature=0.8)


def limits_of(model: LanguageModel) -> dict[str, int]:
    """Return the limits of a request, by name."""
    limits = {
        "rows": MAX_ROWS,
        "bytes_per_text": MAX_TEXT_BYTES,
        "bytes": MAX_BYTES,
        "new_tokens_per_text": MAX_NEW_TOKENS,
        "new_tokens": MAX_NEW_TOKENS_OF_ALL,
    }
    return limits if model.window else {**limits, "rows_x_tokens": MAX_TOKENS_READ}


def _row(kind: tf.DType, name: str) -> tf.TensorSpec:
    return tf.TensorSpec((None,), kind, name=name)


GENERATE_INPUTS = [
    _row(tf.string, "prompt"),
    _row(tf.int32, "max_new_tokens"),
    _row(tf.float32, "temperature"),
    _row(tf.int32, "top_k"),
    _row(tf.float32, "top_p"),
    _row(tf.int64, "seed"),
]


def language_model(model: LanguageModel, tokenizer: Tokenizer) -> tf.Module:
    """Wrap a language model for serving.

    Args:
        model: The model.
        tokenizer: Its tokenizer.

    Returns:
        A module with a function for each signature, and those of `text_steps`. Every input and output of a
        signature is (n,), and no row depends on another:

        - `serving_default` takes `prompt` string and returns `text` string: the prompt and 200 new
          tokens, at temperature 0.8 and seed 0;
        - `generate` also takes `max_new_tokens` int32 (1 to 4096), `temperature` float32 (0 is
          greedy), `top_k` int32 (0 is all), `top_p` float32 in (0, 1] and `seed` int64;
        - `score` takes `text` string and returns `log_likelihood` float32, in nats, of all its tokens
          except the first, and `token_count` int32, their number. Each token has the same context
          as in generation.

        All of them take 1 to MAX_ROWS texts, within the other limits of `limits_of`.
    """
    module = tf.Module()
    # Only the variables are tracked: with the Keras model every weight would be stored twice (keras#23553).
    module.weights = [variable.value for variable in model.variables]
    graph_tokenizer = in_graph(tokenizer)

    def encode(texts: Tensor) -> tuple[Tensor, Tensor]:
        texts = guard_text(texts, MAX_TEXT_BYTES, MAX_BYTES)
        ids = graph_tokenizer.encode(texts)
        padded, lengths = ids.to_tensor(), tf.cast(ids.row_lengths(), tf.int32)  # (n, time), (n,)
        if model.window is None:
            padded = guard(
                padded,
                tf.size(padded) <= MAX_TOKENS_READ,
                f"rows x tokens of the longest text must be at most {MAX_TOKENS_READ}. Received:",
                tf.shape(padded),
            )
        return padded, lengths

    def read(prompt: Tensor, *settings: Tensor) -> tuple[Tensor, ...]:
        """Check a request; return its prompts, their lengths, counts of new tokens, sampling, draws and the state."""
        prompt = guard_batch(tf.ensure_shape(prompt, (None,)), MAX_ROWS)
        counts, *sampling, seed = _guard_rows(prompt, *settings)
        with tf.control_dependencies([counts, *sampling, seed]):  # refuse before any computation
            prompt = tf.identity(prompt)
        ids, lengths = encode(prompt)
        draws = decoding.uniform_draws(seed, tf.reduce_max(counts))
        return prompt, lengths, counts, sampling, draws, decoding.read_prompts(model, ids, lengths)

    @tf.function(input_signature=GENERATE_INPUTS)
    def generate(
        prompt: Tensor,
        max_new_tokens: Tensor,
        temperature: Tensor,
        top_k: Tensor,
        top_p: Tensor,
        seed: Tensor,
    ) -> dict[str, Tensor]:
        inputs = (prompt, max_new_tokens, temperature, top_k, top_p, seed)
        prompt, _, counts, sampling, draws, state = read(*inputs)
        tokens, _ = decoding.generate_tokens(model, state, draws, *sampling)
        text = prompt + decode(list(tokenizer.tokens), tokens, counts)
        valid = tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", replace_control_characters=False)
        return {"text": tf.identity(valid, "text")}

    @tf.function(input_signature=[_row(tf.string, "prompt")])
    def serving_default(prompt: Tensor) -> dict[str, Tensor]:
        prompt = guard_batch(tf.ensure_shape(prompt, (None,)), MAX_ROWS)
        rows, sampling = tf.shape(prompt)[:1], DEFAULT_SAMPLING
        return generate(
            prompt,
            tf.fill(rows, DEFAULT_NEW_TOKENS),
            tf.fill(rows, sampling.temperature),
            tf.fill(rows, sampling.top_k),
            tf.fill(rows, sampling.top_p),
            tf.zeros(rows, tf.int64),
        )

    @tf.function(input_signature=[_row(tf.string, "text")])
    def score(text: Tensor) -> dict[str, Tensor]:
        ids, lengths = encode(guard_batch(tf.ensure_shape(text, (None,)), MAX_ROWS))
        # One text after the other: this needs the memory of one window, and pads no text to the longest.
        likelihood = tf.map_fn(
            lambda text: log_likelihood(model, text[0][None, : text[1]], text[1][None])[0],
            (ids, lengths),
            fn_output_signature=tf.float32,
            parallel_iterations=1,
        )
        return {
            "log_likelihood": tf.identity(likelihood, "log_likelihood"),
            "token_count": tf.identity(lengths - 1, "token_count"),
        }

    module.serving_default, module.generate, module.score = serving_default, generate, score
    module.read_prompts, module.next_tokens = text_steps.functions(model, tokenizer, read, GENERATE_INPUTS)
    return module


def _guard_rows(prompt: Tensor, *settings: Tensor) -> tuple[Tensor, ...]:
    """Refuse settings whose number is not that of the prompts, or that are out of range."""
    rows = tf.shape(prompt)[0]
    settings = tuple(
        guard(
            tf.ensure_shape(values, (None,)),
            tf.shape(values)[0] == rows,
            "all inputs must have as many values. Received:",
            tf.shape(values)[0],
            rows,
        )
        for values in settings
    )
    counts, temperature, top_k, top_p, seed = settings
    counts = guard(
        counts,
        (counts >= 1) & (counts <= MAX_NEW_TOKENS),
        f"max_new_tokens must be 1 to {MAX_NEW_TOKENS}. Received:",
        counts,
    )
    counts = guard(
        counts,
        rows * tf.reduce_max(counts) <= MAX_NEW_TOKENS_OF_ALL,  # at most 64 × 4096: no overflow
        f"rows x max_new_tokens must be at most {MAX_NEW_TOKENS_OF_ALL}. Received:",
        rows,
        tf.reduce_max(counts),
    )
    temperature = guard(
        guard_finite(temperature),
        temperature >= 0,
        "temperature must be above 0, or exactly 0 (greedy). Received:",
        temperature,
    )
    top_k = guard(top_k, top_k >= 0, "top_k must be at least 1, or 0 for all tokens. Received:", top_k)
    top_p = guard(
        guard_finite(top_p), (top_p > 0) & (top_p <= 1), "top_p must be in (0, 1]. Received:", top_p
    )
    return counts, temperature, top_k, top_p, seed


def log_likelihood(model: LanguageModel, ids: Tensor, lengths: Tensor) -> Tensor:
    """Return the log-likelihood of each row's tokens except the first, in nats, float32 (n,).

    Args:
        model: The model; one with a window reads the text in windows that overlap by half, and each
            token is scored in the window that generation would use.
        ids: int32 (n, time).
        lengths: int32 (n,).
    """
    if model.window is None:
        return _of_window(model, tf.pad(ids, [[0, 0], [0, 1]]), lengths, 1)  # at least one token
    size = model.window
    hop = decoding.window_stride(size)
    count = 1 + decoding.window_starts(tf.reduce_max(lengths), size) // hop
    ids = tf.pad(ids, [[0, 0], [0, size + 1]])

    def add(number: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        start = number * hop
        window = tf.ensure_shape(ids[:, start : start + size + 1], (None, size + 1))
        first = tf.where(number == 0, 1, size - hop + 1)
        return number + 1, total + _of_window(model, window, lengths - start, first)

    nothing = tf.zeros(tf.shape(lengths))
    return tf.while_loop(lambda number, _: number < count, add, (0, nothing))[1]


def _of_window(model: LanguageModel, ids: Tensor, lengths: Tensor, first: Tensor) -> Tensor:
    """Return the log-likelihood of a window's tokens from `first` to the length of each row."""
    logits = model(ids[:, :-1])  # (n, time - 1, vocabulary_size)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(ids[:, 1:], logits)
    place = tf.range(1, tf.shape(ids)[1])
    scored = (place >= first) & (place < lengths[:, None])
    return -tf.reduce_sum(tf.where(scored, losses, 0.0), axis=1)
