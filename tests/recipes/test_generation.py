"""Sampling from known probabilities, and generation with and without the cache."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from recipes.config import Sampling, UserError
from recipes.data.tokenizers import ByteTokenizer, CharacterTokenizer
from recipes.generation import decoding
from recipes.generation.text_generator import TextGenerator
from tests.recipes.test_language_models import BLOCK, MODELS, VOCABULARY, build


def rows(values, kind):
    return tf.constant(values, kind)


def chosen(probabilities, draws, *, temperature=1.0, top_k=0, top_p=1.0) -> list[int]:
    count = len(draws)
    logits = tf.math.log(tf.constant([probabilities] * count))
    return (
        decoding.sample(
            logits,
            rows(draws, tf.float32),
            rows([temperature] * count, tf.float32),
            rows([top_k] * count, tf.int32),
            rows([top_p] * count, tf.float32),
        )
        .numpy()
        .tolist()
    )


def test_draws_choose_tokens_in_order_of_probability():
    assert chosen([0.2, 0.5, 0.3], [0.0, 0.49, 0.51, 0.79, 0.81, 0.9999999]) == [1, 1, 2, 2, 0, 0]


def test_zero_and_low_temperatures_are_greedy():
    assert chosen([0.2, 0.5, 0.3], [0.99], temperature=0.0) == [1]
    assert chosen([0.2, 0.5, 0.3], [0.99], temperature=0.01) == [1]
    assert chosen([0.2, 0.5, 0.3], [0.99], temperature=1e-38) == [1]
    # p^(1/2), normalised: .282, .445, .345 → .415 .322 .263 in order
    assert chosen([0.2, 0.5, 0.3], [0.41, 0.42, 0.73, 0.75], temperature=2.0) == [1, 2, 2, 0]


def test_top_k_and_then_top_p_remove_unlikely_tokens():
    assert chosen([0.2, 0.5, 0.3], [0.62, 0.63, 0.999], top_k=2) == [1, 2, 2]
    assert chosen([0.2, 0.5, 0.3], [0.999], top_k=1) == [1]
    assert chosen([0.2, 0.5, 0.3], [0.999], top_p=0.5) == [1]
    assert chosen([0.2, 0.5, 0.3], [0.999], top_p=0.51) == [2]
    assert chosen([0.2, 0.5, 0.3], [0.999], top_k=2, top_p=0.62) == [1]  # 0.625 of the rest after top_k
    assert chosen([0.2, 0.5, 0.3], [0.999], top_k=99) == [0]


def test_no_token_is_lost_to_rounding():
    """20,000 tokens share 0.001, each with a probability that float32 can't add to 0.999."""
    probabilities = np.float32([0.999, *[5e-8] * 20_000])
    half, last = chosen(probabilities, [0.9995, 1 - 2**-24], top_p=1.0)
    assert half == pytest.approx(10_000, abs=30)
    assert last == pytest.approx(20_000, abs=2)
    # top_p keeps half of them.
    assert chosen(probabilities, [1 - 2**-24], top_p=0.9995) == [pytest.approx(10_000, abs=30)]


def test_frequencies_are_the_probabilities():
    draws = decoding.uniform_draws(tf.constant([7], tf.int64), 20_000)[0]
    counts = np.bincount(chosen([0.2, 0.5, 0.3], draws.numpy()), minlength=3) / 20_000
    np.testing.assert_allclose(counts, [0.2, 0.5, 0.3], atol=0.01)


def test_a_smaller_count_gives_the_first_draws_of_the_same_seed():
    more = decoding.uniform_draws(tf.constant([3, 5, 2**60], tf.int64), 100).numpy()
    for count in (1, 7, 64, 99):
        fewer = decoding.uniform_draws(tf.constant([5], tf.int64), count).numpy()
        np.testing.assert_array_equal(fewer[0], more[1, :count])
    assert len(np.unique(more[:, 0])) == 3


@pytest.mark.parametrize(("length", "start"), [(1, 0), (8, 0), (9, 4), (12, 4), (13, 8), (16, 8), (17, 12)])
def test_the_window_moves_by_half_its_size(length, start):
    assert decoding.window_starts(tf.constant([length]), 8).numpy().tolist() == [start]
    assert length - start <= 8
    assert start == 0 or length - start > 4


def without_cache(model, prompt: list[int], tokens: list[int]) -> list[int]:
    """Return the likeliest token in the place of each of the tokens, computed from the whole window before it."""
    ids, ends = prompt + tokens, len(prompt) + np.arange(len(tokens))
    starts = decoding.window_starts(tf.constant(ends), model.window).numpy() if model.window else 0 * ends
    windows = np.zeros((len(tokens), max(BLOCK, *(ends - starts))), np.int32)
    for window, start, end in zip(windows, starts, ends, strict=True):
        window[: end - start] = ids[start:end]
    logits = keras.ops.convert_to_numpy(model(windows))  # (window, position, vocabulary)
    return logits[np.arange(len(tokens)), ends - starts - 1].argmax(axis=1).tolist()


def greedy(model, prompts: list[list[int]], count: int) -> np.ndarray:
    ids = np.zeros((len(prompts), max(map(len, prompts))), np.int32)
    for number, prompt in enumerate(prompts):
        ids[number, : len(prompt)] = prompt
    each = np.ones(len(prompts))
    state = decoding.read_prompts(model, tf.constant(ids), tf.constant([len(prompt) for prompt in prompts]))
    sampling = (rows(0 * each, tf.float32), rows(0 * each, tf.int32), rows(each, tf.float32))
    return decoding.generate_tokens(model, state, tf.zeros((len(prompts), count)), *sampling)[0].numpy()


FAST = ("best", "lstm")  # a Transformer with all its options, and a state of two arrays


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]
)
def test_greedy_tokens_are_the_same_with_and_without_the_cache(name):
    model = build(name)
    prompts = [
        [1],
        [3, 1, 4, 1, 5],
        list(range(BLOCK)),
        [number % VOCABULARY for number in range(3 * BLOCK + 1)],
    ]
    together = greedy(model, prompts, 4 * BLOCK)
    for prompt, row in zip(prompts, together, strict=True):
        assert row.tolist() == without_cache(model, prompt, row.tolist())
        assert greedy(model, [prompt], 4 * BLOCK)[0].tolist() == row.tolist()


@pytest.fixture(scope="module")
def generator() -> TextGenerator:
    return TextGenerator(build("best"), CharacterTokenizer("abcdefghijk"))


def test_streamed_text_is_the_generated_text_and_depends_on_the_seed(generator):
    sampling = Sampling(temperature=0.9, top_k=5, top_p=0.95)
    parts = list(generator.stream(["abc", "k"], max_new_tokens=21, sampling=sampling, seed=1))
    assert [len(part[0]) for part in parts] == [8, 8, 5]
    whole = generator.generate(["abc", "k"], max_new_tokens=21, sampling=sampling, seed=1)
    assert whole == ["abc" + "".join(part[0] for part in parts), "k" + "".join(part[1] for part in parts)]
    assert generator.generate(["k"], max_new_tokens=21, sampling=sampling, seed=1) == whole[1:]
    assert generator.generate(["k"], max_new_tokens=21, sampling=sampling, seed=2) != whole[1:]
    assert generator.generate(["k"], max_new_tokens=10, sampling=sampling, seed=1)[0] == whole[1][:11]


def test_incomplete_characters_wait_for_their_bytes(monkeypatch):
    tokens = iter([list("ab€".encode()), [0xE2, 0x82], [0xAC, 0xFF], [0xC3]])
    generator = TextGenerator(build("best"), ByteTokenizer())
    monkeypatch.setattr(generator, "_read_prompts", lambda ids, lengths: None)
    monkeypatch.setattr(generator, "_generate_tokens", lambda state, *_: (tf.constant([next(tokens)]), state))
    parts = generator.stream(["x"], max_new_tokens=32, sampling=Sampling(), seed=0)
    assert [part[0] for part in parts] == ["ab€", "", "€\ufffd", "\ufffd"]


@pytest.mark.parametrize(
    ("prompts", "message"), [([""], "prompt is empty"), (["abc", "xyz"], "lacks 'x' 'y' 'z'. It has 'a' 'b'")]
)
def test_invalid_prompts_are_refused(generator, prompts, message):
    with pytest.raises(UserError, match=message):
        generator.stream(prompts, max_new_tokens=5, sampling=Sampling(), seed=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -0.1}, "temperature must be at least 0. Received: temperature=-0.1"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"temperature": float("inf")}, "temperature=inf"),
        ({"top_p": 0.0}, r"top_p must be in \(0, 1\]. Received: top_p=0.0"),
        ({"top_p": 1.1}, "top_p=1.1"),
        ({"top_k": -1}, "top_k=-1"),
    ],
)
def test_sampling_out_of_range_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        Sampling(**settings)
