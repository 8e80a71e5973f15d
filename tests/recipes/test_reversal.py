"""The encoder-decoder and its sequences."""

import dataclasses
import itertools

import keras
import numpy as np
import pytest

from recipes import sequence_to_sequence as reversal
from recipes.catalog import CATALOG
from recipes.config import Optimizer, ReversalData, SequenceRecipe, TextTraining, UserError
from recipes.data.sequences import (
    END,
    PADDING,
    START,
    draw_reversals,
    held_out_reversals,
    training_reversals,
)
from recipes.models.encoder_decoder import EncoderDecoder
from recipes.tasks import task_of, task_of_run
from tests.recipes.sizes import fixed_sizes


def test_sequences_are_mirrored_and_padded():
    data = ReversalData(symbols=5, shortest=1, longest=4)
    drawn = draw_reversals(200, data, np.random.default_rng(0))
    for source, target, previous in zip(drawn.source, drawn.target, drawn.previous, strict=True):
        symbols = source[source != PADDING]
        assert 1 <= len(symbols) <= 4
        assert symbols.min() >= 3
        assert symbols.max() < 8
        np.testing.assert_array_equal(target, [*symbols[::-1], END, *[PADDING] * (4 - len(symbols))])
        np.testing.assert_array_equal(previous, [START, *target[:-1]])
    assert drawn.weights.sum() == (drawn.target != PADDING).sum()
    assert {int((source != PADDING).sum()) for source in drawn.source} == {1, 2, 3, 4}


def test_batches_depend_on_seed_and_epoch_only():
    def read(seed, epoch):
        batches = training_reversals(ReversalData(), fixed_sizes(4, steps=3), seed)
        batches.epoch.assign(epoch)
        return np.concatenate([target for _, target, _ in batches.dataset.as_numpy_iterator()])

    np.testing.assert_array_equal(read(0, 2), read(0, 2))
    assert not np.array_equal(read(0, 2), read(0, 3))
    assert not np.array_equal(read(0, 2), read(1, 2))


def test_held_out_sequences_are_in_no_training_batch():
    """Sequences of 16 from 20 symbols: equal ones come from the same stream, not from chance."""
    data = ReversalData(shortest=16, longest=16, held_out=50)
    held = [
        {row.tobytes() for row in held_out_reversals(data, seed).source}
        for seed in reversal.PART_SEEDS.values()
    ]
    assert not held[0] & held[1]
    for seed, epoch in itertools.product(range(2), range(3)):
        batches = training_reversals(data, fixed_sizes(50, steps=3), seed)
        batches.epoch.assign(epoch)
        trained = {row.tobytes() for (source, _), *_ in batches.dataset.as_numpy_iterator() for row in source}
        assert len(trained) == 150
        assert not trained & (held[0] | held[1])


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    built = EncoderDecoder(CATALOG["seq2seq-reverse"].recipe.model, 10, 6, 7)
    random = np.random.default_rng(1)
    for variable in built.trainable_variables:
        variable.assign(variable + 0.2 * random.normal(size=variable.shape))
    return built


def logits(model, source, previous) -> np.ndarray:
    return keras.ops.convert_to_numpy(model((np.array([source]), np.array([previous]))))[0]


def test_the_decoder_sees_the_source_and_earlier_positions_only(model):
    source, previous = [3, 4, 5, 6, 0, 0], [1, 6, 5, 4, 3, 2, 0]
    before = logits(model, source, previous)
    changed = logits(model, source, [1, 6, 5, 9, 3, 2, 0])
    np.testing.assert_allclose(before[:3], changed[:3], atol=1e-5)
    assert np.abs(before[3:] - changed[3:]).max() > 1e-2
    assert (np.abs(before - logits(model, [7, 4, 5, 6, 0, 0], previous)).max(axis=1) > 1e-3).all()


def test_padding_of_the_source_is_ignored():
    keras.utils.set_random_seed(0)
    short, long = (EncoderDecoder(CATALOG["seq2seq-reverse"].recipe.model, 10, size, 7) for size in (4, 6))
    long.set_weights(short.get_weights())
    previous = [1, 6, 5, 4, 3, 2, 0]
    np.testing.assert_allclose(
        logits(short, [3, 4, 5, 6], previous), logits(long, [3, 4, 5, 6, 0, 0], previous), atol=1e-5
    )


@pytest.mark.slow
def test_it_learns_to_reverse(tmp_path):
    recipe = SequenceRecipe(
        data=ReversalData(symbols=4, longest=4, held_out=100),
        optimizer=Optimizer(name="adamw", learning_rate=0.003),
        training=TextTraining(epochs=3, steps_per_epoch=128, batch_size=32),
    )
    run = task_of("seq2seq-reverse", recipe).train(tmp_path / "run")
    assert run.metrics["test_exact_match"] > 0.9
    again = task_of_run(run).evaluate()
    assert again["test_exact_match"] == run.metrics["test_exact_match"]
    assert "Sequences and the model" in (run.path / "report.html").read_text()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shortest": 5, "longest": 4}, "shortest=5, longest=4"),
        ({"symbols": 1}, "symbols=1"),
        ({"source": "mnist"}, "data.source must be one of reversal. Received: 'mnist'"),
    ],
)
def test_invalid_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(ReversalData(), **settings)
