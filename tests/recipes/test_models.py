import dataclasses
import functools

import keras
import numpy as np
import pytest
from keras import layers

from recipes.catalog import CATALOG
from recipes.compression.importance import least, magnitude
from recipes.compression.shrink import shrink, silence
from recipes.compression.units import find_units
from recipes.config import (
    ImageModel,
    ImageRecipe,
    Optimizer,
    Recipe,
    RecurrentModel,
    SequenceRecipe,
    TableRecipe,
    TransformerModel,
)
from recipes.models.encoder_decoder import EncoderDecoder
from recipes.models.image import AverageOfMembers, build_classifier
from recipes.models.parameters import count_nonzero, sparsity
from recipes.models.recurrent import RecurrentLanguageModel
from recipes.models.saved import copy_without_optimizer
from recipes.models.table import build_regression
from recipes.models.transformer import TransformerLanguageModel
from recipes.training.losses import added_to_loss, member_losses
from recipes.training.optimizers import build_optimizer


def build(recipe: Recipe) -> keras.Model:
    """Build a recipe's network for the dataset it was measured on."""
    if isinstance(recipe, ImageRecipe):
        return build_classifier(recipe.model, (28, 28, 1), 10)
    if isinstance(recipe, TableRecipe):
        return build_regression(
            recipe.model, np.zeros((2, 10), np.float32), np.zeros((2, 1), np.float32), [0] * 10, [False] * 10
        )
    if isinstance(recipe, SequenceRecipe):
        return EncoderDecoder(
            recipe.model, 3 + recipe.data.symbols, recipe.data.longest, recipe.data.longest + 1
        )
    return language_model(recipe.model, 65, recipe.data.block_size)


def language_model(settings, vocabulary_size=5, block_size=8):
    network = TransformerLanguageModel if isinstance(settings, TransformerModel) else RecurrentLanguageModel
    return network(settings, vocabulary_size, block_size)


@functools.cache
def parameters(name):
    """Count the parameters of a recipe's network."""
    return build(CATALOG[name].recipe).count_params()


@pytest.mark.parametrize("name", CATALOG)
def test_the_catalog_knows_how_many_parameters_its_models_have(name):
    assert parameters(name) == CATALOG[name].parameters


def test_language_models_that_are_compared_have_the_same_number_of_parameters():
    compared = ("lm-rnn", "lm-lstm", "lm-gru", "lm-transformer", "lm-transformer-classic")
    sizes = [parameters(name) for name in compared]
    assert max(sizes) < 1.01 * min(sizes)
    assert parameters("lm-transformer-small") <= 804_224  # nanoGPT's on a CPU


def test_the_records_are_held_within_their_sizes():
    assert parameters("mnist-tiny") < 8_000
    assert parameters("mnist-best") <= 1_500_000


def test_the_textbook_networks_have_the_textbook_sizes():
    assert parameters("mnist-lenet-300-100") == 784 * 300 + 300 + 300 * 100 + 100 + 100 * 10 + 10
    assert parameters("mnist-lenet-5") == 520 + 25_050 + 400_500 + 5_010
    assert parameters("mnist-mlp") == 785 * 128 + 129 * 64 + 65 * 10


def test_pixels_are_normalised_inside_the_model():
    model = build_classifier(ImageModel(dense=()), (2, 2, 1), 2)
    kernel = np.zeros((4, 2), np.float32)
    kernel[0, 1] = 1  # the second class's logit is the first pixel
    model.set_weights([kernel, np.zeros(2, np.float32)])
    image = np.zeros((1, 2, 2, 1), np.float32)
    image[0, 0, 0, 0] = 255
    assert model.predict(image, verbose=0)[0] == pytest.approx([1 / (1 + np.e), np.e / (1 + np.e)])


STANDARDIZED = ImageModel(convolutions=(3,), dense=(), standardize=True)


def corner(brightness: float, background: float) -> np.ndarray:
    """Return an image with a square off its centre, (1, 14, 14, 1)."""
    image = np.full((1, 14, 14, 1), background, np.float32)
    image[0, 3:7, 5:9] = brightness
    return image


def test_a_standardised_image_has_mean_0_deviation_1_and_a_dark_border():
    model = build_classifier(STANDARDIZED, (14, 14, 1), 4)
    inner = keras.Model(model.input, model.get_layer("convolution_1").input)
    x = inner.predict(corner(brightness=30, background=230), verbose=0)
    part = 16 / 196  # a square of 4 x 4 of 14 x 14 pixels; its deviation is 200 sqrt(part (1 - part)) = 55
    assert x[0, 4, 6, 0] == pytest.approx((1 - part) / np.sqrt(part * (1 - part)), rel=1e-3)
    assert x[0, 0, 0, 0] == pytest.approx(-part / np.sqrt(part * (1 - part)), rel=1e-3)


@pytest.mark.parametrize(
    ("brightness", "background"), [(0, 255), (140, 115), (115, 140)], ids=["inverted", "low", "both"]
)
def test_contrast_and_polarity_do_not_change_a_prediction(brightness, background):
    model = build_classifier(STANDARDIZED, (14, 14, 1), 4)
    expected = model.predict(corner(brightness=255, background=0), verbose=0)
    np.testing.assert_allclose(
        model.predict(corner(brightness, background), verbose=0), expected, rtol=0.01, atol=1e-3
    )


def test_blank_images_and_rounding_are_not_amplified():
    model = build_classifier(STANDARDIZED, (14, 14, 3), 4)
    inner = keras.Model(model.input, model.get_layer("convolution_1").input)
    blank = np.full((1, 14, 14, 3), 200, np.float32)
    assert np.abs(inner.predict(blank, verbose=0)).max() < 1e-3
    rounding = blank + np.random.default_rng(0).integers(0, 2, blank.shape)  # a deviation of half a level
    assert inner.predict(rounding, verbose=0).std() == pytest.approx(0.5 / np.sqrt(0.25 + 1), rel=0.02)


def test_a_standardised_model_is_saved_as_plain_layers_and_shrunk(tmp_path):
    settings = dataclasses.replace(STANDARDIZED, convolutions=(3, 4), members=2)
    model = build_classifier(settings, (14, 14, 1), 4)
    image = corner(30, 200)
    copy_without_optimizer(model).save(tmp_path / "model.keras")
    saved = keras.models.load_model(tmp_path / "model.keras")
    assert {type(layer).__module__.split(".")[0] for layer in saved.operations} == {"keras"}
    np.testing.assert_array_equal(saved.predict(image, verbose=0), model.predict(image, verbose=0))
    units = find_units(saved)
    silence(units, least(units, magnitude(units), {"filters": 0.5}))
    smaller = shrink(saved)
    assert smaller.count_params() < model.count_params()
    np.testing.assert_allclose(smaller.predict(image, verbose=0), saved.predict(image, verbose=0), rtol=1e-4)


MEMBERS = ImageModel(convolutions=(3,), dense=(), head="average", members=3)


def images_of_four_classes():
    images = np.random.default_rng(0).integers(0, 256, (8, 6, 6, 1)).astype(np.float32)
    return images, np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 0, 0, 1, 2]]


def member(model, number):
    """Return a copy of one member of a model, a network of its own."""
    alone = keras.Model(model.input, layers.Softmax()(model.get_layer(f"member_{number}_logits").output))
    return copy_without_optimizer(alone)


def test_a_model_of_members_gives_the_softmax_of_their_mean_logits():
    model = build_classifier(MEMBERS, (6, 6, 1), 4)
    images, _ = images_of_four_classes()
    logs = [np.log(member(model, number).predict(images, verbose=0)) for number in (1, 2, 3)]
    expected = np.exp(np.mean(logs, axis=0))
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.predict(images, verbose=0), expected, rtol=1e-5)


def test_each_member_is_trained_as_if_it_were_alone():
    model = build_classifier(MEMBERS, (6, 6, 1), 4)
    images, labels = images_of_four_classes()
    members = [member(model, number) for number in (1, 2, 3)]
    losses = []
    for alone, rate in [*((alone, 0.5) for alone in members), (model, 1.5)]:  # the mean's gradient is a third
        alone.compile(keras.optimizers.SGD(rate), loss="categorical_crossentropy")
        averages = [layer for layer in alone.layers if isinstance(layer, AverageOfMembers)]
        with added_to_loss(alone, [member_losses(average) for average in averages]):
            losses.append(alone.fit(images, labels, batch_size=8, verbose=0).history["loss"][0])
    assert losses[3] == pytest.approx(np.mean(losses[:3]), rel=1e-5)
    for number, alone in enumerate(members, start=1):
        for ours, theirs in zip(member(model, number).get_weights(), alone.get_weights(), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_members_are_validated_by_the_loss_of_their_mean_and_saved_as_plain_layers(tmp_path):
    model = build_classifier(MEMBERS, (6, 6, 1), 4)
    images, labels = images_of_four_classes()
    model.compile(loss="categorical_crossentropy")
    right = model.predict(images, verbose=0)[labels == 1]
    assert model.evaluate(images, labels, verbose=0) == pytest.approx(-np.log(right).mean(), rel=1e-5)
    copy_without_optimizer(model).save(tmp_path / "model.keras")
    saved = keras.models.load_model(tmp_path / "model.keras")
    assert {type(layer).__module__.split(".")[0] for layer in saved.layers} == {"keras"}
    np.testing.assert_array_equal(saved.predict(images, verbose=0), model.predict(images, verbose=0))


def test_zeros_are_counted():
    model = build_classifier(ImageModel(dense=()), (2, 2, 1), 2)
    kernel = np.array([[1, 0], [0, 0], [2, 0], [3, 0]], np.float32)
    model.set_weights([kernel, np.ones(2, np.float32)])
    assert count_nonzero(model) == 5
    assert sparsity(model) == 5 / 8


KERNELS = {"kernel", "recurrent_kernel", "embeddings"}


@pytest.mark.parametrize(
    ("network", "others"),
    [
        (
            lambda: build_classifier(
                ImageModel(dense=(4, 1), batch_normalization=True, convolutions=(2,)), (4, 4, 1), 2
            ),
            {"bias", "gamma", "beta"},
        ),
        # The temperature of attention is (heads, 1, 1), a GRU's bias (2, 3 * units).
        (lambda: language_model(TransformerModel(width=8, heads=2, convolution=2)), {"scale", "temperature"}),
        (lambda: language_model(RecurrentModel(cell="gru", units=4, embedding=4)), {"bias"}),
        (lambda: language_model(CATALOG["lm-transformer-classic"].recipe.model), {"bias", "gamma", "beta"}),
    ],
    ids=["image", "transformer", "gru", "classic"],
)
def test_weight_decay_acts_on_kernels_only(network, others):
    model = network()
    settings = Optimizer(name="adamw", learning_rate=0.1, weight_decay=0.5)
    optimizer = build_optimizer(settings, 0.1, model.trainable_variables)
    for variable in model.trainable_variables:
        variable.assign(keras.ops.ones_like(variable))
    optimizer.apply([keras.ops.zeros_like(v) for v in model.trainable_variables], model.trainable_variables)
    decayed = {v.name for v in model.trainable_variables if np.all(v.numpy() == np.float32(0.95))}
    kept = {v.name for v in model.trainable_variables if np.all(v.numpy() == 1)}
    assert decayed <= KERNELS  # without a gradient AdamW only decays: 1 - 0.1 * 0.5
    assert kept == others
    assert len(decayed | kept) == len({v.name for v in model.trainable_variables})
    assert sparsity(model) == 0.0
    for variable in model.trainable_variables:
        if variable.name in KERNELS:
            variable.assign(keras.ops.zeros_like(variable))
    assert sparsity(model) == 1.0  # the same weights count


def test_muon_turns_hidden_matrices_by_orthogonal_steps_and_leaves_the_rest_to_adam():
    model = build(CATALOG["lm-transformer-small"].recipe)
    settings = Optimizer(name="muon", learning_rate=0.1, adam_fraction=0.5)
    optimizer = build_optimizer(settings, 0.1, model.trainable_variables)
    before = [variable.numpy() for variable in model.trainable_variables]
    random = np.random.default_rng(0)
    gradients = [
        keras.ops.convert_to_tensor(random.normal(size=old.shape).astype(np.float32)) for old in before
    ]
    optimizer.apply(gradients, model.trainable_variables)
    for variable, old in zip(model.trainable_variables, before, strict=True):
        step = old - variable.numpy()
        hidden = {"query", "key", "value", "output", "widen", "narrow"} & set(variable.path.split("/"))
        if hidden:  # singular values near 0.2 x learning rate x sqrt(the longer side), but for the smallest
            values = np.linalg.svd(step, compute_uv=False) / (0.2 * 0.1 * np.sqrt(max(step.shape)))
            assert 0.6 < np.quantile(values, 0.05) < values.max() < 1.4
        else:  # Adam's first step is its learning rate, whatever the gradient
            np.testing.assert_allclose(np.abs(step), 0.05, rtol=0.02)
