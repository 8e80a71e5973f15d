"""Image classifiers: convolution stages, dense layers, a softmax; an ensemble of them; an autoencoder around one."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

from recipes.config import ImageModel
from recipes.models import Tensor

BATCH_NORMALIZATION_MOMENTUM = 0.9
"""Keras's 0.99 needs hundreds of steps to forget its start: too many for runs of a few epochs."""
BLANK_VARIANCE = 1.0
"""Added to the variance of an image's pixels: rounding, of a grey level, is not contrast."""
BORDER = 7
"""The border of an image is a seventh of its side wide, as in MNIST, whose digits fill a box of 20 of 28 pixels."""
AVERAGED_PART = 0.1
"""Part of a short training over which batch normalisation averages: 0.9 would average over 10 steps of 24, and in a test
such a model classified 100 % of its training images and 57 % of its test images."""


def build_classifier(settings: ImageModel, image_shape: Sequence[int], num_classes: int) -> keras.Model:
    """Build a classifier whose input is raw pixels and whose output is class probabilities.

    Args:
        settings: Sizes of the layers.
        image_shape: (height, width, channels).
        num_classes: Number of classes, at least 2.

    Returns:
        A functional model, float32 (batch, height, width, channels) in [0, 255] →
        float32 (batch, num_classes), rows summing to 1. It rescales its
        input; augmentation is not part of it.
    """
    image = keras.Input(image_shape, name="image")  # (batch, height, width, channels)
    x = standardize(image) if settings.standardize else layers.Rescaling(1 / 255, name="normalize")(image)
    if settings.members == 1:
        output = layers.Dense(num_classes, activation="softmax", dtype="float32", name="probabilities")
        probabilities = output(_hidden(x, settings))
    else:
        logits = []
        for number in range(1, settings.members + 1):
            output = layers.Dense(num_classes, dtype="float32", name=f"member_{number}_logits")
            logits.append(output(_hidden(x, settings, prefix=f"member_{number}_")))
        mean = AverageOfMembers(dtype="float32", name="average_of_members")(logits)
        probabilities = layers.Softmax(dtype="float32", name="probabilities")(mean)
    return keras.Model(image, probabilities, name="image_classifier")


def standardize(image: Tensor) -> Tensor:
    """Return images with mean 0 and standard deviation 1 whose border is darker than the rest, in the same shape."""
    x = layers.LayerNormalization(
        axis=(1, 2, 3), epsilon=BLANK_VARIANCE, center=False, scale=False, name="standardize"
    )(image)
    width = max(1, min(image.shape[1:3]) // BORDER)
    inside = layers.Cropping2D(width, name="inside")(x)
    brightness = ops.mean(inside, axis=(1, 2, 3), keepdims=True)  # of all pixels it is 0
    return ops.where(brightness < 0, -x, x)


def shorten_averages(model: keras.Model, steps: int) -> None:
    """Lower the momentum of batch normalisation where a training of so many steps is short."""
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = min(layer.momentum, max(0.0, 1 - 1 / (AVERAGED_PART * steps)))


def _hidden(x: Tensor, settings: ImageModel, prefix: str = "") -> Tensor:
    """Return what the last layer of a network sees, (batch, units)."""
    for stage, filters in enumerate(settings.convolutions, start=1):
        x = _convolution_stage(x, filters, settings, name=f"{prefix}convolution_{stage}")
    if settings.head == "average":
        x = layers.GlobalAveragePooling2D(name=f"{prefix}average")(x)  # (batch, filters)
    else:
        x = layers.Flatten(name=f"{prefix}flatten")(x)  # (batch, height * width * filters)
    for number, units in enumerate(settings.dense, start=1):
        x = _dense(x, units, settings, name=f"{prefix}dense_{number}")
    return x


def _convolution_stage(x: Tensor, filters: int, settings: ImageModel, name: str) -> Tensor:
    for number in range(1, settings.depth):
        x = _convolution(x, filters, settings, f"{name}_{number}")
        x = _normalize_and_activate(x, settings, f"{name}_{number}")
    x = _convolution(x, filters, settings, name)
    # Pooling first: normalisation and ReLU then see a quarter of the values, at the same accuracy.
    x = layers.MaxPooling2D(name=f"{name}_pool")(x)
    return _normalize_and_activate(x, settings, name)


def _convolution(x: Tensor, filters: int, settings: ImageModel, name: str) -> Tensor:
    return layers.Conv2D(
        filters,
        settings.kernel_size,
        padding=settings.padding,
        use_bias=not settings.batch_normalization,
        name=name,
    )(x)


def _dense(x: Tensor, units: int, settings: ImageModel, name: str) -> Tensor:
    x = layers.Dense(units, use_bias=not settings.batch_normalization, name=name)(x)
    x = _normalize_and_activate(x, settings, name)
    return layers.Dropout(settings.dropout, name=f"{name}_dropout")(x) if settings.dropout else x


def _normalize_and_activate(x: Tensor, settings: ImageModel, name: str) -> Tensor:
    if settings.batch_normalization:
        x = layers.BatchNormalization(momentum=BATCH_NORMALIZATION_MOMENTUM, name=f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


@keras.saving.register_keras_serializable(package="keras_recipes")
class AverageOfMembers(layers.Average):
    """Average the logits of the ensemble members, each (batch, classes) (Lakshminarayanan et al. 2017, arXiv:1612.01474).

    Members that are trained with the loss of their mean learn differences that do not generalise (Jeffares
    et al. 2023, arXiv:2301.11323). The mean of the members' cross-entropies equals the cross-entropy of their
    mean plus their disagreement, for any labels (Wood et al. 2023, arXiv:2301.03962). With the disagreement added to
    the training loss (`recipes.training.losses.member_losses`) each member is trained independently. Its gradient is
    its own divided by the number of members; Adam and other optimizers that normalise gradients are not affected.
    Distillation replaces part of this loss by a loss of the mean: for that part the members are trained jointly.

    Attributes:
        disagreement: That of the last batch, a scalar. Keras's `add_loss` would collect it from all replicas.
    """

    def call(self, inputs: Sequence[Tensor], training: bool = False) -> Tensor:
        """Return the mean, (batch, classes)."""
        mean = super().call(inputs)
        if training:
            self.disagreement = ops.mean(disagreement(inputs, mean))
        return mean

    def compute_output_spec(self, inputs: Sequence[Tensor], training: bool = False) -> Tensor:
        """Return the mean's shape and dtype; Keras's own takes no `training`."""
        return super().compute_output_spec(inputs)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> layers.Average:
        """Return a plain Average: a saved model does not depend on this project.

        When such a model is trained further, as in pruning, its members are trained with the loss of their mean.
        """
        return layers.Average(**config)


def disagreement(logits: Sequence[Tensor], mean: Tensor) -> Tensor:
    """Return the mean of the log-sum-exp of each member's logits less that of their mean, (batch,), at least 0."""
    each = ops.logsumexp(ops.stack(logits), axis=-1)  # (members, batch)
    return ops.mean(each, axis=0) - ops.logsumexp(mean, axis=-1)


def build_autoencoder(classifier: keras.Model) -> keras.Model:
    """Build a network that restores images, whose encoder is a classifier without its last layer.

    The decoder is the encoder's dense layers mirrored. Layers are shared: who trains the autoencoder
    trains the classifier.

    Args:
        classifier: A functional model whose last layer is dense (`build_classifier`).

    Returns:
        A functional model, float32 (batch, height, width, channels) in [0, 255] → float32 (batch,
        height * width * channels) in [0, 1].
    """
    code = classifier.layers[-1].input  # (batch, units)
    widths = [layer.units for layer in classifier.layers[:-1] if isinstance(layer, layers.Dense)]
    x = code
    for number, units in enumerate(reversed(widths[:-1]), start=1):
        x = layers.Dense(units, activation="relu", name=f"decoder_{number}")(x)
    height, width, channels = classifier.input.shape[1:]
    restored = layers.Dense(
        height * width * channels, activation="sigmoid", dtype="float32", name="restored"
    )(x)
    return keras.Model(classifier.input, restored, name="autoencoder")
