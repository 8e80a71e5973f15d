import keras
import numpy as np
import pytest

from recipes.catalog import CATALOG
from recipes.config import ImageModel, Optimizer, Schedule
from recipes.models.image import build_classifier
from recipes.models.parameters import count_nonzero, sparsity
from recipes.optimizers import build_optimizer
from recipes.schedules import LearningRate


@pytest.mark.parametrize("name", CATALOG)
def test_the_catalog_knows_how_many_parameters_its_models_have(name):
    model = build_classifier(CATALOG[name].recipe.model, (28, 28, 1), 10)
    assert model.count_params() == CATALOG[name].parameters


def test_the_textbook_networks_have_the_textbook_sizes():
    assert CATALOG["mnist-lenet-300-100"].parameters == 784 * 300 + 300 + 300 * 100 + 100 + 100 * 10 + 10
    assert CATALOG["mnist-lenet-5"].parameters == 520 + 25_050 + 400_500 + 5_010
    assert CATALOG["mnist-mlp"].parameters == 785 * 128 + 129 * 64 + 65 * 10


def test_pixels_are_normalised_inside_the_model():
    model = build_classifier(ImageModel(dense=()), (2, 2, 1), 2)
    kernel = np.zeros((4, 2), np.float32)
    kernel[0, 1] = 1  # the second class's logit is the first pixel
    model.set_weights([kernel, np.zeros(2, np.float32)])
    image = np.zeros((1, 2, 2, 1), np.float32)
    image[0, 0, 0, 0] = 255
    assert model.predict(image, verbose=0)[0] == pytest.approx([1 / (1 + np.e), np.e / (1 + np.e)])


def test_zeros_are_counted():
    model = build_classifier(ImageModel(dense=()), (2, 2, 1), 2)
    kernel = np.array([[1, 0], [0, 0], [2, 0], [3, 0]], np.float32)
    model.set_weights([kernel, np.ones(2, np.float32)])
    assert count_nonzero(model) == 5
    assert sparsity(model) == 5 / 8


def test_weight_decay_acts_on_kernels_only():
    model = build_classifier(ImageModel(dense=(), batch_normalization=True, convolutions=(2,)), (4, 4, 1), 2)
    rate = LearningRate(Schedule(), highest=0.1, steps_per_epoch=1, epochs=1)
    settings = Optimizer(name="adamw", learning_rate=0.1, weight_decay=0.5)
    optimizer = build_optimizer(settings, rate, model.trainable_variables)
    before = [variable.numpy() for variable in model.trainable_variables]
    optimizer.apply([keras.ops.zeros_like(v) for v in model.trainable_variables], model.trainable_variables)
    for variable, old in zip(model.trainable_variables, before, strict=True):
        # Without a gradient AdamW only decays: w - 0.1 * 0.5 * w.
        expected = 0.95 * old if len(variable.shape) > 1 else old
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-6)
