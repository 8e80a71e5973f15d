"""Settings of the image recipes."""

import dataclasses
from typing import Literal

from recipes.config.augmentation import Augmentation
from recipes.config.errors import require, require_at_least_one, require_seed
from recipes.config.pretraining import Pretraining
from recipes.config.recipe import Recipe

IMAGE_SHAPE = (28, 28, 1)
"""Height, width and channels of every image, as in MNIST."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageData:
    """Where the images come from and how they are split."""

    source: str = "auto"
    """auto (MNIST if it is prepared or can be downloaded, else the offline digits), a TensorFlow
    Datasets name (mnist, fashion_mnist, kmnist, ...), digits (offline), or a path: a folder with a
    sub-folder a class, a folder with the four IDX files, or an .npz file."""
    validation_fraction: float = 0.1
    """Part of the training images held out to choose epochs and settings, in (0, 1); stratified."""
    test_fraction: float = 0.2
    """Part held out for the test where a source has no test images of its own (digits, folders)."""
    labels_per_class: int | None = None
    """Images of each class whose labels training may use, at least 1, drawn by split_seed (None: all).
    The validation part keeps all of its own, and they choose the epoch."""
    split_seed: int = 0
    """Seed of the two splits. Not the training seed: runs of all seeds share one validation part."""

    def __post_init__(self) -> None:
        require(
            0 < self.validation_fraction < 1,
            "data.validation_fraction must be in (0, 1)",
            validation_fraction=self.validation_fraction,
        )
        require(
            0 < self.test_fraction < 1,
            "data.test_fraction must be in (0, 1)",
            test_fraction=self.test_fraction,
        )
        require(
            self.labels_per_class is None or self.labels_per_class >= 1,
            "data.labels_per_class must be at least 1",
            labels_per_class=self.labels_per_class,
        )
        require_seed("data.split_seed", self.split_seed)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageModel:
    """A classifier of images: convolution stages, then dense layers, then a softmax."""

    convolutions: tuple[int, ...] = ()
    """Filters of each stage: convolutions, the last one followed by 2 x 2 max-pooling, each by batch
    normalisation and ReLU."""
    depth: int = 1
    """Convolutions of each stage, at least 1."""
    kernel_size: int = 3
    """Width and height of each convolution's window, 1 to 28 pixels."""
    padding: Literal["same", "valid"] = "same"
    """same keeps the width and height of an image in a convolution, valid does not pad."""
    head: Literal["flatten", "average"] = "flatten"
    """What the dense layers see of the last stage: each place of each filter, or each filter's mean."""
    dense: tuple[int, ...] = (128,)
    """Units of each hidden dense layer."""
    batch_normalization: bool = False
    """Normalise after each convolution and hidden dense layer (these then have no bias)."""
    dropout: float = 0.0
    """Part of the units dropped after each hidden dense layer in training, in [0, 1)."""
    members: int = 1
    """Such networks side by side, at least 1: one model whose logits are the mean of theirs, each trained
    as if it were alone, but for label smoothing and distillation, which see the mean."""

    def __post_init__(self) -> None:
        for name in ("convolutions", "dense"):
            sizes = getattr(self, name)
            require(
                all(size >= 1 for size in sizes), f"model.{name} must be at least 1 each", **{name: sizes}
            )
        require_at_least_one("model", self, "depth", "members")
        require(
            self.convolutions != () or self.head == "flatten",
            "model.head average is for what convolutions see",
            head=self.head,
        )
        largest = IMAGE_SHAPE[0]
        require(
            1 <= self.kernel_size <= largest,
            f"model.kernel_size must be 1 to {largest}",
            kernel_size=self.kernel_size,
        )
        self._check_stages()
        require(0 <= self.dropout < 1, "model.dropout must be in [0, 1)", dropout=self.dropout)

    def _check_stages(self) -> None:
        """Refuse more stages than an image has pixels for."""
        names = ("convolutions", "depth", "kernel_size", "padding")
        received = {name: getattr(self, name) for name in names}
        kernel, side = self.kernel_size, IMAGE_SHAPE[0]
        for stage in range(1, len(self.convolutions) + 1):
            gets = f"model.convolutions: stage {stage} gets {side} x {side} pixels"
            if self.padding == "valid":
                side -= self.depth * (kernel - 1)
            require(side >= 1, f"{gets}, too few for {kernel} x {kernel} kernels without padding", **received)
            side //= 2
            require(side >= 1, f"{gets}, which 2 x 2 pooling leaves nothing of", **received)


LossName = Literal["cross-entropy", "mean-squared-error", "hinge"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageRecipe(Recipe):
    """An image classifier: raw pixels 0 to 255 in, class probabilities out."""

    metrics = ("validation_loss", "validation_accuracy")

    data: ImageData = ImageData()
    augmentation: Augmentation = Augmentation()
    pretraining: Pretraining = Pretraining()
    model: ImageModel = ImageModel()
    loss: LossName = "cross-entropy"
    """What training minimizes: cross-entropy, the mean squared error of the probabilities, or the
    multi-class hinge loss with a margin of 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        mixed = bool(self.augmentation.mix_up or self.augmentation.cut_mix)
        require(
            self.loss != "hinge" or not mixed,
            "the hinge loss has one true class: augmentation.mix_up and cut_mix make two",
            loss=self.loss,
        )
        require(
            self.loss == "cross-entropy" or not self.regularization.label_smoothing,
            "regularization.label_smoothing is for the cross-entropy",
            loss=self.loss,
        )
        require(
            self.loss == "cross-entropy" or self.model.members == 1,
            "model.members above 1 is for the cross-entropy",
            loss=self.loss,
        )
        require(
            not self.pretraining.epochs or self.model.members == 1,
            "pretraining restores images from one network's layers: model.members must be 1",
            members=self.model.members,
        )
