"""Every named recipe on one page: its settings, and what it measured.

Measured on real MNIST, 2 cores: mean ± standard deviation over seeds 0, 1 and 2, epoch chosen on
validation; `python -m benchmarks.mnist` prints the figures.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from recipes.config import (
    Augmentation,
    EarlyStopping,
    ImageModel,
    ImageRecipe,
    Optimizer,
    Schedule,
    Training,
)


@dataclass(frozen=True)
class Entry:
    """A recipe of the catalog.

    Attributes:
        summary: What it is, in a line.
        recipe: Its settings.
        parameters: Parameters of its model, on ten classes of 28 x 28 grey images.
        measured: Its result, with the dataset it was measured on.
    """

    summary: str
    recipe: ImageRecipe
    parameters: int
    measured: str


CATALOG: Mapping[str, Entry] = {
    "mnist-cnn": Entry(
        summary="two convolution stages, batch normalisation, dropout, augmentation, one-cycle AdamW",
        recipe=ImageRecipe(
            model=ImageModel(
                convolutions=(32, 64),
                kernel_size=5,
                padding="valid",
                dense=(128,),
                batch_normalization=True,
                dropout=0.4,
            ),
            augmentation=Augmentation(rotate=10, scale=0.1, shift=2),
            optimizer=Optimizer(name="adamw", learning_rate=0.004, weight_decay=0.01),
            schedule=Schedule(name="one-cycle"),
            early_stopping=EarlyStopping(metric="validation_accuracy"),
            training=Training(epochs=12, batch_size=128),
        ),
        parameters=185_258,
        measured="99.59 ± 0.04 % of MNIST's test images",
    ),
    "mnist-mlp": Entry(
        summary="784-128-64-10, Adam 0.001, cosine decay, augmentation",
        recipe=ImageRecipe(
            model=ImageModel(dense=(128, 64)),
            augmentation=Augmentation(rotate=10, scale=0.1, shift=1),
            schedule=Schedule(name="cosine"),
            early_stopping=EarlyStopping(metric="validation_accuracy"),
            training=Training(epochs=20, batch_size=64),
        ),
        parameters=109_386,
        measured="98.68 ± 0.10 % of MNIST's test images",
    ),
    "mnist-lenet-300-100": Entry(
        summary="784-300-100-10, the fully connected network of LeCun et al. 1998",
        recipe=ImageRecipe(
            model=ImageModel(dense=(300, 100)),
            schedule=Schedule(name="cosine"),
            early_stopping=EarlyStopping(metric="validation_accuracy"),
            training=Training(epochs=15, batch_size=64),
        ),
        parameters=266_610,
        measured="98.23 ± 0.10 % of MNIST's test images",
    ),
    "mnist-lenet-5": Entry(
        summary="20 and 50 filters of 5 x 5, 500 units: LeNet-5 as Caffe has it",
        recipe=ImageRecipe(
            model=ImageModel(convolutions=(20, 50), kernel_size=5, padding="valid", dense=(500,)),
            schedule=Schedule(name="cosine"),
            early_stopping=EarlyStopping(metric="validation_accuracy"),
            training=Training(epochs=12, batch_size=64),
        ),
        parameters=431_080,
        measured="99.32 ± 0.10 % of MNIST's test images",
    ),
}
