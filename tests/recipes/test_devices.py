"""How a step is computed: precision, compilation, batches of changing sizes."""

import dataclasses

import keras
import numpy as np
import pytest

from recipes.config import (
    BatchSchedule,
    ImageData,
    ImageModel,
    ImageRecipe,
    Optimizer,
    Regularization,
    Schedule,
    TextData,
    TextTraining,
    Training,
    TransformerModel,
    TransformerRecipe,
    UserError,
    from_dict,
)
from recipes.tasks import task_of
from recipes.training.compile import compile_model
from recipes.training.fit import fix_seed
from tests.recipes.sizes import fixed_sizes
from tests.recipes.test_training import StopAt, assert_same_result


@pytest.fixture
def recipe(stripes) -> ImageRecipe:
    return ImageRecipe(
        data=ImageData(source=str(stripes)),
        model=ImageModel(convolutions=(4,), dense=(8,), batch_normalization=True),
        optimizer=Optimizer(learning_rate=0.01),
        training=Training(epochs=3, batch_size=8),
    )


def with_training(recipe, **settings):
    return dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, **settings))


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_layers_compute_in_the_precision_and_weights_stay_float32(recipe, tmp_path, precision):
    averaged = dataclasses.replace(recipe, optimizer=Optimizer(learning_rate=0.01, moving_average=0.5))
    run = task_of("x", with_training(averaged, precision=precision)).train(tmp_path / "run", final=False)
    model = keras.models.load_model(run.model_path)
    assert model.get_layer("convolution_1").compute_dtype == precision.removeprefix("mixed_")
    assert {weight.dtype for weight in model.weights} == {"float32"}
    assert model.output.dtype == "float32"
    assert run.metrics["validation_accuracy"] > 0.8
    assert keras.config.dtype_policy().name == "float32"  # what is built next is not concerned


def test_transformers_are_compiled_by_xla_and_other_models_are_not(recipe):
    """Keras would ignore `jit_compile=True` where operations are deterministic."""
    fix_seed(0)
    for xla_is_faster, batches, compiled in [
        (True, BatchSchedule(), True),
        (False, BatchSchedule(), False),
        (True, BatchSchedule(name="random"), False),
    ]:
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        compile_model(
            model,
            dataclasses.replace(recipe, batches=batches),
            lambda model, **options: model.compile(loss="mse", **options),
            sizes=fixed_sizes(8, steps=4),
            xla_is_faster=xla_is_faster,
        )
        assert model.jit_compile is compiled


def test_a_run_with_random_batches_learns_and_resumes_after_a_stop(recipe, tmp_path):
    batches = BatchSchedule(name="random", largest=16)
    changing = dataclasses.replace(recipe, batches=batches, schedule=Schedule(name="cosine"))
    run = task_of("x", changing).train(tmp_path / "whole", final=False)
    assert [row["batch_size"] for row in run.history] == [12] * 3  # the mean
    assert run.history[-1]["learning_rate"] < 0.2 * 0.01  # the last step is near the end of the examples
    assert run.history[-1]["loss"] < run.history[0]["loss"]
    with pytest.raises(KeyboardInterrupt):
        task_of("x", changing).train(tmp_path / "stopped", callbacks=[StopAt(3, KeyboardInterrupt)])
    assert_same_result(task_of("x", changing).train(tmp_path / "stopped", resume=True, final=False), run)


def test_gradient_descent_makes_a_step_an_epoch(recipe, tmp_path):
    descent = dataclasses.replace(recipe, optimizer=Optimizer(name="gradient-descent", learning_rate=0.1))
    run = task_of("x", descent).train(tmp_path / "run", final=False)
    examples = run.environment["data"]["train_examples"]
    assert [row["batch_size"] for row in run.history] == [examples] * 3


def test_a_text_recipe_with_random_batches_and_a_penalty(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("to be, or not to be: that is the question. " * 200)
    recipe = TransformerRecipe(
        data=TextData(source=str(text), block_size=16),
        model=TransformerModel(layers=1, width=16, heads=2, feed_forward=16),
        batches=BatchSchedule(name="random", largest=16),
        regularization=Regularization(l2=1e-5),
        training=TextTraining(epochs=2, steps_per_epoch=16, batch_size=8, precision="mixed_bfloat16"),
    )
    run = task_of("x", recipe).train(tmp_path / "run", final=False)
    assert [row["batch_size"] for row in run.history] == pytest.approx([12, 12], abs=0.1)
    assert run.metrics["train_tokens"] == 2 * 10 * 12 * 16  # 10 steps of 12 windows of 128
    assert np.isfinite(run.metrics["validation_loss"])


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"training": {"precision": "float16"}}, "one of float32, mixed_bfloat16, mixed_float16"),
        ({"model": {"head": "average"}}, "model.head average needs convolutions"),
        ({"augmentation": {"crop": 1.0}}, r"augmentation.crop must be in \[0, 1\). Received: crop=1.0"),
        (
            {"augmentation": {"end_fraction": 1.5}},
            r"augmentation.end_fraction must be in \[0, 1\]. Received: end_fraction=1.5",
        ),
        ({"augmentation": {"elastic": -1}}, "augmentation.elastic must be at least 0. Received: elastic=-1"),
        ({"regularization": {"l1": -1.0}}, "regularization.l1 must be at least 0. Received: l1=-1.0"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(tree, message):
    with pytest.raises(UserError, match=message):
        from_dict(ImageRecipe, tree)
