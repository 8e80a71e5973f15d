"""The networks: what a reader can work out, and one token at a time against whole windows."""

import keras
import numpy as np
import pytest
from keras import ops

from recipes.config import RecurrentModel, TransformerModel, UserError
from recipes.models.attention import CausalConvolution, rotary_turns, rotate, sinusoids
from recipes.models.recurrent import RecurrentLanguageModel
from recipes.models.transformer import TransformerLanguageModel

SMALL = {"width": 16, "heads": 2, "layers": 2, "feed_forward": 24}
MODELS = {
    "best": (TransformerLanguageModel, TransformerModel(**SMALL, convolution=3, tied_head=False)),
    "learned": (
        TransformerLanguageModel,
        TransformerModel(**SMALL, positions="learned", activation="gelu", bias=True, convolution=2),
    ),
    "classic": (
        TransformerLanguageModel,
        TransformerModel(
            **SMALL,
            positions="sinusoidal",
            normalization="layer",
            activation="gelu",
            qk_norm=False,
            bias=True,
        ),
    ),
    "rnn": (RecurrentLanguageModel, RecurrentModel(cell="rnn", units=12, embedding=12)),
    "lstm": (RecurrentLanguageModel, RecurrentModel(cell="lstm", units=12, embedding=8)),
    "gru": (RecurrentLanguageModel, RecurrentModel(cell="gru", units=12, embedding=8, layers=1)),
}
VOCABULARY, BLOCK = 11, 8


@pytest.fixture(params=MODELS)
def model(request):
    """A model whose weights are all away from their start (which has branches of zeros)."""
    return build(request.param)


def build(name: str):
    kind, settings = MODELS[name]
    keras.utils.set_random_seed(0)
    built = kind(settings, VOCABULARY, BLOCK)
    random = np.random.default_rng(1)
    for variable in built.trainable_variables:
        variable.assign(variable + 0.3 * random.normal(size=variable.shape))
    return built


@pytest.fixture
def ids():
    return np.random.default_rng(2).integers(0, VOCABULARY, (3, BLOCK)).astype(np.int32)


def numpy(tensor) -> np.ndarray:
    return ops.convert_to_numpy(tensor)


def test_no_place_sees_a_later_one(model, ids):
    before = numpy(model(ids))
    ids[:, 5] = (ids[:, 5] + 1) % VOCABULARY
    after = numpy(model(ids))
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    assert (np.abs(before[:, 5:] - after[:, 5:]).max(axis=(0, 2)) > 1e-4).all()


def test_one_token_at_a_time_gives_what_a_whole_window_gives(model, ids):
    whole = numpy(model(ids))
    places = np.array([1, 4, 6], np.int32)
    logits, state = model.begin(ops.convert_to_tensor(ids), ops.convert_to_tensor(places))
    rows = np.arange(3)
    np.testing.assert_allclose(numpy(logits), whole[rows, places - 1], atol=1e-5)
    while places.max() < BLOCK:
        logits, state = model.step(
            ops.convert_to_tensor(ids[rows, places]), ops.convert_to_tensor(places), state
        )
        np.testing.assert_allclose(numpy(logits), whole[rows, places], atol=1e-5)
        places = places + 1


def test_what_is_past_a_rows_length_is_not_looked_at(model, ids):
    lengths = ops.convert_to_tensor(np.array([2, 2, 2], np.int32))
    logits, _ = model.begin(ops.convert_to_tensor(ids), lengths)
    ids[:, 2:] = 0
    again, _ = model.begin(ops.convert_to_tensor(ids), lengths)
    np.testing.assert_array_equal(numpy(logits), numpy(again))


def test_a_saved_model_is_the_same_model(model, ids, tmp_path):
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.settings == model.settings
    np.testing.assert_array_equal(numpy(loaded(ids)), numpy(model(ids)))


def test_a_new_transformer_says_nothing_beyond_its_embedding():
    model = TransformerLanguageModel(TransformerModel(**SMALL, tied_head=False), VOCABULARY, BLOCK)
    np.testing.assert_array_equal(numpy(model(np.zeros((1, BLOCK), np.int32))), 0)


def test_sinusoids_are_those_of_the_paper():
    table = sinusoids(10, 4)
    np.testing.assert_allclose(table[0], [0, 0, 1, 1])
    np.testing.assert_allclose(table[3], [np.sin(3), np.sin(0.03), np.cos(3), np.cos(0.03)], rtol=1e-6)


def test_rotation_keeps_lengths_and_makes_scores_depend_on_the_distance():
    cos, sin = rotary_turns(32, 8)
    random = np.random.default_rng(0)
    q, k = random.normal(size=(2, 8)).astype(np.float32)
    turned = [np.stack([numpy(rotate(x, (cos[place], sin[place]))) for place in range(32)]) for x in (q, k)]
    np.testing.assert_allclose(np.linalg.norm(turned[0], axis=1), np.linalg.norm(q), rtol=1e-5)
    scores = turned[0] @ turned[1].T
    np.testing.assert_allclose(scores[9, 4], scores[25, 20], atol=1e-4)
    assert abs(scores[9, 4] - scores[9, 5]) > 1e-3


def test_a_convolution_starts_as_the_identity_and_looks_back_only():
    layer = CausalConvolution(3, name="convolution")
    x = np.arange(8, dtype=np.float32).reshape(1, 4, 2)
    np.testing.assert_array_equal(numpy(layer(x)), x)
    layer.kernel.assign(np.array([[100, 0], [10, 0], [1, 1]]))
    np.testing.assert_array_equal(numpy(layer(x))[0, :, 0], [0, 2, 24, 246])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"width": 20, "heads": 4}, "multiple of 2 x model.heads. Received: width=20, heads=4"),
        ({"layers": 0}, "layers=0"),
        ({"convolution": 1}, "must be 0 or at least 2. Received: convolution=1"),
        ({"dropout": 1.0}, "dropout=1.0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(settings, said):
    with pytest.raises(UserError, match=said):
        TransformerModel(**settings)
