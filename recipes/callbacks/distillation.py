"""Learn from a trained model besides the labels."""

from typing import Any

import keras
from keras import ops

from recipes.config import Distillation

Tensor = Any


class Distill(keras.callbacks.Callback):
    """Add the teacher's opinion to the training loss; validation stays as it is.

    Keras asks `model.compute_loss` in each step, and that is what is replaced while training lasts.

    Args:
        settings: Weight and temperature.
        teacher: The trained model: same inputs, same outputs.
        from_logits: Whether outputs are logits, else probabilities.
    """

    def __init__(self, settings: Distillation, teacher: keras.Model, *, from_logits: bool) -> None:
        super().__init__()
        self.settings = settings
        self.teacher = teacher
        self.from_logits = from_logits

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
        of_labels = self.of_labels(x, y, y_pred, sample_weight, training=training)
        if not training:
            return of_labels
        theirs = self._log_softened(ops.stop_gradient(self.teacher(x, training=False)))
        ours = self._log_softened(y_pred)
        divergence = ops.sum(ops.exp(theirs) * (theirs - ours), axis=-1)  # one for each label
        if sample_weight is not None:
            divergence = divergence * sample_weight / ops.maximum(ops.mean(sample_weight), 1e-6)
        weight, temperature = self.settings.weight, self.settings.temperature
        return (1 - weight) * of_labels + weight * temperature**2 * ops.mean(divergence)

    def _log_softened(self, outputs: Tensor) -> Tensor:
        logits = outputs if self.from_logits else ops.log(ops.maximum(outputs, 1e-7))
        return ops.log_softmax(logits / self.settings.temperature)
