"""Units, importance, shrinking and int8 weights, on networks small enough to follow."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from recipes.compression import importance
from recipes.compression.cost import multiply_adds, sparsity_by_layer
from recipes.compression.quantize import left_as_they_are, quantize
from recipes.compression.shrink import shrink, silence, unread
from recipes.compression.units import KINDS, find_units
from recipes.config import ImageModel, RecurrentModel, TransformerModel, UserError
from recipes.models.image import build_classifier
from recipes.models.recurrent import RecurrentLanguageModel
from recipes.models.transformer import TransformerLanguageModel


def shuffle(model):
    """Give every variable, those of normalisation too, values as after a training."""
    random = np.random.default_rng(0)
    for weight in model.weights:
        value = random.normal(0.0, 0.5, weight.shape)
        weight.assign(np.abs(value) + 0.1 if weight.name == "moving_variance" else value)
    return model


def outputs(model, inputs):
    return keras.ops.convert_to_numpy(model(inputs, training=False))


def assert_same_outputs(one, other, inputs):
    np.testing.assert_allclose(outputs(other, inputs), outputs(one, inputs), rtol=1e-4, atol=1e-5)


STAGES = st.lists(
    st.tuples(st.sampled_from(["plain", "normalised", "depthwise", "residual", "joined"]), st.integers(2, 5)),
    min_size=1,
    max_size=3,
)


def classifier(stages, dense, activation, pools, flattens):
    """Build a network of convolutions, depthwise ones, branches that are added or joined, and dense layers."""
    image = keras.Input((8, 8, 2))
    x = image
    for kind, filters in stages:
        x = layers.Conv2D(filters, 3, padding="same", activation=activation)(x)
        if kind == "normalised":
            x = layers.ReLU()(layers.BatchNormalization()(x))
        elif kind == "depthwise":
            x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, activation=activation)(x)
        elif kind == "residual":
            branch = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
            branch = layers.Activation(activation)(layers.BatchNormalization()(branch))
            x = layers.Add()([x, branch])
        elif kind == "joined":
            x = layers.Concatenate()([x, layers.Conv2D(3, 1, activation=activation)(x)])
    x = layers.MaxPooling2D()(x) if pools else x
    x = layers.Flatten()(x) if flattens else layers.GlobalAveragePooling2D()(x)
    for units in dense:
        x = layers.Dropout(0.5)(layers.Dense(units, activation=activation)(x))
    return keras.Model(image, layers.Dense(3, activation="softmax")(x))


@settings(max_examples=25, deadline=None)
@given(
    stages=STAGES,
    dense=st.lists(st.integers(2, 6), max_size=2),
    activation=st.sampled_from(["relu", "sigmoid", "tanh", "elu"]),
    pools=st.booleans(),
    flattens=st.booleans(),
    fraction=st.floats(0.1, 0.9),
)
def test_a_shrunken_network_computes_what_the_masked_one_does(
    stages, dense, activation, pools, flattens, fraction
):
    model = shuffle(classifier(stages, dense, activation, pools, flattens))
    units = find_units(model)
    chosen = importance.least(units, importance.magnitude(units), dict.fromkeys(KINDS, fraction))
    silence(units, chosen)
    smaller = shrink(model)
    images = np.random.default_rng(1).normal(size=(5, 8, 8, 2)).astype(np.float32)
    assert_same_outputs(model, smaller, images)
    assert smaller.count_params() < model.count_params() or not chosen.any()


def test_members_of_a_model_are_shrunk_each_by_itself():
    model = shuffle(build_classifier(ImageModel(convolutions=(4,), dense=(6,), members=2), (8, 8, 1), 3))
    units = find_units(model)
    names = [group.name for group in units.groups]
    assert sorted(names) == [
        f"member_{number}_{layer}" for number in (1, 2) for layer in ("convolution_1", "dense_1")
    ]
    first = next(group for group in units.groups if group.name == "member_1_dense_1")
    chosen = np.zeros(units.count, bool)
    chosen[first.units[:5]] = True
    silence(units, chosen)
    smaller = shrink(model)
    assert [smaller.get_layer(f"member_{number}_dense_1").units for number in (1, 2)] == [1, 6]
    images = np.random.default_rng(1).normal(size=(5, 8, 8, 1)).astype(np.float32)
    assert_same_outputs(model, smaller, images)


def test_units_of_a_residual_block_are_one():
    """Filters of a and b meet in the addition; those of inner are their own; the head's are fixed."""
    image = keras.Input((4, 4, 1))
    x = layers.Conv2D(3, 1, name="a")(image)
    branch = layers.Conv2D(5, 1, name="inner")(x)
    x = layers.Add()([x, layers.Conv2D(3, 1, name="b")(branch)])
    model = keras.Model(image, layers.Dense(2, name="head")(layers.Flatten()(x)))
    groups = {group.name: (group.kind, len(group.units)) for group in find_units(model).groups}
    assert groups == {"a+b": ("filters", 3), "inner": ("filters", 5)}


def test_weights_of_a_known_network_after_shrinking():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(3, name="hidden"), layers.Dense(1, name="out")])
    model.layers[0].set_weights([np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), np.array([7.0, 8.0, 9.0])])
    model.layers[1].set_weights([np.array([[1.0], [2.0], [3.0]]), np.array([4.0])])
    units = find_units(model)
    silence(units, np.array([False, True, False]))
    smaller = shrink(model)
    kernel, bias = smaller.get_layer("hidden").get_weights()
    assert kernel.tolist() == [[1.0, 3.0], [4.0, 6.0]]
    assert bias.tolist() == [7.0, 9.0]
    assert smaller.get_layer("out").get_weights()[0].tolist() == [[1.0], [3.0]]


def test_flattened_filters_take_all_their_places_with_them():
    model = keras.Sequential(
        [keras.Input((3, 3, 1)), layers.Conv2D(2, 2, name="c"), layers.Flatten(), layers.Dense(1, name="d")]
    )
    shuffle(model)
    silence(find_units(model), np.array([True, False]))
    smaller = shrink(model)
    assert smaller.get_layer("d").kernel.shape == (4, 1)  # 2 x 2 places of one filter
    assert_same_outputs(model, smaller, np.random.default_rng(0).normal(size=(3, 3, 3, 1)).astype(np.float32))


def test_what_only_gone_units_read_goes_too():
    model = keras.Sequential(
        [keras.Input((2,)), layers.Dense(2, name="first"), layers.Dense(2, name="second"), layers.Dense(1)]
    )
    model.layers[1].kernel.assign([[1.0, 1.0], [0.0, 1.0]])
    model.layers[2].kernel.assign([[1.0], [0.0]])  # nothing reads the second's second, ...
    assert unread(find_units(model)).tolist() == [False, True, False, True]  # ... which alone read this
    model.layers[2].kernel.assign([[0.0], [0.0]])
    assert unread(find_units(model)).tolist() == [False, True, False, True]  # a layer keeps one


def test_a_layer_used_twice_keeps_its_units_together():
    image = keras.Input((4,))
    shared = layers.Dense(4, name="shared")
    x = layers.Dense(4, name="before")(image)
    model = keras.Model(image, layers.Dense(1, name="out")(shared(shared(x))))
    shuffle(model)
    units = find_units(model)
    assert [len(group.units) for group in units.groups] == [4]
    silence(units, np.array([True, False, False, True]))
    smaller = shrink(model)
    assert smaller.get_layer("shared").kernel.shape == (2, 2)
    assert_same_outputs(model, smaller, np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32))


@pytest.mark.parametrize(
    ("layer", "name"),
    [(layers.LSTM(4, name="memory"), "memory"), (layers.Conv1D(4, 1, groups=2, name="grouped"), "grouped"),
     (layers.MultiHeadAttention(2, 4, name="attention"), "attention")],
)  # fmt: skip
def test_a_layer_that_is_not_understood_is_named(layer, name):
    x = y = layers.Conv1D(4, 1)(keras.Input((5, 2)))
    y = layer(x, x) if name == "attention" else layer(x)
    model = keras.Model(x._keras_history.operation.input, y)
    with pytest.raises(UserError, match=f"layer '{name}'"):
        find_units(model)


def test_recurrent_language_models_are_refused():
    model = RecurrentLanguageModel(RecurrentModel(units=8, embedding=8), 5, 4)
    with pytest.raises(UserError, match="RecurrentLanguageModel can't be shrunk"):
        shrink(model)


TRANSFORMER = TransformerModel(width=16, heads=4, layers=2, feed_forward=8, convolution=2)


@pytest.mark.parametrize("activation", ["relu-squared", "gelu"])
@pytest.mark.parametrize("bias", [True, False])
def test_heads_and_feed_forward_units_are_cut_out(activation, bias, tmp_path):
    keras.utils.set_random_seed(0)
    chosen_settings = TransformerModel(**{**vars(TRANSFORMER), "activation": activation, "bias": bias})
    model = shuffle(TransformerLanguageModel(chosen_settings, 11, 6))
    units = find_units(model)
    scores = importance.magnitude(units)
    silence(units, importance.least(units, scores, {"heads": 0.25, "feed-forward": 0.5}))
    smaller = shrink(model)
    assert sum(heads for heads, _ in smaller.sizes) == 6  # of 8
    assert sum(hidden for _, hidden in smaller.sizes) == 8  # of 16
    ids = np.random.default_rng(0).integers(0, 11, (3, 6))
    assert_same_outputs(model, smaller, ids)
    smaller.save(tmp_path / "m.keras")
    assert_same_outputs(smaller, keras.models.load_model(tmp_path / "m.keras"), ids)
    assert multiply_adds(smaller) < multiply_adds(model)


def test_importance_by_magnitude_normalisation_and_taylor():
    image = keras.Input((1, 1, 1))
    x = layers.Conv2D(2, 1, use_bias=False, name="c")(image)
    x = layers.BatchNormalization(name="n")(x)
    model = keras.Model(image, layers.Dense(1, name="d")(layers.Flatten()(x)))
    model.get_layer("c").kernel.assign([[[[1.0, -3.0]]]])
    model.get_layer("n").gamma.assign([0.5, -0.25])
    units = find_units(model)
    assert importance.magnitude(units).tolist() == [0.5, 1.5]  # 1 and 3, by their mean
    assert importance.batch_normalization(units).tolist() == [0.5, 0.25]
    gradients = [{"c/kernel": np.array([[[[2.0, 1.0]]]])}, {"c/kernel": np.array([[[[-4.0, 1.0]]]])}]
    assert importance.taylor(units, gradients).tolist() == [3.0, 3.0]  # |2| and |-4|; |-3| twice


def test_importance_by_normalisation_needs_it():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(3, name="bare"), layers.Dense(1)])
    with pytest.raises(UserError, match="layer 'bare' has no batch normalisation"):
        importance.batch_normalization(find_units(model))


def test_the_least_units_of_the_model_except_the_best_of_each_layer():
    model = keras.Sequential(
        [keras.Input((1,)), layers.Dense(4, name="a"), layers.Dense(4, name="b"), layers.Dense(1)]
    )
    units = find_units(model)
    scores = np.array([1, 2, 3, 4, 10, 20, 30, 40.0])
    chosen = importance.least(units, scores, {"neurons": 0.5})
    assert np.flatnonzero(chosen).tolist() == [0, 1, 2, 4]


def test_multiply_adds_of_a_known_network():
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(4, 3),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )
    assert multiply_adds(model) == 9 * 4 * 16 + 16 * 10
    lm = TransformerLanguageModel(TransformerModel(width=16, heads=2, layers=1, feed_forward=8), 11, 6)
    assert multiply_adds(lm) == 6 * (4 * 16 * 16 + 2 * 16 * 8 + 16 * 11) + 2 * 6 * 6 * 16


def test_sparsity_of_each_layer():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(2, name="d"), layers.Dense(2, name="e")])
    model.layers[0].kernel.assign([[1.0, 0.0], [0.0, 0.0]])
    model.layers[1].kernel.assign([[1.0, 1.0], [1.0, 1.0]])
    assert sparsity_by_layer(model) == [
        {"layer": "d", "weights": 4, "nonzero": 1, "sparsity": 0.75},
        {"layer": "e", "weights": 4, "nonzero": 4, "sparsity": 0.0},
    ]


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_int8_weights_are_near_and_survive_a_save(tmp_path, precision):
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, dtype=precision, name="c"),
            layers.Flatten(dtype=precision),
            layers.Dense(16, dtype=precision, name="d"),
        ]
    )
    images = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype(np.float32)
    smaller, left = quantize(model)
    assert left == ["c"]
    assert {weight.dtype for weight in smaller.get_layer("d").weights} == {"int8", "float32"}
    exact, near = outputs(model, images), outputs(smaller, images)
    # A weight is off by at most half a step of largest / 127.
    assert np.abs(near - exact).max() < np.abs(exact).max() * 0.02
    smaller.save(tmp_path / "m.keras")
    assert_same_outputs(smaller, keras.models.load_model(tmp_path / "m.keras"), images)
    with pytest.raises(UserError, match="int8 weights already"):
        quantize(smaller)


def test_operations_beside_the_layers_are_kept():
    image = keras.Input((4,))
    model = keras.Model(image, layers.Dense(3)(keras.ops.where(image < 0, -image, image)))
    numbers = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    smaller, _ = quantize(model)
    np.testing.assert_allclose(outputs(smaller, numbers), outputs(model, numbers), atol=0.05)
    np.testing.assert_array_equal(outputs(smaller, -numbers), outputs(smaller, numbers))


def test_int8_weights_of_language_models_survive_a_save(tmp_path):
    ids = np.random.default_rng(0).integers(0, 11, (3, 6))
    for model in (
        TransformerLanguageModel(TRANSFORMER, 11, 6),
        RecurrentLanguageModel(RecurrentModel(units=8, embedding=6), 11, 6),
    ):
        shuffle(model)
        smaller, left = quantize(model)
        assert "token_embedding" in left_as_they_are(smaller) == left
        smaller.save(tmp_path / "m.keras")
        assert_same_outputs(smaller, keras.models.load_model(tmp_path / "m.keras"), ids)
        exact = outputs(model, ids)
        assert np.abs(outputs(smaller, ids) - exact).max() < 0.1 * np.abs(exact).max()


def test_nothing_to_quantise_is_refused():
    with pytest.raises(UserError, match="no dense layer"):
        quantize(keras.Sequential([keras.Input((4, 4, 1)), layers.Conv2D(2, 3)]))
