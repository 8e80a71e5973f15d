"""Settings of the image recipes."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from recipes.config.errors import require
from recipes.config.fields import (
    BelowOne,
    Count,
    NonNegative,
    NonNegativeInt,
    Positive,
    ProperFraction,
    Range,
    Seed,
    Settings,
    whole_part,
)
from recipes.config.recipe import Recipe


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageData(Settings):
    """Where the images come from and how they are split."""

    group = "data"

    source: str = "auto"
    """auto (MNIST if it is prepared or can be downloaded, else the offline digits), a TensorFlow
    Datasets name (mnist, fashion_mnist, kmnist, ...), digits (offline), or a path: a folder with one
    sub-folder per class, a folder with the four IDX files, or an .npz file."""
    image_size: Count | None = 28
    """Height and width in pixels, at least 1 (None: those of the data). Images of a folder are resized."""
    channels: Literal[1, 3] | None = 1
    """1 for grey, 3 for red, green and blue (None: those of the data)."""
    validation_fraction: ProperFraction = 0.1
    """Fraction of the training images held out to choose epochs and settings, in (0, 1); stratified."""
    test_fraction: ProperFraction = 0.2
    """Fraction held out for the test if the source has no test images (digits, folders), in (0, 1)."""
    labels_per_class: Count | None = None
    """Training images per class whose labels are used, at least 1, chosen by split_seed (None: all).
    The validation part keeps all of its labels; they choose the epoch."""
    split_seed: Seed = 0
    """Seed of the two splits. Runs with different training seeds share their validation part."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation(Settings):
    """Random transformations of the training images, each drawn uniformly from its range; 0 is off.

    Of thickness, blur, noise, impulses and light each image gets one of those that are on, or none.
    """

    group = "augmentation"
    removed: ClassVar[Mapping[str, Any]] = {"erase": 0.0, "mix_up": 0.0, "cut_mix": 0.0}

    flip: Literal["none", "horizontal", "vertical", "both"] = "none"
    """Flip half of the images horizontally, vertically, or each way. A flipped digit is another digit or none."""
    rotate: NonNegative = 0.0
    """Largest rotation in degrees, in both directions."""
    scale: BelowOne = 0.0
    """Largest change of width and height as a fraction, each drawn independently, in [0, 1)."""
    shift: NonNegative = 0.0
    """Largest translation in pixels, in each direction."""
    crop: BelowOne = 0.0
    """Largest fraction of width and height that is cropped before the rest is enlarged, in [0, 1)."""
    shear: Annotated[float, Range(at_least=0, below=90)] = 0.0
    """Largest shear in degrees, in both directions, in [0, 90)."""
    elastic: NonNegative = 0.0
    """Standard deviation in pixels of the displacement of each pixel, smooth over its neighbours (Simard et al.
    2003, "Best practices for convolutional neural networks")."""
    elastic_smoothness: Positive = 4.0
    """Standard deviation in pixels of the Gaussian that smooths the displacements, above 0."""
    thickness: Annotated[float, Range(at_least=0, at_most=1)] = 0.0
    """Largest change of the thickness of bright strokes, in [0, 1]: the weight of the image dilated or eroded by a pixel
    on each side in its average with the original."""
    blur: NonNegative = 0.0
    """Largest standard deviation of a Gaussian blur in pixels, drawn independently for rows and columns."""
    noise: NonNegative = 0.0
    """Largest standard deviation of normal noise, as a fraction of 255."""
    impulses: BelowOne = 0.0
    """Largest fraction of the pixels that become black or white, in [0, 1)."""
    light: BelowOne = 0.0
    """Largest brightness of a light from one side, as a fraction of 255, in [0, 1). The image loses as much contrast."""
    end_fraction: Annotated[float, Range(at_least=0, at_most=1)] = 1.0
    """Fraction of the epochs after which images are no longer transformed, in [0, 1]. Interpolation blurs transformed
    images; the last epochs on original images remove this difference from the test images (He et al. 2019,
    arXiv:1909.09148)."""

    def end(self, epochs: int) -> int:
        """Return the number of epochs with augmentation."""
        return whole_part(self.end_fraction, epochs)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pretraining(Settings):
    """A denoising autoencoder that pre-trains the hidden layers on all training images, with or without labels
    (Vincent et al. 2010, "Stacked denoising autoencoders").
    """

    group = "pretraining"

    epochs: NonNegativeInt = 0
    """Passes over all training images, at least 0; 0 is off."""
    noise: BelowOne = 0.5
    """Fraction of the pixels that are set to 0, in [0, 1)."""
    moves: Augmentation = Augmentation()
    """Transformations of the images that the autoencoder must undo."""
    learning_rate: Positive = 0.001
    """Peak learning rate of Adam, with cosine decay to 0."""
    batch_size: Count = 128
    """Images per step, at least 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.moves.end_fraction == 1,
            "pretraining.moves.end_fraction must be 1",
            end_fraction=self.moves.end_fraction,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageModel(Settings):
    """An image classifier: convolution stages, dense layers and a softmax."""

    group = "model"

    standardize: bool = False
    """Whether each image is standardised: mean 0, standard deviation 1, and inverted if its border is brighter than the
    rest. Brightness, contrast and polarity then make no difference; off where classes differ in them. Off, pixels are
    scaled to [0, 1]."""
    convolutions: tuple[Count, ...] = ()
    """Filters of each stage. A stage is one or more convolutions, the last one followed by 2 x 2 max-pooling, each
    with batch normalisation (if it is on) and ReLU."""
    depth: Count = 1
    """Convolutions per stage, at least 1."""
    kernel_size: Count = 3
    """Width and height of the convolution kernels in pixels, at least 1."""
    padding: Literal["same", "valid"] = "same"
    """Padding of the convolutions, as in Keras."""
    head: Literal["flatten", "average"] = "flatten"
    """Input of the dense layers: all positions of the last stage, or the mean of each filter."""
    dense: tuple[Count, ...] = (128,)
    """Units of each hidden dense layer."""
    batch_normalization: bool = False
    """Whether convolutions and hidden dense layers are followed by batch normalisation (they then have no bias)."""
    dropout: BelowOne = 0.0
    """Dropout rate after each hidden dense layer, in [0, 1)."""
    members: Count = 1
    """Members of an ensemble in one model, at least 1. Their logits are averaged; each is trained independently,
    except for distillation, which uses the average."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.convolutions != () or self.head == "flatten",
            "model.head average needs convolutions",
            head=self.head,
        )

    def check_stages(self, side: int) -> None:
        """Raise a UserError if images are too small for a stage.

        Args:
            side: The shorter side of the images in pixels.
        """
        require(
            not self.standardize or side >= 3,
            f"model.standardize needs images of at least 3 x 3 pixels, not {side} x {side}",
            standardize=self.standardize,
        )
        names = ("convolutions", "depth", "kernel_size", "padding")
        received = {name: getattr(self, name) for name in names}
        kernel = self.kernel_size
        require(
            kernel <= side,
            f"model.kernel_size must be 1 to {side}",
            kernel_size=kernel,
        )
        for stage in range(1, len(self.convolutions) + 1):
            gets = f"model.convolutions: stage {stage} gets {side} x {side} pixels"
            if self.padding == "valid":
                side -= self.depth * (kernel - 1)
            require(side >= 1, f"{gets}, too few for {kernel} x {kernel} kernels without padding", **received)
            side //= 2
            require(side >= 1, f"{gets}, too few for 2 x 2 pooling", **received)


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
    """Training loss: cross-entropy, the mean squared error of the probabilities, or the multi-class hinge loss with a
    margin of 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data.image_size is not None:
            self.model.check_stages(self.data.image_size)
        require(
            self.loss == "cross-entropy" or self.model.members == 1,
            "model.members above 1 is for the cross-entropy",
            loss=self.loss,
        )
        require(
            not self.pretraining.epochs or self.model.members == 1,
            "pretraining trains the layers of a single network: model.members must be 1",
            members=self.model.members,
        )
