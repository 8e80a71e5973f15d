"""Post-training quantisation to int8 weights, for the layers that Keras supports.

python -m recipes quantize runs/mnist-mlp/latest
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from recipes.config import UserError
from recipes.models.configured import INT8_WEIGHTS, ConfiguredModel
from recipes.models.parameters import is_matrix
from recipes.models.saved import copy_without_optimizer
from recipes.report.page import Page, Table
from recipes.runs.directory import Run
from recipes.runs.opening import open_run
from recipes.runs.recipe_lookup import recorded_recipe
from recipes.training.fit import Outcome, save_model

if TYPE_CHECKING:  # the task is above this package
    from recipes.task import Task

QUANTIZES = (keras.layers.Dense, keras.layers.EinsumDense, keras.layers.Embedding)


def quantize_run(task: "Task[Any]", path: Path) -> Run:
    """Write a run directory like any other, of a finished run's model with int8 weights.

    metrics.json names the layers that stay float32 (`not_quantized`) and the dense model's validation metric.

    Raises:
        UserError: Data that can't be loaded any more, or nothing to quantise.
    """
    source, metric = task.source_run, task.recipe.early_stopping.metric
    model = task.reload()
    smaller, left = quantize(model)
    record = {"run": str(source.path), "weights": "int8"}
    recipe, metrics = recorded_recipe(source.config), source.metrics
    with open_run(path, task.name, recipe, task.data.record(), resume=False, made_from=record) as run:
        run.history_path.write_bytes(source.history_path.read_bytes())
        save_model(smaller, run)
        task.prepare(run, smaller)
        task.write_results(
            smaller,
            run,
            Outcome(metrics["epochs"], metrics["best_epoch"], metrics["train_seconds"]),
            before=model,
            changes={
                "quantized_from": str(source.path),
                "not_quantized": left,
                f"dense_{metric}": metrics[metric],
            },
            page=Page(
                tables=[Table("Layers that stay float32", [{"layer": name} for name in left])] if left else []
            ),
        )
    return run


def quantize(model: keras.Model) -> tuple[keras.Model, list[str]]:
    """Return a copy of a model with int8 weights (a scale per output), and the names of the layers that stay float.

    Keras 3.15 quantises dense layers and embeddings, not convolutions and recurrent layers. The embeddings of
    language models stay float too: they may be tied to the output layer.

    Args:
        model: Any model with float weights; it is not changed.

    Raises:
        UserError: It is quantised already, or has no layer that can be quantised.
    """
    check_not_quantized(model)
    copy = _float32_copy(model)
    if isinstance(copy, ConfiguredModel):
        copy.quantize_dense_layers()
    else:
        copy.quantize(config=INT8_WEIGHTS, filters=lambda layer: isinstance(layer, QUANTIZES))
    if not is_quantized(copy):
        raise UserError("quantize: the model has no dense layer, and Keras quantises no other kind")
    return copy, left_as_they_are(copy)


def _float32_copy(model: keras.Model) -> keras.Model:
    """Return a copy whose layers compute in float32: of one that computes in float16 Keras makes no int8."""
    if isinstance(model, ConfiguredModel):
        return copy_without_optimizer(model)

    def in_float32(operation: Any) -> Any:
        own = {"dtype": "float32"} if isinstance(operation, keras.Layer) else {}  # keras.ops have none
        return type(operation).from_config(operation.get_config() | own)

    copy = keras.models.clone_model(model, clone_function=in_float32)
    copy.set_weights(model.get_weights())
    return copy


def left_as_they_are(model: keras.Model) -> list[str]:
    """Return the names of layers with float matrices or kernels, as `block_1/attention/query`."""
    return sorted(
        {
            variable.path.removeprefix(f"{model.name}/").rpartition("/")[0]
            for variable in model.weights
            if variable.dtype != "int8" and is_matrix(variable)
        }
    )


def is_quantized(model: keras.Model) -> bool:
    """Return whether a model has int8 weights."""
    return any(variable.dtype == "int8" for variable in model.weights)


def check_not_quantized(model: keras.Model) -> None:
    """Refuse a model with int8 weights.

    Raises:
        UserError: It has some.
    """
    if is_quantized(model):
        raise UserError("the model has int8 weights already: prune or quantise the run it was made from")
