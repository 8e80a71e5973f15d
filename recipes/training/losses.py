"""Losses of a classifier, and terms that training adds to a loss: a teacher, a penalty on the weights."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
from keras import ops

from recipes.config import LossName
from recipes.models import Tensor
from recipes.models.image import AverageOfMembers
from recipes.models.parameters import is_matrix
from recipes.training.callbacks.pruning import dense_values

Term = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""(loss so far, inputs, outputs, examples' weights or None) → loss."""
Divergence = Callable[[Tensor, Tensor], Tensor]
"""(teacher's outputs, model's outputs) → a value for each label, (batch, ...)."""


def build_loss(name: LossName) -> keras.losses.Loss:
    """Return the loss of a name, of one-hot labels and probabilities (batch, classes)."""
    if name == "cross-entropy":
        return keras.losses.CategoricalCrossentropy()
    if name == "mean-squared-error":
        return keras.losses.MeanSquaredError()
    return MultiClassHinge()


class MultiClassHinge(keras.losses.Loss):
    """The multi-class hinge loss with a margin of 1 (Crammer & Singer 2001).

    max(0, 1 + max of the other classes' z - z of the true class). Differences of log-probabilities are
    differences of logits, so outputs may be probabilities.
    """

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Return the loss of each example, (batch,)."""
        scores = ops.log(ops.maximum(y_pred, 1e-30))
        of_truth = ops.sum(y_true * scores, axis=-1)
        of_others = ops.max(scores - 1e9 * y_true, axis=-1)
        return ops.maximum(1.0 + of_others - of_truth, 0.0)


@contextlib.contextmanager
def added_to_loss(model: keras.Model, terms: Sequence[Term]) -> Iterator[None]:
    """Add terms to the training loss of a model during a fit; its validation loss stays that of the labels.

    Replaces `compute_loss`, which Keras's training step calls. A wrapper model with its own `compute_loss` would
    bypass the training step of a user's model class.

    Args:
        model: The compiled model.
        terms: The terms, which are added in this order.
    """
    if not terms:
        yield
        return
    of_labels = model.compute_loss
    # Keras adds the replicas' gradients up, and divides each one's loss by their number.
    replicas = model.distribute_strategy.num_replicas_in_sync

    def compute_loss(
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        loss = of_labels(x, y, y_pred, sample_weight, training=training)
        if not training:
            return loss
        loss = loss * replicas
        for term in terms:
            loss = term(loss, x, y_pred, sample_weight)
        return loss / replicas

    model.compute_loss, model.train_function = compute_loss, None
    try:
        yield
    finally:
        model.compute_loss, model.train_function = of_labels, None


def member_losses(average: AverageOfMembers) -> Term:
    """Return the term that makes the cross-entropy of an ensemble's mean the mean of its members' cross-entropies."""
    return lambda loss, x, outputs, sample_weight: loss + average.disagreement


def distillation(teacher: keras.Model, weight: float, divergence: Divergence) -> Term:
    """Return the term that learns from a trained model besides the labels: (1 - weight) loss + weight mean divergence.

    Args:
        teacher: The trained model: same inputs, same outputs.
        weight: Weight of the teacher in the loss, in (0, 1].
        divergence: Compares its outputs with the model's.
    """

    def term(loss: Tensor, x: Tensor, outputs: Tensor, sample_weight: Tensor | None) -> Tensor:
        values = divergence(ops.stop_gradient(teacher(x, training=False)), outputs)
        if sample_weight is None:
            return (1 - weight) * loss + weight * ops.mean(values)
        mean = ops.mean(values * sample_weight) / ops.maximum(ops.mean(sample_weight), 1e-6)
        return (1 - weight) * loss + weight * mean

    return term


def softened_divergence(temperature: float, *, from_logits: bool) -> Divergence:
    """Return temperature² KL(teacher ‖ model), both softened by the temperature (Hinton et al. 2015, arXiv:1503.02531).

    Args:
        temperature: Temperature that divides the logits of both models, above 0.
        from_logits: Whether outputs are logits, else probabilities.
    """

    def log_probabilities(outputs: Tensor) -> Tensor:
        outputs = ops.cast(outputs, "float32")
        logits = outputs if from_logits else ops.log(ops.maximum(outputs, 1e-7))
        return ops.log_softmax(logits / temperature)

    def divergence(theirs: Tensor, ours: Tensor) -> Tensor:
        theirs, ours = log_probabilities(theirs), log_probabilities(ours)
        return temperature**2 * ops.sum(ops.exp(theirs) * (theirs - ours), axis=-1)

    return divergence


def squared_error(theirs: Tensor, ours: Tensor) -> Tensor:
    """Return the squared error of a regression to its teacher's prediction, (batch,)."""
    return ops.mean(ops.square(ours - theirs), axis=-1)


def weight_penalty(model: keras.Model, *, l1: float = 0.0, l2: float = 0.0) -> Term:
    """Return the term l1 * sum |w| + l2 * sum w² over the matrices and kernels of a model.

    |w| has no derivative at a pruned weight, and any value in [-1, 1] is a subgradient: it is the sign
    of the weight's dense copy. So pruned weights that are not needed shrink further, and do not return.
    Keras's regularizers would be part of the validation loss.
    """
    variables = [variable for variable in model.trainable_variables if is_matrix(variable)]

    def term(loss: Tensor, x: Tensor, outputs: Tensor, sample_weight: Tensor | None) -> Tensor:
        for variable in variables:
            if l1:
                signs = ops.stop_gradient(ops.sign(dense_values(variable)))
                loss = loss + l1 * ops.sum(signs * variable)  # |w|, or 0 where pruned
            if l2:
                loss = loss + l2 * ops.sum(ops.square(variable))
        return loss

    return term
