"""The task of a user's own recipe: their data, their Keras model, the same training path.

from recipes import Parts, own_recipe, train

run = train(own_recipe("wine", load_data, build, Model(), "sparse_categorical_crossentropy"))
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from recipes.config import UserError, require
from recipes.config.own import OwnSettings, Parts, place_of
from recipes.data.batch_sizes import BatchSizes, batch_sizes
from recipes.data.batches import EVALUATION_BATCH_SIZE, TrainingBatches, prefetch
from recipes.data.examples import fingerprint
from recipes.data.streams import stream
from recipes.models import Tensor
from recipes.report.page import Page
from recipes.runs.directory import Run
from recipes.runs.opening import choose_run
from recipes.task import Data, Part, Scores, Task
from recipes.training.losses import Divergence, squared_error

SHUFFLED_TOGETHER = 16_384
"""Examples of a tf.data.Dataset that are shuffled together; arrays are shuffled as a whole."""
SPEED_BATCH_SIZE = 256


def train(recipe: OwnSettings, path: Path | None = None, *, resume: bool = False) -> Run:
    """Train a recipe to its end, and return the finished run.

    Args:
        recipe: What `own_recipe` returned; `dataclasses.replace` changes its settings.
        path: The run directory; None for runs/NAME/TIMESTAMP.
        resume: Resume the unfinished run in `path`.

    Raises:
        UserError: Data or a model that do not fit each other, or, on resume, other settings than the run's.
    """
    name = place_of(recipe)
    with choose_run(name, path, resume=resume, offer="resume=True continues it") as (run, resume):
        return OwnTask(name, recipe).train(run.path, resume=resume)


def own_batches(examples: tf.data.Dataset, window: int, sizes: BatchSizes, seed: int) -> TrainingBatches:
    """Return shuffled batches of inputs and targets.

    Args:
        examples: Single (input, target) examples.
        window: Examples that are shuffled together, one window after the other.
        sizes: Examples of each batch, always the same number.
        seed: Seed of the order.
    """

    def permutation(epoch: int, number: int, count: int) -> npt.NDArray[np.int64]:
        return stream(seed, "own recipe: order", epoch, number).permutation(count)

    def build(epoch: tf.Variable) -> tf.data.Dataset:
        def shuffle(number: Tensor, chunk: Any) -> Any:
            count = tf.shape(tf.nest.flatten(chunk)[0])[0]
            order = tf.numpy_function(permutation, [epoch, number, count], tf.int64)
            order = tf.ensure_shape(order, (None,))
            return tf.nest.map_structure(lambda values: tf.gather(values, order), chunk)

        shuffled = examples.batch(window).enumerate().map(shuffle).unbatch()
        return shuffled.batch(sizes.batch_size, drop_remainder=True)

    return TrainingBatches(sizes, build)


class OwnTask(Task[OwnSettings]):
    """Train a user's model on a user's data."""

    recipe_class = OwnSettings

    @property
    def title(self) -> str:
        """The recipe's own name: `name` is where it is defined."""
        return self.recipe.name

    def load(self) -> None:
        """Call the user's `load_data`."""
        parts = type(self.recipe).load_data()
        if not isinstance(parts, Parts):
            raise UserError(f"load_data must return Parts. Received: {type(parts).__name__}")
        self.parts = {name: _examples(name, getattr(parts, name)) for name in ("train", "validation", "test")}
        self.loss = _loss(self.recipe.loss)
        sizes = {f"{name}_examples": int(self.parts[name].cardinality()) for name in ("train", "validation")}
        train = parts.train
        self.streamed = isinstance(train, tf.data.Dataset)
        hashed = "not hashed" if self.streamed else fingerprint(*map(np.asarray, tf.nest.flatten(train)))
        self.data = Data(self.recipe.name, self.recipe.data.source, hashed, counts=sizes)
        metrics = self.recipe.metrics
        self.plotted_metric = metrics[min(1, len(metrics) - 1)].removeprefix("validation_")

    def describe(self) -> str:
        """Describe the parts."""
        return ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in self.data.counts.items())

    def batches(self) -> TrainingBatches:
        """Return shuffled batches of the training part."""
        batches = self.recipe.batches.name
        require(batches == "fixed", "batches must be fixed for an own recipe", batches=batches)
        count = int(self.parts["train"].cardinality())
        window = SHUFFLED_TOGETHER if self.streamed else count
        sizes = batch_sizes(self.recipe, count)
        return own_batches(self.parts["train"], window, sizes, self.recipe.training.seed)

    def validation(self) -> tf.data.Dataset:
        """Return the validation part in batches."""
        return self._batched("validation")

    def _batched(self, part: Part) -> tf.data.Dataset:
        return prefetch(self.parts[part].batch(EVALUATION_BATCH_SIZE), 2)

    def build(self) -> keras.Model:
        """Call the user's `build`, and check the model's outputs against the loss."""
        model: keras.Model = type(self.recipe).build(self.recipe.model)
        inputs, _ = next(iter(self._batched("validation").take(1)))
        check_outputs(np.asarray(model(inputs, training=False)), self.loss)
        return model

    def compile(self, model: keras.Model, **options: Any) -> None:
        """Compile with the user's loss and metrics."""
        model.compile(loss=self.loss, metrics=list(self.recipe.compile_metrics), **options)

    def divergence(self) -> Divergence:
        """Return the softened cross-entropy for a loss of classes, the squared error for any other."""
        return super().divergence() if hasattr(self.loss, "from_logits") else squared_error

    def score(self, model: keras.Model, part: Part) -> Scores:
        """Return the loss and the metrics that the model is compiled with."""
        if not model.compiled:
            self.compile(model)
        values = model.evaluate(self._batched(part), verbose=0, return_dict=True)
        metrics = {f"{part}_{name}": round(float(value), 6) for name, value in values.items()}
        return Scores(metrics, {"examples": int(self.parts[part].cardinality())})

    def page(self, run: Run, metrics: Mapping[str, Any], test: Scores) -> Page:
        """Show the metrics of the test part."""
        return Page({name.replace("_", " "): f"{value:.4f}" for name, value in test.metrics.items()})

    def examples(self) -> Any:
        """Return validation inputs."""
        inputs, _ = next(iter(self.parts["validation"].batch(SPEED_BATCH_SIZE).take(1)))
        return tf.nest.map_structure(lambda values: values.numpy(), inputs)

    def outputs(self, run: Run | None = None) -> str:
        """Return the recipe's name: a teacher must be a run of it."""
        return self.recipe.name if run is None else str(run.metrics["dataset"])


class FunctionLoss(keras.losses.Loss):
    """The loss that a function (targets, outputs) → (batch,) gives."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__(name=getattr(function, "__name__", "loss"))
        self.function = function

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Return the loss of each example."""
        return self.function(y_true, y_pred)


def _loss(loss: Any) -> keras.losses.Loss:
    """Return the loss object of a name, a function or a loss, as `keras.Model.compile` takes them."""
    if isinstance(
        loss, str
    ):  # of a name like this Keras's `get` returns a function, which knows no from_logits
        named = getattr(keras.losses, loss.title().replace("_", ""), None)
        if named is not None:
            return named()
    found = keras.losses.get(loss)
    return found if isinstance(found, keras.losses.Loss) else FunctionLoss(found)


def _examples(name: str, part: Any) -> tf.data.Dataset:
    """Return a part as a dataset of single examples.

    Raises:
        UserError: Neither a pair of arrays nor a dataset of known, finite length; an empty part.
    """
    if not isinstance(part, tf.data.Dataset):
        try:
            inputs, targets = part
            part = tf.data.Dataset.from_tensor_slices((inputs, targets))
        except (TypeError, ValueError) as error:
            raise UserError(
                f"the {name} part must be (inputs, targets) with as many inputs as targets, or a tf.data.Dataset: {error}"
            ) from error
    if int(part.cardinality()) <= 0:
        raise UserError(
            f"the {name} part must have examples, and a known number of them: "
            f"tf.data.experimental.assert_cardinality says it. Received: cardinality {int(part.cardinality())}"
        )
    return part


def check_outputs(outputs: Any, loss: keras.losses.Loss) -> None:
    """Refuse logits where the loss expects probabilities, and the other way round.

    Args:
        outputs: A batch of the untrained model's outputs.
        loss: The loss.

    Raises:
        UserError: They do not fit.
    """
    if not hasattr(loss, "from_logits"):
        return
    binary = isinstance(loss, keras.losses.BinaryCrossentropy)
    inside = bool((outputs >= 0).all() and (outputs <= 1).all())
    sums = outputs.sum(axis=-1)
    probabilities = inside and (binary or bool(np.allclose(sums, 1, atol=1e-3)))
    activation = "sigmoid" if binary else "softmax"
    if not loss.from_logits and not probabilities:
        raise UserError(
            f"The loss {loss.name} expects probabilities, and the model's outputs are not: end it with "
            f"activation={activation!r}, or pass {type(loss).__name__}(from_logits=True). "
            f"Received: outputs from {outputs.min():.3g} to {outputs.max():.3g}, sums from {sums.min():.3g} to {sums.max():.3g}"
        )
    if loss.from_logits and probabilities and not binary:
        raise UserError(
            f"The loss {loss.name} expects logits, and the model's outputs are probabilities: "
            f"leave its activation={activation!r} out, or from_logits=True"
        )
