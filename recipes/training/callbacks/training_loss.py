"""What training minimizes besides the loss of the labels: a teacher's opinion, a penalty on the weights."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from recipes.config import Distillation, Regularization
from recipes.models.parameters import is_matrix
from recipes.training.callbacks.pruning import dense_values

Tensor = Any
Term = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""(loss so far, inputs, outputs, examples' weights or None) → loss."""


class TrainingLoss(keras.callbacks.Callback):
    """Train by another loss than the one that is validated, which stays that of the labels.

    Keras asks `model.compute_loss` in each step, and that is what is replaced while training lasts.

    Args:
        terms: What is added, in this order.
        replicas: Devices that share a batch: Keras divides each one's loss by their number, because
            it adds their gradients up.
    """

    def __init__(self, terms: Sequence[Term], *, replicas: int = 1) -> None:
        super().__init__()
        self.terms = terms
        self.replicas = replicas

    def set_model(self, model: keras.Model) -> None:
        """Replace the loss of the model that is to be trained."""
        super().set_model(model)
        self.of_labels = model.compute_loss
        model.compute_loss = self.loss

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Give the model its own loss back."""
        self.model.compute_loss = self.of_labels

    def loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        """Return the loss of a batch."""
        loss = self.of_labels(x, y, y_pred, sample_weight, training=training)
        if not training:
            return loss
        loss = loss * self.replicas
        for term in self.terms:
            loss = term(loss, x, y_pred, sample_weight)
        return loss / self.replicas


def log_probabilities(outputs: Tensor, from_logits: bool, temperature: float = 1.0) -> Tensor:
    """Return log-probabilities, softened by a temperature."""
    outputs = ops.cast(outputs, "float32")
    logits = outputs if from_logits else ops.log(ops.maximum(outputs, 1e-7))
    return ops.log_softmax(logits / temperature)


def weighted_mean(values: Tensor, weights: Tensor | None) -> Tensor:
    """Return the mean of all values, by their weights if they have any."""
    if weights is None:
        return ops.mean(values)
    return ops.mean(values * weights) / ops.maximum(ops.mean(weights), 1e-6)


class Teacher:
    """Learn from a trained model besides the labels (Hinton et al. 2015, arXiv:1503.02531).

    Args:
        settings: Weight and temperature.
        model: The trained model: same inputs, same outputs.
        from_logits: Whether outputs are logits, else probabilities.
    """

    def __init__(self, settings: Distillation, model: keras.Model, *, from_logits: bool) -> None:
        self.settings = settings
        self.model = model
        self.from_logits = from_logits

    def __call__(self, loss: Tensor, x: Tensor, outputs: Tensor, sample_weight: Tensor | None) -> Tensor:
        """Return the mean of the loss and the teacher's, by their weights."""
        weight, temperature = self.settings.weight, self.settings.temperature
        theirs = ops.stop_gradient(self.model(x, training=False))
        theirs = log_probabilities(theirs, self.from_logits, temperature)
        ours = log_probabilities(outputs, self.from_logits, temperature)
        divergence = ops.sum(ops.exp(theirs) * (theirs - ours), axis=-1)  # one for each label
        return (1 - weight) * loss + weight * temperature**2 * weighted_mean(divergence, sample_weight)


class RegressionTeacher:
    """Learn from a trained model's predictions besides the targets: the squared error of both.

    Args:
        settings: Weight; numbers have no temperature.
        model: The trained model: same inputs, same outputs.
    """

    def __init__(self, settings: Distillation, model: keras.Model) -> None:
        self.settings = settings
        self.model = model

    def __call__(self, loss: Tensor, x: Tensor, outputs: Tensor, sample_weight: Tensor | None) -> Tensor:
        """Return the mean of the loss and the teacher's, by their weights."""
        theirs = ops.stop_gradient(self.model(x, training=False))
        errors = ops.mean(ops.square(outputs - theirs), axis=-1)  # (batch,)
        weight = self.settings.weight
        return (1 - weight) * loss + weight * weighted_mean(errors, sample_weight)


class Penalty:
    """Make large weights expensive: l1 * sum |w| + l2 * sum w^2 over matrices and kernels.

    Where a weight is pruned, |w| has no derivative, and anything from -1 to 1 will do: it is the sign
    of the weight's dense copy. So what is pruned and of no use shrinks on, and does not come back.

    Args:
        settings: l1 and l2.
        model: Whose weights they are.
    """

    def __init__(self, settings: Regularization, model: keras.Model) -> None:
        self.settings = settings
        self.variables = [variable for variable in model.trainable_variables if is_matrix(variable)]

    def __call__(self, loss: Tensor, x: Tensor, outputs: Tensor, sample_weight: Tensor | None) -> Tensor:
        """Return the loss and the penalty together."""
        for variable in self.variables:
            if self.settings.l1:
                signs = ops.stop_gradient(ops.sign(dense_values(variable)))
                loss = loss + self.settings.l1 * ops.sum(signs * variable)  # |w|, or 0 where pruned
            if self.settings.l2:
                loss = loss + self.settings.l2 * ops.sum(ops.square(variable))
        return loss
